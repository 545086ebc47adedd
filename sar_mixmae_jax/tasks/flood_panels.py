"""Pairs of images worth looking at: the surest answers, right and wrong."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.utils.errors import InputError, escape_unprintable
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, block_average, figure_to_png

OUTCOMES = ("floods found", "dry and said so", "floods missed", "false alarms")
EXAMPLES = 3
"""Pairs of each kind, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class PairPicture:
    """Two dates of one place.

    Attributes:
      before: (row, column, 2) dB, bands VH and VV, NaN = nodata.
      after: the same place later.
      water: (row, column) 0 dry, 1 where water is new after, 2 where it is on both dates; None if
        unknown.
      evidence: (rows, columns) of tiles: logit of flood minus logit of dry; None if unknown.
    """

    before: np.ndarray
    after: np.ndarray
    water: np.ndarray | None = None
    evidence: np.ndarray | None = None


def check_pair_pictures(picture: PairPicture, pair: str) -> None:
    """Refuses a picture that cannot be drawn.

    Args:
      picture: of the pair.
      pair: its id, for the message.

    Raises:
      InputError: shapes do not fit, water is of no known class, or evidence is not finite.
    """
    shape = picture.before.shape
    if len(shape) != 3 or shape[2] != 2 or not shape[0] * shape[1] or picture.after.shape != shape:
        raise InputError(
            f"the picture of {pair} has shapes {shape} and {picture.after.shape}: expected "
            "(row, column, 2) for both dates"
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
    if evidence is not None and (evidence.ndim != 2 or not np.isfinite(evidence).all()):
        raise InputError(
            f"the picture of {pair} has evidence of shape {evidence.shape}: expected finite values "
            "(rows, columns)"
        )


def choose_examples(predictions: Predictions, count: int = EXAMPLES) -> dict[str, list[int]]:
    """Numbers of the pairs of each of `KINDS`, the surest answer first.

    Of a sequence only its surest pair is taken: the others are nearly the same picture.

    Args:
      predictions: of floods.
      count: pairs of each kind, at most.
    """
    probability = predictions.probabilities
    said, true = probability > THRESHOLD, predictions.labels == 1
    of_kind = dict(
        zip(OUTCOMES, (said & true, ~said & ~true, ~said & true, said & ~true), strict=True)
    )
    order = np.argsort(-np.abs(probability - THRESHOLD), kind="stable")
    sequence = predictions.columns["sequence"]
    chosen = {}
    for kind, wanted in of_kind.items():
        rows = order[wanted[order]]
        _, first = np.unique(sequence[rows], return_index=True)
        chosen[kind] = [int(row) for row in rows[np.sort(first)[:count]]]
    return chosen


MAX_PANEL_PIXELS = 256
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
        values = np.concatenate([reduce_to_panel(date[..., band]).ravel() for date in dates])
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


def _tick_step(size: int) -> int:
    return max(1, -(-size // MAX_PANEL_PIXELS))


def reduce_to_panel(db: np.ndarray) -> np.ndarray:
    """Average backscatter (row, column) in power to at most `MAX_PANEL_PIXELS` a side."""
    return block_average(db, _tick_step(max(db.shape)))


def draw_backscatter(axis: Axes, db: np.ndarray, norm: Normalize) -> None:
    """One band (row, column) of one date."""
    axis.imshow(reduce_to_panel(db), cmap=GREY, norm=norm, interpolation="nearest")


def draw_water(axis: Axes, one: PairPicture) -> None:
    """Where water is new, and where it was before; nodata of the date after is nodata here."""
    if one.water is None:
        _draw_unknown(axis)
        return
    step = _tick_step(max(one.water.shape))
    there = one.water[::step, ::step].astype(float)
    there[~np.isfinite(one.after[::step, ::step]).any(-1)] = np.nan
    three = ListedColormap([DRY_COLOUR, FLOOD_COLOUR, WATER_COLOUR])
    colours = three.with_extremes(bad=NODATA_COLOUR)
    axis.imshow(there, cmap=colours, vmin=0, vmax=2, interpolation="nearest")


def draw_evidence(axis: Axes, one: PairPicture, norm: Normalize) -> None:
    """Evidence of every tile, in the shape of the picture, with its number where there is room."""
    if one.evidence is None:
        _draw_unknown(axis)
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


def _draw_unknown(axis: Axes) -> None:
    axis.text(0.5, 0.5, "unknown", ha="center", va="center", transform=axis.transAxes, color="0.4")


DPI = 100
PANEL, GAP, APART, MARGIN = 232, 6, 22, 16
"""Pixels: side of a panel, between dates, between bands, at the sides."""

HEAD, CAPTION, FOOT = 40, 72, 104
"""Pixels: above the first pair, above each pair's panels, below the last."""

MAX_CAPTION = 110
"""Characters of the ids of the images that a caption shows."""

Box = tuple[float, float, float, float]


def draw_pairs(
    predictions: Predictions,
    rows: Sequence[int],
    pictures: Sequence[PairPicture],
    scale: Scales,
    title: str,
) -> bytes:
    """Draws pairs below each other, as the bytes of a PNG.

    Args:
      predictions: of floods.
      rows: numbers of the pairs, at least one.
      pictures: of these pairs.
      scale: of `pair_panels.scales`.
      title: of the figure.
    """
    names = [f"{band} {when}" for band in BANDS for when in ("before", "after")]
    names += ["water (truth)"] if any(one.water is not None for one in pictures) else []
    names += ["evidence of tiles"] if any(one.evidence is not None for one in pictures) else []
    lefts = np.cumsum([MARGIN, *(PANEL + (GAP if n % 2 == 0 else APART) for n in range(5))])
    shape = np.array([one.before.shape[:2] for one in pictures])
    high = int(np.clip(PANEL * (shape[:, 0] / shape[:, 1]).max(), 0.4 * PANEL, 1.6 * PANEL))
    width, step = int(lefts[len(names) - 1]) + PANEL + MARGIN, CAPTION + high
    height = HEAD + len(rows) * step + FOOT
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def box(left: float, top: float, wide: float, tall: float) -> Box:
        """Of pixels from the top left corner, in the figure's own measure."""
        return left / width, 1 - (top + tall) / height, wide / width, tall / height

    figure.text(
        MARGIN / width, 1 - 14 / height, title, va="top", fontsize=13, weight="bold",
        parse_math=False,
    )  # fmt: skip
    for number, (row, one) in enumerate(zip(rows, pictures, strict=True)):
        top = HEAD + number * step
        figure.text(
            MARGIN / width, 1 - (top + 14) / height, caption(predictions, row), va="top",
            fontsize=9, linespacing=1.25, parse_math=False,
        )  # fmt: skip
        for left, name, draw in zip(lefts, names, _panels(one, scale, names), strict=False):
            axis = figure.add_axes(box(left, top + CAPTION, PANEL, high))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(name, fontsize=9, pad=3)
            draw(axis)
    _legend(figure, box, [float(left) for left in lefts], names, scale, height - FOOT + 18)
    return figure_to_png(figure)


def _panels(one: PairPicture, scale: Scales, names: Sequence[str]) -> list[Callable[[Axes], None]]:
    """What draws each of the panels."""
    draw: list[Callable[[Axes], None]] = [
        partial(draw_backscatter, db=date[..., band], norm=scale.bands[band])
        for band in range(len(BANDS))
        for date in (one.before, one.after)
    ]
    if any("truth" in name for name in names):
        draw.append(partial(draw_water, one=one))
    if any("evidence" in name for name in names):
        draw.append(partial(draw_evidence, one=one, norm=scale.evidence))
    return draw


def _legend(
    figure: Figure,
    box: Callable[[float, float, float, float], Box],
    lefts: Sequence[float],
    names: Sequence[str],
    scale: Scales,
    top: float,
) -> None:
    """A colour bar below both dates of each band and below the evidence; what colours mean."""
    bars = [
        (lefts[2 * band], 2 * PANEL + GAP, norm, GREY, f"{name}, both dates (dB)")
        for band, (name, norm) in enumerate(zip(BANDS, scale.bands, strict=True))
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
    """What was said of a pair and what is known of it, in two lines."""
    known = {name: values[row] for name, values in predictions.columns.items()}
    facts = [
        f"P(flood) {_probability(float(predictions.probabilities[row]))}",
        f"truth: {predictions.classes[predictions.labels[row]]}",
    ]
    if known.get("onset"):
        facts.append("onset")
    if np.isfinite(known.get("gap_days", np.nan)):
        facts.append(f"{known['gap_days']:g} days apart")
    if np.isfinite(known.get("flooded_fraction", np.nan)):
        facts.append(f"{100 * known['flooded_fraction']:.2g} % flooded")
    if known.get("hard_case"):
        facts.append(f"hard case: {known['hard_case']}")
    images = escape_unprintable(f"{known['before']} → {known['after']}")
    images = images if len(images) <= MAX_CAPTION else f"{images[:MAX_CAPTION]} …"
    return f"{escape_unprintable(';  '.join(facts))}\n{images}"


def _probability(value: float) -> str:
    """Four digits; the ends as what they are beyond."""
    if value < 0.0001:
        return "< 0.0001"
    return "> 0.9999" if value > 0.9999 else f"= {value:.4f}"
