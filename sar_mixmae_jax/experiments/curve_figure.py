"""Figure of learning curves, and the results that it draws."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sar_mixmae_jax.experiments.comparison_report import BASELINE_STYLES
from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics
from sar_mixmae_jax.experiments.seed_statistics import (
    Metric,
    Result,
    Spread,
    spread,
    values_by_seed,
)
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png, legend_columns, set_panel_title

RANDOM = "random"
"""Arm of the encoders before training."""


class CurveResult(NamedTuple):
    """Metrics of an arm after a share of its pretraining.

    Attributes:
      name: name of the measurement, or "pretraining".
      arm: name of the arm.
      share: share of the pretraining, 0 to 1.
      metrics: by seed and name.
    """

    name: str
    arm: str
    share: float
    metrics: Mapping[int, Metrics]


def seed_spread(curve: CurveResult, metric: Metric) -> Spread:
    """Return mean and spread over the seeds of a metric."""
    values = [metrics.get(metric.name) for metrics in curve.metrics.values()]
    return spread(value for value in values if value is not None)


ARM_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black", "0.5")
"""Colour-blind safe palette of Okabe and Ito (2008)."""
BASELINE_GREYS = ("0.45", "0.6", "0.25", "0.75", "0.1")


def draw_curves(
    metrics: Sequence[Metric],
    curves: Sequence[CurveResult],
    baselines: Sequence[Result],
    total: int,
    path: Path,
) -> None:
    """Write the learning curves of a task as a PNG.

    Args:
      metrics: one panel each.
      curves: curves of all finished points.
      baselines: baselines of all measurements.
      total: images that a whole pretraining sees.
      path: path of the file, which is written atomically.
    """
    shown = [curve for curve in curves if curve.name in {metric.task for metric in metrics}]
    arms = list(dict.fromkeys(curve.arm for curve in shown if 0 < curve.share < 1))
    arms = arms or list(dict.fromkeys(curve.arm for curve in shown if curve.share > 0))
    names = list(
        dict.fromkeys(name for metric in metrics for name in values_by_seed(baselines, metric))
    )
    width = max(7.0, 1.2 + 3.4 * len(metrics))
    figure = Figure(figsize=(width, 4.8), layout="constrained", dpi=130)
    axes = figure.subplots(1, len(metrics), squeeze=False).ravel()
    for axis, metric in zip(axes, metrics, strict=True):
        for number, arm in enumerate(arms):
            _draw_arm(axis, metric, shown, arm, number, len(arms))
        for name, by_seed in values_by_seed(baselines, metric).items():
            number = names.index(name)
            grey = {"color": BASELINE_GREYS[number % len(BASELINE_GREYS)]}
            style = BASELINE_STYLES[number % len(BASELINE_STYLES)] | grey
            label = f"{name} (no network)"
            axis.axhline(np.mean([*by_seed.values()]), label=label, zorder=0, **style)
        _set_limits(axis, metric, shown, baselines)
        _label(axis, metric, sorted({curve.share for curve in shown}), total)
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        title="Circles: seeds. Bands: 95 % interval of the mean over seeds, cut at the edge.",
        loc="outside lower center",
        ncols=legend_columns([*handles], width),
        frameon=False,
        fontsize=8,
        title_fontsize=8,
    )
    add_title(figure, "Score on the test split by images seen in pretraining")
    atomic_write(path, figure_to_png(figure))


def _draw_arm(
    axis: Axes,
    metric: Metric,
    curves: Sequence[CurveResult],
    arm: str,
    number: int,
    arms: int,
) -> None:
    """Draw mean, interval and seeds of an arm; points of arms stand beside each other."""
    of_arm = sorted(
        (curve.share, curve)
        for curve in curves
        if curve.name == metric.task and curve.arm in (arm, RANDOM)
    )
    if not of_arm:
        return
    places = _places([share for share, _ in of_arm])
    spreads = [seed_spread(curve, metric) for _, curve in of_arm]
    means = [np.nan if values.mean is None else values.mean for values in spreads]
    low = [m if v.low is None else v.low for v, m in zip(spreads, means, strict=True)]
    high = [m if v.high is None else v.high for v, m in zip(spreads, means, strict=True)]
    colour = ARM_COLOURS[number % len(ARM_COLOURS)]
    axis.plot(places, means, "-", color=colour, label=f"pretrained ({arm})", linewidth=1.6)
    axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    offset = 0.12 * (number - (arms - 1) / 2) / max(arms - 1, 1)
    for place, (share, curve) in zip(places, of_arm, strict=True):
        values = [metrics.get(metric.name) for metrics in curve.metrics.values()]
        defined = [value for value in values if value is not None]
        shift = 0.0 if share == 0 else offset
        axis.plot(
            [place + shift] * len(defined),
            defined,
            "o",
            markersize=3.5,
            markerfacecolor="none",
            markeredgecolor=colour if share else "0.3",
        )


def _places(shares: Sequence[float]) -> list[float]:
    """Return positions on a logarithmic axis, with 0 a step to the left of the smallest share."""
    logs = [np.log2(share) for share in shares if share > 0]
    steps = [after - before for before, after in pairwise(logs)]
    zero = (logs[0] if logs else 0.0) - (max(steps) if steps else 1.0)
    return [zero if share == 0 else float(np.log2(share)) for share in shares]


def _set_limits(
    axis: Axes, metric: Metric, curves: Sequence[CurveResult], baselines: Sequence[Result]
) -> None:
    """Show all seeds and baselines; bands of few seeds would make them illegible."""
    values = [
        value
        for curve in curves
        if curve.name == metric.task
        for metrics in curve.metrics.values()
        if (value := metrics.get(metric.name)) is not None
    ]
    for by_seed in values_by_seed(baselines, metric).values():
        values.append(float(np.mean([*by_seed.values()])))
    if values:
        margin = 0.15 * (max(values) - min(values)) or 0.05
        axis.set_ylim(min(values) - margin, max(values) + margin)


def _label(axis: Axes, metric: Metric, shares: Sequence[float], total: int) -> None:
    set_panel_title(axis, metric.title)
    axis.set_xticks(
        _places(shares), [f"{share * total:,.0f}" for share in shares], fontsize=8, rotation=30
    )
    axis.set_xlabel("images seen in pretraining (logarithmic; 0: random encoder)", fontsize=7.5)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
