"""The panels of a pair: backscatter of a date, true water, evidence of the tiles."""

from collections.abc import Iterable
from decimal import ROUND_CEILING, Context, Decimal
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize

from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.evaluation.pairs import PairPicture
from sar_mixmae_jax.pictures import NODATA_COLOUR

LARGEST = 256
"""Pixels of a panel's side: larger pictures are averaged in power, or speckle hides the rest."""

PERCENTILES = (1, 99)
DRY_COLOUR, WATER_COLOUR, FLOOD_COLOUR = "0.9", "#9ecae1", "#08519c"
WEAKEST = 0.5
"""Logits: the scale of evidence goes at least so far, so that weak evidence looks weak."""

GREY = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
EVIDENCE_COLOURS = colormaps["PRGn_r"]
"""Purple: flood, green: dry; without the orange of nodata."""


class Scales(NamedTuple):
    """The scales of all figures of a report, so that they can be compared.

    Attributes:
      bands: of each band, dB; the same for both dates.
      evidence: symmetric about 0, to at least `WEAKEST`.
    """

    bands: tuple[Normalize, ...]
    evidence: Normalize


def scales(pictures: Iterable[PairPicture]) -> Scales:
    """Percentiles of all dates of all pictures together, and the strongest evidence."""
    pictures = list(pictures)
    norms = []
    for band in range(len(BANDS)):
        dates = [date for one in pictures for date in (one.before, one.after)]
        values = np.concatenate([reduced(date[..., band]).ravel() for date in dates])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, PERCENTILES) if values.size else (-30.0, 0.0)
        norms.append(Normalize(float(low), float(max(high, low + 1.0))))
    strongest = [float(np.abs(one.evidence).max()) for one in pictures if one.evidence is not None]
    end = _rounded_up(max(strongest, default=0.0))
    return Scales(tuple(norms), Normalize(-end, end))


def _rounded_up(value: float) -> float:
    """To two significant digits, and at least `WEAKEST`, so that the ends of a scale are exact."""
    value = max(value, WEAKEST)
    return float(Decimal(value).normalize(Context(prec=2, rounding=ROUND_CEILING)))


def digits(value: float) -> str:
    """Evidence with its sign and its first digits."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001:
        return f"{value:+.0e}"
    return f"{value:+.1g}" if size < 0.01 else f"{value:+.2g}" if size < 10 else f"{value:+.0f}"


def _step(size: int) -> int:
    return max(1, -(-size // LARGEST))


def reduced(db: np.ndarray) -> np.ndarray:
    """Backscatter (row, column) averaged in power to at most `LARGEST` pixels a side.

    Nodata where nothing of a block was measured.
    """
    block = _step(max(db.shape))
    if block == 1:
        return db
    rows, columns = (-(-size // block) * block for size in db.shape)
    power = np.full((rows, columns), np.nan)
    power[: db.shape[0], : db.shape[1]] = 10.0 ** (db.astype(np.float64) / 10.0)
    blocks = power.reshape(rows // block, block, columns // block, block)
    valid = np.isfinite(blocks).sum((1, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(valid > 0, 10.0 * np.log10(np.nansum(blocks, (1, 3)) / valid), np.nan)


def backscatter(axis: Axes, db: np.ndarray, norm: Normalize) -> None:
    """One band (row, column) of one date."""
    axis.imshow(reduced(db), cmap=GREY, norm=norm, interpolation="nearest")


def water(axis: Axes, one: PairPicture) -> None:
    """Where water is new, and where it was before; nodata of the date after is nodata here."""
    if one.water is None:
        _unknown(axis)
        return
    step = _step(max(one.water.shape))
    there = one.water[::step, ::step].astype(float)
    there[~np.isfinite(one.after[::step, ::step]).any(-1)] = np.nan
    three = ListedColormap([DRY_COLOUR, FLOOD_COLOUR, WATER_COLOUR])
    colours = three.with_extremes(bad=NODATA_COLOUR)
    axis.imshow(there, cmap=colours, vmin=0, vmax=2, interpolation="nearest")


def evidence(axis: Axes, one: PairPicture, norm: Normalize) -> None:
    """Evidence of every tile, in the shape of the picture, with its number where there is room."""
    if one.evidence is None:
        _unknown(axis)
        return
    height, width = one.before.shape[:2]
    axis.imshow(
        one.evidence,
        cmap=EVIDENCE_COLOURS,
        norm=norm,
        interpolation="nearest",
        extent=(0, width, height, 0),
    )
    rows, columns = one.evidence.shape
    if max(rows, columns) > 6:
        return
    for (row, column), value in np.ndenumerate(one.evidence):
        x, y = (column + 0.5) * width / columns, (row + 0.5) * height / rows
        shade = "white" if abs(value) > 0.65 * (norm.vmax or 1.0) else "black"
        axis.text(x, y, digits(float(value)), ha="center", va="center", fontsize=7, color=shade)


def _unknown(axis: Axes) -> None:
    axis.text(0.5, 0.5, "unknown", ha="center", va="center", transform=axis.transAxes, color="0.4")
