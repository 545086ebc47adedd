"""Example pairs of a report on floods: the most certain predictions, right and wrong."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.utils.errors import InputError, escape_unprintable
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, block_average, figure_to_png

OUTCOMES = {
    "floods_found": "floods found",
    "dry_and_said_so": "dry and predicted dry",
    "floods_missed": "floods missed",
    "false_alarms": "false alarms",
}
"""Titles of the outcomes of a prediction; the keys are parts of file names."""

EXAMPLES = 3
"""Maximum number of pairs of each outcome."""


@dataclasses.dataclass(frozen=True, eq=False)
class PairPicture:
    """Two dates of one place.

    Attributes:
      before: (row, column, band) dB, NaN = nodata.
      after: of the same shape, the same place later.
      water: (row, column) int, 0 dry, 1 where water is new after, 2 where it is on both dates;
        None if unknown.
      evidence: (rows, columns) of tiles, logit of flood minus logit of dry, NaN where nothing of a
        tile was measured; None if unknown.
      bands: names of the bands.
    """

    before: np.ndarray
    after: np.ndarray
    water: np.ndarray | None = None
    evidence: np.ndarray | None = None
    bands: tuple[str, ...] = BANDS


def check_pair_pictures(picture: PairPicture, pair: str) -> None:
    """Check that a picture can be drawn.

    Args:
      picture: of the pair.
      pair: id of the pair, for the message.

    Raises:
      InputError: shapes do not fit, water is of no known class, or evidence is infinite.
    """
    shape, bands = picture.before.shape, len(picture.bands)
    if shape[2:] != (bands,) or not shape[0] * shape[1] or picture.after.shape != shape:
        raise InputError(
            f"the picture of {pair} has shapes {shape} and {picture.after.shape}: expected "
            f"(row, column, {bands}) for both dates"
        )
    if picture.water is not None and picture.water.shape != shape[:2]:
        raise InputError(
            f"the picture of {pair} has water of shape {picture.water.shape}, expected {shape[:2]}"
        )
    if picture.water is not None and not np.isin(picture.water, (0, 1, 2)).all():
        raise InputError(
            f"the picture of {pair} has water with other values than 0 (dry), 1 (new), 2 (both)"
        )
    evidence = picture.evidence
    if evidence is not None and (evidence.ndim != 2 or np.isinf(evidence).any()):
        raise InputError(
            f"the picture of {pair} has evidence of shape {evidence.shape}: expected finite values "
            "or NaN (rows, columns)"
        )


def choose_examples(predictions: Predictions, count: int = EXAMPLES) -> dict[str, list[int]]:
    """Return row numbers by outcome, the most certain prediction first.

    Only one pair of a sequence is chosen: the others are nearly the same picture.

    Args:
      predictions: of floods.
      count: maximum number of pairs of each outcome.
    """
    probability = predictions.probabilities
    predicted, true = probability > THRESHOLD, predictions.labels == 1
    has_outcome = (predicted & true, ~predicted & ~true, ~predicted & true, predicted & ~true)
    order = np.argsort(-np.abs(probability - THRESHOLD), kind="stable")
    sequence = predictions.columns["sequence"]
    chosen = {}
    for outcome, has in zip(OUTCOMES, has_outcome, strict=True):
        rows = order[has[order]]
        _, first = np.unique(sequence[rows], return_index=True)
        chosen[outcome] = [int(row) for row in rows[np.sort(first)[:count]]]
    return chosen


MAX_PANEL_PIXELS = 256
"""Side of a panel in pixels; larger pictures are averaged in power, which reduces speckle."""

PERCENTILES = (1, 99)
DRY_COLOUR, WATER_COLOUR, FLOOD_COLOUR = "0.9", "#9ecae1", "#08519c"
WATER_COLOURS = ListedColormap([DRY_COLOUR, FLOOD_COLOUR, WATER_COLOUR]).with_extremes(
    bad=NODATA_COLOUR
)
"""Colours of the values of `PairPicture.water`."""

MIN_EVIDENCE_SCALE = 0.5
"""Logits: minimum end of the scale of evidence, so that weak evidence looks weak."""

GREY = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
EVIDENCE_COLOURS = colormaps["PRGn_r"]
"""Purple: flood, green: dry; without the orange of nodata."""


UNMEASURED: dict[str, Any] = {
    "facecolor": NODATA_COLOUR,
    "edgecolor": "0.4",
    "hatch": "///",
    "linewidth": 0,
}
"""Style of a tile without a measurement."""


class Scales(NamedTuple):
    """Colour scales shared by all figures of a report, so that they can be compared.

    Attributes:
      bands: of each band, dB; the same for both dates.
      evidence: symmetric about 0, to at least `MIN_EVIDENCE_SCALE`.
    """

    bands: tuple[Normalize, ...]
    evidence: Normalize


def scales(pictures: Iterable[PairPicture]) -> Scales:
    """Return scales from percentiles over all dates of all pictures, and the largest evidence."""
    pictures = list(pictures)
    norms = []
    for band in range(len(pictures[0].bands) if pictures else 0):
        dates = [date for picture in pictures for date in (picture.before, picture.after)]
        values = np.concatenate([reduce_to_panel(date[..., band]).ravel() for date in dates])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, PERCENTILES) if values.size else (-30.0, 0.0)
        norms.append(Normalize(float(low), float(max(high, low + 1.0))))
    evidence = [np.nan_to_num(p.evidence) for p in pictures if p.evidence is not None]
    end = _round_up(max((float(np.abs(tiles).max()) for tiles in evidence), default=0.0))
    return Scales(tuple(norms), Normalize(-end, end))


def _round_up(value: float) -> float:
    """Round up to two significant digits, so that the labelled ends of a scale are exact."""
    value = max(value, MIN_EVIDENCE_SCALE)
    return float(Decimal(value).normalize(Context(prec=2, rounding=ROUND_CEILING)))


def format_evidence(value: float) -> str:
    """Format evidence with its sign and its first digits."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001:
        return f"{value:+.0e}"
    return f"{value:+.1g}" if size < 0.01 else f"{value:+.2g}" if size < 10 else f"{value:+.0f}"


def _block_size(size: int) -> int:
    """Return the number of pixels of an image that become one pixel of a panel."""
    return max(1, -(-size // MAX_PANEL_PIXELS))


def reduce_to_panel(db: np.ndarray) -> np.ndarray:
    """Average backscatter (row, column) in power to at most `MAX_PANEL_PIXELS` a side."""
    return block_average(db, _block_size(max(db.shape)))


def draw_backscatter(axis: Axes, db: np.ndarray, norm: Normalize) -> None:
    """Draw one band (row, column) of one date."""
    axis.imshow(reduce_to_panel(db), cmap=GREY, norm=norm, interpolation="nearest")


def draw_water(axis: Axes, picture: PairPicture) -> None:
    """Draw new water and water of both dates; nodata of the date after is nodata here."""
    if picture.water is None:
        _draw_unknown(axis)
        return
    step = _block_size(max(picture.water.shape))
    water = picture.water[::step, ::step].astype(float)
    water[~np.isfinite(picture.after[::step, ::step]).any(-1)] = np.nan
    axis.imshow(water, cmap=WATER_COLOURS, vmin=0, vmax=2, interpolation="nearest")


def draw_evidence(axis: Axes, picture: PairPicture, norm: Normalize) -> None:
    """Draw the evidence of each tile as a map, with numbers where there is room.

    Tiles without a measurement are hatched.
    """
    if picture.evidence is None:
        _draw_unknown(axis)
        return
    height, width = picture.before.shape[:2]
    axis.imshow(
        picture.evidence,
        cmap=EVIDENCE_COLOURS,
        norm=norm,
        interpolation="nearest",
        extent=(0, width, height, 0),
    )
    rows, columns = picture.evidence.shape
    for row, column in np.argwhere(np.isnan(picture.evidence)):
        corner = column * width / columns, row * height / rows
        axis.add_patch(Rectangle(corner, width / columns, height / rows, **UNMEASURED))
    if max(rows, columns) > 6:
        return
    for (row, column), value in np.ndenumerate(picture.evidence):
        if np.isnan(value):
            continue
        x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
        shade = "white" if abs(value) > 0.65 * (norm.vmax or 1.0) else "black"
        axis.text(
            x, y, format_evidence(float(value)), ha="center", va="center", fontsize=7, color=shade
        )


def _draw_unknown(axis: Axes) -> None:
    axis.text(0.5, 0.5, "unknown", ha="center", va="center", transform=axis.transAxes, color="0.4")


DPI = 100
PANEL, GAP, APART, MARGIN = 232, 6, 22, 16
"""Pixels: side of a panel, between dates, between bands, at the sides."""

MIN_WIDTH = 760
"""Pixels: least width of a figure, for its captions."""

HEAD, CAPTION, FOOT = 40, 90, 104
"""Pixels: above the first pair, above each pair's panels, below the last."""

MAX_CAPTION = 110
"""Characters of the id of an image that a caption shows."""

START_TIME = re.compile(r"_(\d{4})(\d{2})(\d{2})T\d{6}_")
"""Start of an acquisition in the name of a Sentinel-1 product."""

Box = tuple[float, float, float, float]


def draw_pairs(
    predictions: Predictions,
    rows: Sequence[int],
    pictures: Sequence[PairPicture],
    scale: Scales,
    title: str,
) -> bytes:
    """Draw pairs below each other.

    Args:
      predictions: of floods.
      rows: numbers of the pairs, at least one.
      pictures: of these pairs.
      scale: of `scales`.
      title: of the figure.

    Returns:
      Bytes of a PNG.
    """
    names = [f"{band} {when}" for band in pictures[0].bands for when in ("before", "after")]
    names += ["water (truth)"] if any(p.water is not None for p in pictures) else []
    names += ["evidence of tiles"] if any(p.evidence is not None for p in pictures) else []
    lefts = np.cumsum(
        [MARGIN, *(PANEL + (GAP if n % 2 == 0 else APART) for n in range(len(names)))]
    )
    shape = np.array([picture.before.shape[:2] for picture in pictures])
    high = int(np.clip(PANEL * (shape[:, 0] / shape[:, 1]).max(), 0.4 * PANEL, 1.6 * PANEL))
    width = max(MIN_WIDTH, int(lefts[len(names) - 1]) + PANEL + MARGIN)
    step = CAPTION + high
    height = HEAD + len(rows) * step + FOOT
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def box(left: float, top: float, wide: float, tall: float) -> Box:
        """Convert pixels from the top left corner to fractions of the figure."""
        return left / width, 1 - (top + tall) / height, wide / width, tall / height

    figure.text(
        MARGIN / width, 1 - 14 / height, title, va="top", fontsize=13, weight="bold",
        parse_math=False,
    )  # fmt: skip
    for number, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
        top = HEAD + number * step
        figure.text(
            MARGIN / width, 1 - (top + 14) / height, caption(predictions, row), va="top",
            fontsize=9, linespacing=1.25, parse_math=False,
        )  # fmt: skip
        for left, name, draw in zip(lefts, names, _panels(picture, scale, names), strict=False):
            axis = figure.add_axes(box(left, top + CAPTION, PANEL, high))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(name, fontsize=9, pad=3)
            draw(axis)
    bands, block = pictures[0].bands, _block_size(shape.max())
    corners = [float(left) for left in lefts]
    _legend(figure, box, corners, names, bands, scale, height - FOOT + 18, block)
    return figure_to_png(figure)


def _panels(
    picture: PairPicture, scale: Scales, names: Sequence[str]
) -> list[Callable[[Axes], None]]:
    """Return the functions that draw the panels."""
    draw: list[Callable[[Axes], None]] = [
        partial(draw_backscatter, db=date[..., band], norm=scale.bands[band])
        for band in range(len(picture.bands))
        for date in (picture.before, picture.after)
    ]
    if any("truth" in name for name in names):
        draw.append(partial(draw_water, picture=picture))
    if any("evidence" in name for name in names):
        draw.append(partial(draw_evidence, picture=picture, norm=scale.evidence))
    return draw


def _legend(
    figure: Figure,
    box: Callable[[float, float, float, float], Box],
    lefts: Sequence[float],
    names: Sequence[str],
    bands: Sequence[str],
    scale: Scales,
    top: float,
    block: int,
) -> None:
    """Draw colour bars below both dates of each band and below the evidence, and a legend."""
    unit = f"dB, means of {block}x{block} px" if block > 1 else "dB"
    bars = [
        (lefts[2 * band], 2 * PANEL + GAP, norm, GREY, f"{name}, both dates ({unit})")
        for band, (name, norm) in enumerate(zip(bands, scale.bands, strict=True))
    ]
    if "evidence" in names[-1]:
        label = "logit of flood − logit of dry"
        place = lefts[len(names) - 1]
        bars.append((place, PANEL, scale.evidence, EVIDENCE_COLOURS, label))
    for left, wide, norm, colours, label in bars:
        end = norm.vmax or 1.0
        bar = figure.colorbar(
            ScalarMappable(norm, colours),
            cax=figure.add_axes(box(left + 0.08 * wide, top, 0.84 * wide, 12)),
            orientation="horizontal",
            label=label,
            extend="neither" if norm is scale.evidence else "both",
            ticks=[-end, 0.0, end] if norm is scale.evidence else MaxNLocator(5),
        )
        if norm is scale.evidence:
            bar.set_ticklabels([f"−{end:g}", "0", f"{end:g}"])
    handles = [Patch(facecolor=NODATA_COLOUR, label="nodata")]
    if "evidence" in names[-1]:
        handles.append(Patch(**UNMEASURED, label="tile without a measurement"))
    if any("truth" in name for name in names):
        handles.append(Patch(facecolor=FLOOD_COLOUR, label="new water (truth)"))
        handles.append(Patch(facecolor=WATER_COLOUR, label="water on both dates"))
        handles.append(Patch(facecolor=DRY_COLOUR, label="dry"))
    left, below, *_ = box(MARGIN, top + 80, 0, 0)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(left, below), ncols=4, frameon=False,
        borderpad=0, borderaxespad=0,
    )  # fmt: skip


def caption(predictions: Predictions, row: int) -> str:
    """Return prediction and metadata of a pair, and the ids of its images, in three lines."""
    columns = {name: values[row] for name, values in predictions.columns.items()}
    facts = [
        f"P(flood) {_probability(float(predictions.probabilities[row]))}",
        f"truth: {predictions.classes[predictions.labels[row]]}",
    ]
    dates = [START_TIME.search(str(columns[date])) for date in ("before", "after")]
    if all(dates):
        facts.append(" → ".join("-".join(date.groups()) for date in dates if date))
    if columns.get("onset"):
        facts.append("onset")
    elif "onset" in columns and predictions.labels[row] == 1:
        facts.append("flooded before, not in the headline")
    if not columns.get("seen_alike", True):
        facts.append("from another orbit")
    if np.isfinite(columns.get("gap_days", np.nan)):
        facts.append(f"{columns['gap_days']:g} days apart")
    if np.isfinite(columns.get("flooded_fraction", np.nan)):
        facts.append(f"{100 * columns['flooded_fraction']:.2g} % flooded")
    if columns.get("hard_case"):
        facts.append(f"hard case: {columns['hard_case']}")
    images = [escape_unprintable(str(columns[date])) for date in ("before", "after")]
    images = [id if len(id) <= MAX_CAPTION else f"{id[:MAX_CAPTION]} …" for id in images]
    return f"{escape_unprintable(';  '.join(facts))}\n{images[0]} →\n{images[1]}"


def _probability(value: float) -> str:
    """Format with four decimals; values nearer to 0 or 1 as "<" and ">"."""
    if value < 0.0001:
        return "< 0.0001"
    return "> 0.9999" if value > 0.9999 else f"= {value:.4f}"
