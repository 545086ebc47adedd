"""Example pairs of a report on floods: which are shown, and their panels."""

import dataclasses
from collections.abc import Iterable
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, block_average

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
      picture: picture of the pair.
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
      predictions: predictions of floods.
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


def block_size(size: int) -> int:
    """Return the number of pixels of an image that become one pixel of a panel."""
    return max(1, -(-size // MAX_PANEL_PIXELS))


def reduce_to_panel(db: np.ndarray) -> np.ndarray:
    """Average backscatter (row, column) in power to at most `MAX_PANEL_PIXELS` a side."""
    return block_average(db, block_size(max(db.shape)))


def draw_backscatter(axis: Axes, db: np.ndarray, norm: Normalize) -> None:
    """Draw one band (row, column) of one date."""
    axis.imshow(reduce_to_panel(db), cmap=GREY, norm=norm, interpolation="nearest")


def draw_water(axis: Axes, picture: PairPicture) -> None:
    """Draw new water and water of both dates; nodata of the date after is nodata here."""
    if picture.water is None:
        _draw_unknown(axis)
        return
    step = block_size(max(picture.water.shape))
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
