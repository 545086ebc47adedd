"""The table and the figure of what is finished: comparison.md, .json and .png in the workdir."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from ml_collections import ConfigDict

from sar_mixmae_jax.experiments import reconstruction
from sar_mixmae_jax.experiments.stages import Metrics, held_out, protocol
from sar_mixmae_jax.experiments.statistics import BySeed, Metric, Result, by_seed, spread
from sar_mixmae_jax.experiments.tables import Section, as_json, markdown, tabulate
from sar_mixmae_jax.experiments.trials import PRETRAINING, Measured
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png


def write_comparison(
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
    sections += reconstruction.sections(
        protocol(patches), norm_pix_loss=config.pretrain.norm_pix_loss, truth=simulated
    )
    tables = [tabulate(one, results, baselines, arms, config.reference) for one in sections]
    paths = [workdir / f"comparison.{kind}" for kind in ("md", "json", "png")]
    atomic_write(
        paths[0], markdown(title, tables, [*notes, *learned_something(results, baselines)]).encode()
    )
    atomic_write(paths[1], (json.dumps(as_json(tables), indent=1, allow_nan=False) + "\n").encode())
    error = Metric(reconstruction.TASK, "error", "unweighted error", ".4f", higher_is_better=False)
    draw_comparison(
        [*(metric for task in config.finetune for metric in compared(config, task)), error],
        results,
        baselines,
        arms,
        paths[2],
        title=title,
        reference=config.reference,
    )
    return paths


def learned_something(results: Sequence[Result], baselines: Sequence[Result]) -> list[str]:
    """How much better every pretraining is than the mean of each cell: else nothing is compared."""
    error = Metric(reconstruction.TASK, "error", "", higher_is_better=False)
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
    return reconstruction.TASK if stage == PRETRAINING else stage


def _named(task: str) -> str:
    return task.replace("_", " ").capitalize()


def compared(config: ConfigDict, task: str) -> list[Metric]:
    """The metrics of a task by which arms are compared."""
    name = _named(task)
    return [
        Metric(task, score, f"{name}: {title}", bounded=True)
        for score, title in get_task(config.finetune[task].task).score_titles.items()
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


POINT = "#0072B2"  # blue, of Okabe and Ito's palette, which the colour-blind can tell apart
MEAN_STYLE = "black"
LINES = (
    ("#D55E00", "--"),
    ("#009E73", ":"),
    ("#CC79A7", "-."),
    ("#E69F00", (0, (6, 1, 1, 1))),
    ("#56B4E9", (0, (3, 1, 1, 1, 1, 1))),
)
"""Colour and dashes of the baselines."""

PANELS = 4
"""Panels in a row of the picture."""


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
    """Writes a PNG.

    Args:
      metrics: one panel each.
      results: of all runs that are done.
      baselines: of all tasks.
      arms: from top to bottom; those without a result keep their row.
      path: where to write; the file appears whole or not at all.
      title: of the figure.
      reference: the arm whose mean is drawn through all rows.
    """
    columns = min(PANELS, len(metrics))
    rows = -(-len(metrics) // columns)
    height = (0.42 * len(arms) + 1.0) * rows + 1.5
    figure = Figure(figsize=(1.7 + 2.6 * columns, height), layout="constrained", dpi=130)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    names = dict.fromkeys(name for metric in metrics for name in by_seed(baselines, metric))
    styles = {name: LINES[number % len(LINES)] for number, name in enumerate(names)}
    seeds = sorted({result.seed for result in results if result.seed is not None})
    for axis, metric in zip(axes, metrics, strict=False):
        values = by_seed(results, metric)
        limits = (0.0, 1.0) if metric.bounded else (-np.inf, np.inf)
        for row, arm in enumerate(arms):
            _arm(axis, row, values.get(arm, {}), seeds, limits)
        centre = spread(values.get(reference, {}).values()).mean
        if centre is not None:
            axis.axvline(centre, color="0.75", linewidth=1.2, zorder=0)
        theirs = by_seed(baselines, metric).items()
        fixed = {name: float(np.mean([*by.values()])) for name, by in theirs}
        for name, value in fixed.items():
            colour, dashes = styles[name]
            axis.axvline(value, color=colour, linestyle=dashes, linewidth=1.8, zorder=1)
        runs = [value for arm in arms for value in values.get(arm, {}).values()]
        _limit(axis, [*runs, *fixed.values()], limits)
        _dress(axis, metric, arms)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    add_title(figure, title)
    _explain(figure, styles, reference)
    atomic_write(path, figure_to_png(figure))


def _arm(
    axis: Axes, row: int, values: BySeed, seeds: Sequence[int], limits: tuple[float, float]
) -> None:
    """Points above the line of the row, the mean with its interval on it, as far as it can be."""
    places = np.linspace(-0.32, -0.14, len(seeds))
    for place, seed in zip(places, seeds, strict=True):
        if seed in values:
            axis.plot(
                values[seed],
                row + place,
                "o",
                markersize=4,
                markerfacecolor="none",
                markeredgecolor=POINT,
                markeredgewidth=1.1,
            )
    mean, _, low, high, n = spread(values.values())
    if mean is not None:
        if low is not None and high is not None:
            axis.plot(
                np.clip([low, high], *limits), [row + 0.12] * 2, color=MEAN_STYLE, linewidth=1.8
            )
        axis.plot(mean, row + 0.12, "D", color=MEAN_STYLE, markersize=5)
    text = f"n = {n}" if n else "no run"
    axis.annotate(
        text,
        (1, row),
        (-3, 0),
        ("axes fraction", "data"),
        "offset points",
        fontsize=6.5,
        ha="right",
        va="center",
        color="0.35",
    )


def _limit(axis: Axes, values: Sequence[float], limits: tuple[float, float]) -> None:
    """Shows all values; of intervals as much as leaves them legible; and room for n at the right.

    Ticks are where values can be.

    The interval of two runs is nine times as wide as they are apart.
    """
    if not values:
        axis.set_xticks([])
        return
    width = max(values) - min(values) or 0.1 * abs(values[0]) or 1.0
    low, high = axis.get_xlim()
    low, high = max(low, min(values) - 0.6 * width), min(high, max(values) + 0.6 * width)
    axis.set_xlim(low, high + 0.2 * (high - low))
    axis.locator_params(axis="x", nbins=5)
    low, high = max(low, limits[0]), min(high, limits[1])
    axis.set_xticks([one for one in axis.get_xticks() if low <= one <= high])


def _dress(axis: Axes, metric: Metric, arms: Sequence[str]) -> None:
    """Labels, and lines between the rows."""
    better = {True: "higher is better", False: "lower is better", None: "neither is better"}
    axis.set_title(metric.title, fontsize=9.5)
    axis.set_xlabel(better[metric.higher_is_better], fontsize=8)
    axis.set_yticks(range(len(arms)), [" ".join(arm.split()) for arm in arms])
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.set_yticks(np.arange(len(arms) - 1) + 0.5, minor=True)
    axis.grid(axis="y", which="minor", color="0.9", linewidth=0.8)
    axis.tick_params(axis="y", which="minor", length=0)


def _explain(figure: Figure, styles: dict, reference: str) -> None:
    """The legend below the panels."""
    handles = [
        Line2D(
            [], [], marker="o", linestyle="", markerfacecolor="none", color=POINT, label="a run"
        ),
        Line2D(
            [],
            [],
            marker="D",
            color=MEAN_STYLE,
            label="mean; 95 % interval over seeds, cut at the edge",
        ),
        Line2D([], [], color="0.75", label=f"mean of {reference}"),
        *(
            Line2D(
                [],
                [],
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                label=f"{name} (no network; mean)",
            )
            for name, (colour, dashes) in styles.items()
        ),
    ]
    caption = (
        "Arms are compared seed by seed, in the table: overlapping intervals do not settle it."
    )
    figure.legend(
        handles=handles,
        title=caption,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
