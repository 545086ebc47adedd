"""Result of a comparison: comparison.md, comparison.json and comparison.png in the workdir."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.experiments import reconstruction_metrics
from sar_mixmae_jax.experiments.comparison_figure import draw_comparison
from sar_mixmae_jax.experiments.comparison_tables import (
    Section,
    make_table,
    to_json,
    to_markdown,
)
from sar_mixmae_jax.experiments.reconstruction_metrics import ERROR, Metrics
from sar_mixmae_jax.experiments.seed_statistics import Metric, Result, values_by_seed
from sar_mixmae_jax.experiments.trials import PRETRAINING, TrialResult, held_out, protocol
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.utils.files import atomic_write

References = Mapping[str, Mapping[str, Sequence[Metrics]]]
"""Metrics of the baselines by task and name: one entry for each seed, or one for all seeds."""


def write_comparison(
    config: ConfigDict,
    workdir: Path,
    finished: Sequence[TrialResult],
    references: References,
    title: str,
    notes: Sequence[str],
) -> list[Path]:
    """Write the tables and the figure.

    Args:
      config: of the comparison.
      workdir: folder of the files.
      finished: results of all finished trials.
      references: metrics of the baselines.
      title: of page and figure.
      notes: footnotes about the data.

    Returns:
      Paths of the three files.
    """
    results = [
        Result(trial.arm, trial.seed, _task_of(trial.stage), metrics)
        for trial, metrics, _ in finished
    ]
    baselines = [
        Result(name, None if len(by_seed) == 1 else seed, task, metrics)
        for task, of_task in references.items()
        for name, by_seed in of_task.items()
        for seed, metrics in enumerate(by_seed)
    ]
    tables = [
        make_table(section, results, baselines, config.compared, config.reference)
        for section in _sections(config, results)
    ]
    markdown, numbers, figure = (workdir / f"comparison.{kind}" for kind in ("md", "json", "png"))
    notes = [*notes, *explained_by_pretraining(results, baselines)]
    atomic_write(markdown, to_markdown(title, tables, notes).encode())
    atomic_write(numbers, (json.dumps(to_json(tables), indent=1, allow_nan=False) + "\n").encode())
    draw_comparison(
        [*(metric for task in config.finetune for metric in compared_metrics(config, task)), ERROR],
        results,
        baselines,
        config.compared,
        figure,
        title=title,
        reference=config.reference,
    )
    return [markdown, numbers, figure]


def _sections(config: ConfigDict, results: Sequence[Result]) -> list[Section]:
    """Return the content of all tables: scores and breakdowns by task, then reconstruction."""
    sections = []
    for task in config.finetune:
        metrics = tuple(compared_metrics(config, task))
        sections.append(Section(_task_title(task), metrics, judged=True))
        sections += breakdown_sections(task, results)
    patches = held_out(config)
    sections += reconstruction_metrics.reconstruction_sections(
        protocol(patches),
        norm_pix_loss=config.pretrain.norm_pix_loss,
        has_truth="noise_free" in patches.fields,
    )
    return sections


def compared_metrics(config: ConfigDict, task: str) -> list[Metric]:
    """Return the metrics of a task in which arms are compared."""
    scores = get_task(config.finetune[task].task).score_titles
    return [
        Metric(task, score, f"{_task_title(task)}: {title}", bounded=True)
        for score, title in scores.items()
    ]


def breakdown_sections(task: str, results: Sequence[Result]) -> list[Section]:
    """Return a table for each breakdown of a task, see `trials.flat_metrics`."""
    names = dict.fromkeys(
        name for result in results if result.task == task for name in result.metrics
    )
    titles = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
    return [
        Section(
            f"{_task_title(task)}: {title}",
            tuple(
                Metric(task, name, name.partition("/")[2], ".2f", None, compared=False)
                for name in names
                if name.startswith(f"{title}/")
            ),
            transposed=True,
        )
        for title in titles
    ]


def explained_by_pretraining(results: Sequence[Result], baselines: Sequence[Result]) -> list[str]:
    """Return a sentence about the reconstruction error that pretraining removes.

    Arms that reconstruct no better than the mean of each mask unit have learned nothing, and then
    there is nothing to compare.
    """
    nulls = values_by_seed(baselines, ERROR).get("null", {})
    errors = values_by_seed(results, ERROR)
    if not nulls or not errors:
        return []
    null = float(np.mean([*nulls.values()]))
    explained = {
        arm: 1 - float(np.mean([*by_seed.values()])) / null for arm, by_seed in errors.items()
    }
    shares = ", ".join(f"{arm} {share:.1%}" for arm, share in explained.items())
    nothing = [arm for arm, share in explained.items() if share <= 0]
    warning = f" **{', '.join(nothing)} learned nothing.**" if nothing else ""
    return [
        f"Reduction of the unweighted error of `null` by pretraining: {shares}.{warning} Where it "
        "is small, small differences between arms downstream are to be expected."
    ]


def _task_of(stage: str) -> str:
    return reconstruction_metrics.TASK if stage == PRETRAINING else stage


def _task_title(task: str) -> str:
    return task.replace("_", " ").capitalize()
