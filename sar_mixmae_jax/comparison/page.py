"""The table and the figure of what is finished: comparison.md, .json and .png in the workdir."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sar_mixmae_jax.comparison import figure, truth
from sar_mixmae_jax.comparison.cells import PRETRAINING, Measured
from sar_mixmae_jax.comparison.markdown import markdown
from sar_mixmae_jax.comparison.stages import Metrics, held_out, protocol
from sar_mixmae_jax.comparison.statistics import Baseline, Metric, Result
from sar_mixmae_jax.comparison.table import Section, as_json, tabulate
from sar_mixmae_jax.evaluation import flood_metrics
from sar_mixmae_jax.files import write_whole

HEADLINES = {
    "classification": (
        ("macro/average_precision", "AP macro"),
        ("macro/f1", "F1 macro"),
        ("micro/average_precision", "AP micro"),
    ),
    "flood": (
        ("headline/average_precision", "onset AP"),
        ("headline/f1", "onset F1"),
        ("headline/balanced_accuracy", "onset balanced accuracy"),
    ),
}
"""Metrics of a task that are compared, with their titles."""


def write(
    config: ConfigDict,
    workdir: Path,
    finished: Sequence[Measured],
    references: Mapping[str, Mapping[str, Metrics]],
    title: str,
    notes: Sequence[str],
) -> list[Path]:
    """Writes the three files.

    Args:
      config: of the comparison.
      workdir: where to.
      finished: all cells that are finished.
      references: of every task its baselines with their metrics.
      title: of page and figure.
      notes: what must be said besides.
    """
    results = [
        Result(one.cell.arm, one.cell.seed, _task(one.cell.stage), one.metrics) for one in finished
    ]
    baselines = [
        Baseline(name, task, metrics)
        for task, every in references.items()
        for name, metrics in every.items()
    ]
    arms = config.compared
    sections = []
    for task in config.finetune:
        sections.append(Section(_named(task), tuple(compared(config, task)), judged=True))
        sections += details(config, task, results)
    patches = held_out(config)
    simulated = "noise_free" in patches.fields
    sections += truth.sections(
        protocol(patches), norm_pix=config.pretrain.norm_pix, truth=simulated
    )
    tables = [tabulate(one, results, baselines, arms, config.reference) for one in sections]
    paths = [workdir / f"comparison.{kind}" for kind in ("md", "json", "png")]
    write_whole(paths[0], markdown(title, tables, [*notes, *learnt(results, baselines)]).encode())
    write_whole(paths[1], (json.dumps(as_json(tables), indent=1) + "\n").encode())
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


def learnt(results: Sequence[Result], baselines: Sequence[Baseline]) -> list[str]:
    """Says so where no pretraining beats the mean of each cell: there is nothing to compare."""
    errors = [one.metrics.get("error") for one in results if one.task == truth.TASK]
    nulls = [one.metrics.get("error") for one in baselines if one.name == "null"]
    least = min((error for error in errors if error is not None), default=0.0)
    null = min((error for error in nulls if error is not None), default=math.inf)
    if least < null:
        return []
    return [
        f"**No pretraining has learnt anything**: the least unweighted error is {least:.4f}, and "
        f"that of `null`, the mean of each cell, {null:.4f}. Differences between arms in the "
        "tables of pretraining are then differences between models that know nothing."
    ]


def _task(stage: str) -> str:
    return truth.TASK if stage == PRETRAINING else stage


def _named(task: str) -> str:
    return task.replace("_", " ").capitalize()


def compared(config: ConfigDict, task: str) -> list[Metric]:
    """The metrics of a task by which arms are compared."""
    name = _named(task)
    return [
        Metric(task, metric, f"{name}: {title}")
        for metric, title in HEADLINES[config.finetune[task].task]
    ]


def details(config: ConfigDict, task: str, results: Sequence[Result]) -> list[Section]:
    """Recall by flooded fraction and by hard case; average precision by class."""
    names = list(dict.fromkeys(name for one in results if one.task == task for name in one.metrics))

    def plain(prefix: str, only: Sequence[str] | None = None) -> tuple[Metric, ...]:
        return tuple(
            Metric(task, name, name.removeprefix(prefix), ".2f", None, compared=False)
            for name in names
            if name.startswith(prefix) and (only is None or name.removeprefix(prefix) in only)
        )

    if config.finetune[task].task != "flood":
        found = plain("average_precision/")
        return (
            [Section("Land cover: average precision by class", found, upright=True)]
            if found
            else []
        )
    fractions = flood_metrics.FRACTION_NAMES
    cases = [name.removeprefix("recall/") for name in names if name.startswith("recall/")]
    cases = [name for name in cases if name not in fractions]
    sections = [
        Section("Floods: recall by flooded fraction", plain("recall/", fractions), upright=True),
        Section("Floods: recall by hard case", plain("recall/", cases), upright=True),
        Section(
            "Floods: false alarms by hard case", plain("false_alarm_rate/", cases), upright=True
        ),
    ]
    return [one for one in sections if one.metrics]
