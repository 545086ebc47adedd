"""Tables and pictures of a report on a segmentation."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.evaluation.confusion import OVERLAPS
from sar_mixmae_jax.evaluation.metrics import THRESHOLD, Metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES
from sar_mixmae_jax.tasks.segmentation_metrics import PARTS
from sar_mixmae_jax.tasks.task_report import Figures, Pictures
from sar_mixmae_jax.utils.plotting import (
    NO_CLASS,
    NODATA_COLOUR,
    add_title,
    block_average,
    class_colours,
    figure_to_png,
)
from sar_mixmae_jax.utils.tables import (
    Lines,
    MetricsRow,
    escape_markdown,
    format_metric,
    metrics_table,
)

RATE_TITLES = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "mean_iou": "mean IoU",
    "accuracy": "accuracy",
}
CAPTIONS = {
    "scores.png": "Confusion of all labelled pixels; with two classes, precision and recall at "
    "every threshold.",
    "chips.png": "The best, median and worst records by IoU, of those where it is defined: "
    "bands, truth, prediction, errors.",
}
EXAMPLES = 2
"""Records of each kind in the picture."""
PANEL_PIXELS = 256
PERCENTILES = (1, 99)
DPI = 110

MISSED_COLOUR, FALSE_COLOUR, WRONG_COLOUR = "#d7191c", "#7b3294", "#d7191c"
CORRECT_COLOUR = "0.9"
UNLABELLED_COLOUR = "white"
GREY = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)


@dataclasses.dataclass(frozen=True, eq=False)
class ChipPicture:
    """Record with its maps.

    Attributes:
      backscatter: (row, column, band) dB, NaN = nodata.
      truth: (row, column) int8, -1 where not labelled.
      predicted: (row, column) uint8, `NO_CLASS` where nothing was measured.
      bands: names of the bands.
    """

    backscatter: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    bands: tuple[str, ...] = BANDS


# ---- tables


def report_header(metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Return the pooled rates beside the baselines, and what was not measured."""
    names = list(metrics["by_class"])
    positive = names[1] if len(names) == 2 else "the mean of the classes"
    unmeasured = any(values["unmeasured"] for values in metrics["by_class"].values())
    measured = _compare("measured", "baselines_measured", metrics, intervals)
    lost = [
        f"{values['unmeasured']:,} of {values['pixels']:,} pixels labelled {escape_markdown(name)}"
        for name, values in metrics["by_class"].items()
        if values["unmeasured"]
    ]
    counted = " They are left out."
    if len(names) == 2:
        counted = (
            f" They count as predicted {escape_markdown(names[0])}, for the model and for the "
            "baselines."
        )
    average = metrics["pooled"]["average_precision"]
    constant: Lines = []
    if len(names) == 2 and metrics["pooled"]["precision"] is None:
        constant = [
            f"**No pixel is predicted as {escape_markdown(positive)} at threshold {THRESHOLD}.** "
            "IoU and F1 carry no information here; see the average precision.",
            "",
        ]
    return [
        f"**IoU {format_metric(metrics['pooled']['iou'])}** ({escape_markdown(positive)}, pooled "
        "over all labelled pixels)",
        "",
        *constant,
        *_compare("pooled", "baselines", metrics, intervals),
        "",
        f"Without a measurement: {'; '.join(lost)}.{counted}"
        if lost
        else "All labelled pixels were measured.",
        *([f"Average precision: {format_metric(average)}."] if average is not None else []),
        f"{metrics['records']:,} records, of which {metrics['unlabelled']:,} have no labelled "
        "pixel.",
        *(["", "Measured pixels only:", "", *measured] if unmeasured else []),
    ]


def _compare(model: str, baselines: str, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Return a table of the model and the baselines, by their names in the metrics."""
    rows = [("model", metrics[model], intervals[model])]
    for name, rates in metrics[baselines].items():
        rows.append((BASELINES[name], rates, intervals[baselines][name]))
    return metrics_table("", rows, RATE_TITLES, {})


def tables(metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Return rates by class and by part of the records."""
    overlaps = {name: RATE_TITLES[name] for name in OVERLAPS}
    classes: list[MetricsRow] = [(name, rates, {}) for name, rates in metrics["by_class"].items()]
    counts = {"records": "records", "pixels": "labelled pixels", "unmeasured": "unmeasured"}
    absent = [name for name, values, _ in classes if not values["pixels"]]
    lines = ["## Classes", "", *metrics_table("class", classes, overlaps, counts)]
    if absent:
        lines += ["", f"Without a labelled pixel: {escape_markdown(', '.join(absent))}."]
    for part, title in PARTS.items():
        by_part, ranges = metrics[f"by_{part}"], intervals.get(f"by_{part}", {})
        if by_part:
            rows = [(name, values, ranges[name]) for name, values in by_part.items()]
            table = metrics_table(title, rows, RATE_TITLES, {"records": "records"})
            lines += ["", f"## By {title}", "", *table]
    return lines


# ---- pictures


def figures(
    predictions: Predictions, metrics: Metrics, title: str, pictures: Pictures | None
) -> Figures:
    """Return the figures of a report."""
    drawn: Figures = {"scores.png": lambda: draw_scores(predictions, metrics, title)}
    chosen = choose_records(metrics)
    if pictures is not None and chosen:
        rows = {str(name): row for row, name in enumerate(predictions.ids)}
        content = {
            f"{kind}: {name}, IoU {metrics['by_record'][name]['iou']:.3f}": pictures(rows[name])
            for kind, name in chosen
        }
        drawn["chips.png"] = lambda: draw_chips(content, predictions.classes, title)
    return drawn


def choose_records(metrics: Metrics, count: int = EXAMPLES) -> list[tuple[str, str]]:
    """Return (kind, id) of the best, median and worst records by IoU, each once, as many each."""
    rates = {name: values["iou"] for name, values in metrics["by_record"].items()}
    order = sorted(
        (name for name, rate in rates.items() if rate is not None),
        key=lambda name: -(rates[name] or 0.0),
    )
    count = min(count, max(len(order) // 3, 1))
    middle = max((len(order) - count) // 2, 0)
    kinds = {
        "best": order[:count],
        "worst": order[max(len(order) - count, count) :],
        "median": order[middle : middle + count],
    }
    chosen: dict[str, str] = {}
    for kind, names in kinds.items():
        for name in names:
            chosen.setdefault(name, kind)
    return [
        (kind, name) for kind in ("best", "median", "worst") for name in order
        if chosen.get(name) == kind
    ]  # fmt: skip


def draw_scores(predictions: Predictions, metrics: Metrics, title: str) -> bytes:
    """Draw the confusion matrix, and with two classes precision and recall.

    Returns:
      Bytes of a PNG.
    """
    matrix, names = np.array(metrics["pooled"]["confusion"], float), predictions.classes
    curve = predictions.arrays.get("curve")
    side = max(4.0, 0.55 * len(names) + 2)
    panels = 1 if curve is None else 2
    figure = Figure(figsize=(max(side * panels, 8.0), side + 0.6), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    total = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)
    axes[0].imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        shade = "white" if value > 0.6 else "black"
        text = f"{value:.1%}" if total[row, 0] else "none"
        axes[0].text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    turned = {} if len(names) == 2 else {"rotation": 90}
    axes[0].set_xticks(range(len(names)), names, parse_math=False, **turned)
    axes[0].set_yticks(range(len(names)), names, parse_math=False)
    axes[0].set_xlabel("prediction")
    axes[0].set_ylabel("truth (share of its pixels)")
    if curve is not None:
        _draw_curve(axes[1], curve.astype(np.int64).sum(0), metrics["pooled"], names[1])
    add_title(figure, title)
    return figure_to_png(figure)


def _draw_curve(axis: Axes, curve: np.ndarray, rates: Mapping[str, Any], name: str) -> None:
    """Draw precision and recall by threshold; `curve` is (2, bins) as in the predictions."""
    negatives, positives = np.cumsum(curve[:, ::-1], axis=1)
    called = positives + negatives > 0
    if positives[-1]:
        recall = positives[called] / positives[-1]
        precision = positives[called] / (positives + negatives)[called]
        axis.plot(recall, precision, color="tab:blue", linewidth=1.3)
    if rates["precision"] is not None and rates["recall"] is not None:
        axis.plot(rates["recall"], rates["precision"], "o", color="tab:orange", markersize=5)
    axis.set_title(f"{name}: AP {format_metric(rates['average_precision'])}", parse_math=False)
    axis.set_xlabel("recall (point: threshold 0.5)")
    axis.set_ylabel("precision")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.04)
    axis.grid(alpha=0.3)


def draw_chips(content: Mapping[str, ChipPicture], names: Sequence[str], title: str) -> bytes:
    """Draw records as rows: bands from the last to the first, truth, prediction, errors.

    Args:
      content: pictures by the title of their row, at least one.
      names: names of the classes.
      title: title of the figure.

    Returns:
      Bytes of a PNG.
    """
    bands = next(iter(content.values())).bands
    order = range(len(bands))[::-1]  # VV, VH
    norms = [_norm([chip.backscatter[..., band] for chip in content.values()]) for band in order]
    columns = [*(bands[band] for band in order), "truth", "prediction", "errors"]
    size = (2.6 * len(columns), 2.75 * len(content) + 1.2)
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    rows = figure.subplots(len(content), len(columns), squeeze=False)
    for axes, (head, chip) in zip(rows, content.items(), strict=True):
        for axis in axes:
            axis.set_xticks(())
            axis.set_yticks(())
        for axis, band, norm in zip(axes, order, norms, strict=False):
            db = chip.backscatter[..., band]
            axis.imshow(_reduced(db), cmap=GREY, norm=norm, interpolation="nearest")
        for axis, image in zip(axes[len(bands) :], _maps(chip, len(names)), strict=True):
            step = _step(image.shape)
            axis.imshow(image[::step, ::step], interpolation="nearest")
        axes[0].set_title(head, loc="left", fontsize=9, parse_math=False)
    for axis, name in zip(rows[-1], columns, strict=True):
        axis.set_xlabel(name)
    for column, norm in enumerate(norms):
        bar = ScalarMappable(norm, GREY)
        figure.colorbar(
            bar,
            ax=rows[:, column].tolist(),
            location="bottom",
            shrink=0.8,
            label="dB",
            pad=0.01,
            extend="both",  # scales end at percentiles
        )
    errors = (
        {f"{names[1]} missed": MISSED_COLOUR, f"{names[1]} false": FALSE_COLOUR}
        if len(names) == 2
        else {"another class": WRONG_COLOUR}
    )
    shown = dict(zip(names, map(tuple, class_colours(len(names))), strict=True))
    legend = shown | {"correct": CORRECT_COLOUR} | errors
    legend |= {"not labelled": UNLABELLED_COLOUR, "no measurement": NODATA_COLOUR}
    handles = [
        Patch(facecolor=colour, edgecolor="0.5", label=label.replace("$", r"\$"))
        for label, colour in legend.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=8)
    add_title(figure, title)
    return figure_to_png(figure)


def _maps(chip: ChipPicture, classes: int) -> tuple[np.ndarray, ...]:
    """Return the colours of truth, prediction and errors, (row, column, 4) each."""
    colours = ListedColormap(
        [UNLABELLED_COLOUR, NODATA_COLOUR, CORRECT_COLOUR, MISSED_COLOUR, FALSE_COLOUR]
    )(np.arange(5))
    palette = class_colours(classes)
    chip = without_padding(chip)
    labelled, measured = chip.truth >= 0, chip.predicted != NO_CLASS
    truth = np.where(labelled[..., None], palette[np.maximum(chip.truth, 0)], colours[0])
    safe = np.where(measured, chip.predicted, 0)
    predicted = np.where(measured[..., None], palette[safe], colours[1])
    kind = np.where(labelled, 2, 0)
    kind[labelled & measured & (safe != chip.truth)] = 3
    if classes == 2:
        kind[labelled & measured & (safe > chip.truth)] = 4
    kind[labelled & ~measured] = 1
    return truth, predicted, colours[kind]


def without_padding(chip: ChipPicture) -> ChipPicture:
    """Return a record whose maps have the size of its image, if all around it is padding."""
    height, width = chip.backscatter.shape[:2]
    top, left = (chip.truth.shape[0] - height) // 2, (chip.truth.shape[1] - width) // 2
    if min(top, left) < 0 or (top, left) == (0, 0):
        return chip
    outside = np.ones(chip.truth.shape, bool)
    inside = np.s_[top : top + height, left : left + width]
    outside[inside] = False
    if (chip.predicted[outside] != NO_CLASS).any():
        return chip
    return dataclasses.replace(chip, truth=chip.truth[inside], predicted=chip.predicted[inside])


def _step(shape: tuple[int, ...]) -> int:
    """Return the number of pixels of a map that become one of a panel."""
    return max(1, -(-max(shape[:2]) // PANEL_PIXELS))


def _reduced(db: np.ndarray) -> np.ndarray:
    return block_average(db, _step(db.shape))


def _norm(bands: Sequence[np.ndarray]) -> Normalize:
    """Return a scale from percentiles over all records, the same for all."""
    values = np.concatenate([_reduced(db).ravel() for db in bands])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, PERCENTILES) if values.size else (-30.0, 0.0)
    return Normalize(float(low), float(max(high, low + 1.0)))
