"""Result of a comparison: comparison.md, comparison.json and comparison.png in the workdir."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from ml_collections import ConfigDict

from sar_mixmae_jax.experiments import reconstruction_metrics
from sar_mixmae_jax.experiments.comparison_tables import (
    Section,
    make_table,
    to_json,
    to_markdown,
)
from sar_mixmae_jax.experiments.reconstruction_metrics import ERROR, Metrics
from sar_mixmae_jax.experiments.seed_statistics import (
    BySeed,
    Metric,
    Result,
    spread,
    values_by_seed,
)
from sar_mixmae_jax.experiments.trials import (
    TrialResult,
    has_comparable_metrics,
    held_out,
    protocol,
)
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.utils.files import atomic_write, write_json
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png, legend_columns, set_panel_title

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
      config: configuration of the comparison.
      workdir: folder of the files.
      finished: results of all finished trials.
      references: metrics of the baselines.
      title: title of page and figure.
      notes: footnotes about the data.

    Returns:
      Paths of the three files.
    """
    results = [
        Result(trial.arm, trial.seed, trial.stage, metrics)
        for trial, metrics, _ in finished
        if has_comparable_metrics(config, trial.arm, trial.stage)
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
    write_json(numbers, to_json(tables))
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

    Arms without a filter that reconstruct no better than the mean of each mask unit have learned
    nothing, and then there is nothing to compare.
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
    warning = f" **{', '.join(nothing)}: none of it.**" if nothing else ""
    return [
        f"Reduction of the unweighted error of `null` by pretraining: {shares}.{warning} Where it "
        "is small, small differences between arms downstream are to be expected (not where the "
        "target is filtered, whose higher mean in dB this error counts as a loss)."
    ]


def _task_title(task: str) -> str:
    return task.replace("_", " ").capitalize()


RUN_COLOUR = "#0072B2"  # blue of the colour-blind safe palette of Okabe and Ito (2008)
MEAN_COLOUR = "black"
REFERENCE_COLOUR = "0.75"
BASELINE_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (6, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
BASELINE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {
        "color": BASELINE_COLOURS[number % 5],
        "linestyle": BASELINE_DASHES[(number + number // 5) % 5],
        "linewidth": 1.8,
    }
    for number in range(25)
)

MAX_COLUMNS = 4
"""Panels beside each other."""


def draw_comparison(
    metrics: Sequence[Metric],
    results: Sequence[Result],
    baselines: Sequence[Result],
    arms: Sequence[str],
    path: Path,
    *,
    title: str,
    reference: str = "none",
) -> None:
    """Write the figure as a PNG.

    Args:
      metrics: one panel each.
      results: results of all finished runs.
      baselines: baselines of all tasks.
      arms: from top to bottom; those without a value keep their row.
      path: path of the file, which is written atomically.
      title: title of the figure.
      reference: arm whose mean is drawn through all rows.
    """
    columns = min(MAX_COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    height = (0.42 * len(arms) + 1.0) * rows + 1.5
    figure = Figure(figsize=(1.7 + 2.6 * columns, height), layout="constrained", dpi=130)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    names = dict.fromkeys(name for metric in metrics for name in values_by_seed(baselines, metric))
    styles = {
        name: BASELINE_STYLES[number % len(BASELINE_STYLES)] for number, name in enumerate(names)
    }
    seeds = sorted({result.seed for result in results if result.seed is not None})
    for axis, metric in zip(axes, metrics, strict=False):
        values = values_by_seed(results, metric)
        bounds = (0.0, 1.0) if metric.bounded else (-np.inf, np.inf)
        for row, arm in enumerate(arms):
            _draw_arm(axis, row, values.get(arm, {}), seeds, bounds)
        reference_mean = spread(values.get(reference, {}).values()).mean
        if reference_mean is not None:
            axis.axvline(reference_mean, color=REFERENCE_COLOUR, linewidth=1.2, zorder=0)
        baseline_means = {
            name: float(np.mean([*by_seed.values()]))
            for name, by_seed in values_by_seed(baselines, metric).items()
        }
        for name, mean in baseline_means.items():
            axis.axvline(mean, zorder=1, **styles[name])
        runs = [value for arm in arms for value in values.get(arm, {}).values()]
        _set_limits(axis, [*runs, *baseline_means.values()], bounds)
        _label(axis, metric, arms)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    add_title(figure, title)
    _add_legend(figure, styles, reference)
    atomic_write(path, figure_to_png(figure))


def _draw_arm(
    axis: Axes, row: int, values: BySeed, seeds: Sequence[int], bounds: tuple[float, float]
) -> None:
    """Draw the runs above the centre of a row, and below it the mean with its interval."""
    offsets = np.linspace(-0.32, -0.14, len(seeds))
    hollow: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 1.1, "markersize": 4}
    for offset, seed in zip(offsets, seeds, strict=True):
        if seed in values:
            axis.plot(values[seed], row + offset, "o", markeredgecolor=RUN_COLOUR, **hollow)
    mean, _, low, high, n = spread(values.values())
    if mean is not None:
        if low is not None and high is not None:
            interval = np.clip([low, high], *bounds)
            axis.plot(interval, [row + 0.12] * 2, color=MEAN_COLOUR, linewidth=1.8)
        axis.plot(mean, row + 0.12, "D", color=MEAN_COLOUR, markersize=5)
    axis.annotate(
        f"n = {n}" if n else "no value",
        (1, row - 0.23),  # level with the runs, which _set_limits keeps to the left
        (-3, 0),
        ("axes fraction", "data"),
        "offset points",
        fontsize=6.5,
        ha="right",
        va="center",
        color="0.35",
    )


def _set_limits(axis: Axes, values: Sequence[float], bounds: tuple[float, float]) -> None:
    """Show all values, and room for "n = …" at the right; ticks only inside the bounds.

    Intervals are cut where they would make the values illegible: that of two runs is 12.7
    times as wide as their distance.
    """
    if not values:
        axis.set_xticks([])
        return
    width = max(values) - min(values) or 0.1 * abs(values[0]) or 1.0
    low, high = axis.get_xlim()
    low, high = max(low, min(values) - 0.6 * width), min(high, max(values) + 0.6 * width)
    axis.set_xlim(low, high + 0.2 * (high - low))
    axis.locator_params(axis="x", nbins=5)
    low, high = max(low, bounds[0]), min(high, bounds[1])
    axis.set_xticks([tick for tick in axis.get_xticks() if low <= tick <= high])


def _label(axis: Axes, metric: Metric, arms: Sequence[str]) -> None:
    """Label a panel, and draw lines between its rows."""
    direction = {True: "higher is better", False: "lower is better", None: "no direction is better"}
    set_panel_title(axis, metric.title)
    axis.set_xlabel(direction[metric.higher_is_better], fontsize=8)
    axis.set_yticks(range(len(arms)), [" ".join(arm.split()) for arm in arms])
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.set_yticks(np.arange(len(arms) - 1) + 0.5, minor=True)
    axis.grid(axis="y", which="minor", color="0.9", linewidth=0.8)
    axis.tick_params(axis="y", which="minor", length=0)


def _add_legend(figure: Figure, styles: Mapping[str, dict[str, Any]], reference: str) -> None:
    """Draw the legend below the panels."""
    interval = "mean; 95 % interval over seeds, cut at the edge"
    run: dict[str, Any] = {"marker": "o", "linestyle": "", "markerfacecolor": "none"}
    handles = [
        Line2D([], [], color=RUN_COLOUR, label="run", **run),
        Line2D([], [], marker="D", color=MEAN_COLOUR, label=interval),
        Line2D([], [], color=REFERENCE_COLOUR, label=f"mean of {reference}"),
        *(
            Line2D([], [], label=f"{name} (no network; mean)", **style)
            for name, style in styles.items()
        ),
    ]
    figure.legend(
        handles=handles,
        title="The tables compare arms paired by seed; overlapping intervals here do not decide.",
        loc="outside lower center",
        ncols=legend_columns([str(line.get_label()) for line in handles], figure.get_figwidth()),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
