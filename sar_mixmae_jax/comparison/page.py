"""The table and the figure of what is finished: comparison.md, .json and .png in the workdir."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.comparison import figure, truth
from sar_mixmae_jax.comparison.cells import PRETRAINING, Measured
from sar_mixmae_jax.comparison.markdown import markdown
from sar_mixmae_jax.comparison.stages import Metrics, held_out, protocol
from sar_mixmae_jax.comparison.statistics import Metric, Result, by_seed
from sar_mixmae_jax.comparison.table import Section, as_json, tabulate
from sar_mixmae_jax.evaluation import KINDS
from sar_mixmae_jax.files import write_whole


def write(
    config: ConfigDict,
    workdir: Path,
    finished: Sequence[Measured],
    references: Mapping[str, Mapping[str, Sequence[Metrics]]],
    title: str,
    notes: Sequence[str],
) -> list[Path]:
    """Writes the three files.

    Args:
      config: of the comparison.
      workdir: where to.
      finished: all cells that are finished.
      references: of every task its baselines with their metrics by seed, or once for all seeds.
      title: of page and figure.
      notes: what must be said besides.
    """
    results = [
        Result(one.cell.arm, one.cell.seed, _task(one.cell.stage), one.metrics) for one in finished
    ]
    baselines = [
        Result(name, None if len(measured) == 1 else seed, task, metrics)
        for task, every in references.items()
        for name, measured in every.items()
        for seed, metrics in enumerate(measured)
    ]
    arms = config.compared
    sections = []
    for task in config.finetune:
        sections.append(Section(_named(task), tuple(compared(config, task)), judged=True))
        sections += details(task, results)
    patches = held_out(config)
    simulated = "noise_free" in patches.fields
    sections += truth.sections(
        protocol(patches), norm_pix=config.pretrain.norm_pix, truth=simulated
    )
    tables = [tabulate(one, results, baselines, arms, config.reference) for one in sections]
    paths = [workdir / f"comparison.{kind}" for kind in ("md", "json", "png")]
    write_whole(paths[0], markdown(title, tables, [*notes, *learnt(results, baselines)]).encode())
    write_whole(paths[1], (json.dumps(as_json(tables), indent=1, allow_nan=False) + "\n").encode())
    error = Metric(truth.TASK, "error", "unweighted error", ".4f", higher_is_better=False)
    figure.draw(
        [*(metric for task in config.finetune for metric in compared(config, task)), error],
        results,
        baselines,
        arms,
        paths[2],
        title=title,
        reference=config.reference,
    )
    return paths


def learnt(results: Sequence[Result], baselines: Sequence[Result]) -> list[str]:
    """How much better every pretraining is than the mean of each cell: else nothing is compared."""
    error = Metric(truth.TASK, "error", "", higher_is_better=False)
    nulls = by_seed(baselines, error).get("null", {})
    if not nulls:
        return []
    null = float(np.mean([*nulls.values()]))
    explained = {
        arm: 1 - float(np.mean([*values.values()])) / null
        for arm, values in by_seed(results, error).items()
    }
    if not explained:
        return []
    told = ", ".join(f"{arm} {share:.1%}" for arm, share in explained.items())
    nothing = [arm for arm, share in explained.items() if share <= 0]
    warning = f" **{', '.join(nothing)} learnt nothing.**" if nothing else ""
    return [
        f"Of the unweighted error of `null`, the mean of each cell, pretraining takes away: {told}."
        f"{warning} Small differences downstream between arms that know little are no surprise."
    ]


def _task(stage: str) -> str:
    return truth.TASK if stage == PRETRAINING else stage


def _named(task: str) -> str:
    return task.replace("_", " ").capitalize()


def compared(config: ConfigDict, task: str) -> list[Metric]:
    """The metrics of a task by which arms are compared."""
    name = _named(task)
    return [
        Metric(task, score, f"{name}: {title}", bounded=True)
        for score, title in KINDS[config.finetune[task].task].compared.items()
    ]


def details(task: str, results: Sequence[Result]) -> list[Section]:
    """The breakdowns of a task; see `stages.flat_metrics`."""
    names = list(dict.fromkeys(name for one in results if one.task == task for name in one.metrics))
    titles = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    return [
        Section(
            f"{_named(task)}: {title}",
            tuple(
                Metric(task, name, name.partition("/")[2], ".2f", None, compared=False)
                for name in names
                if name.startswith(f"{title}/")
            ),
            upright=True,
        )
        for title in titles
    ]
