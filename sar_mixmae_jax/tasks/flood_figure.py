"""Figures of example pairs of floods: their panels below each other, captions and a legend."""

import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.flood_panels import (
    DRY_COLOUR,
    EVIDENCE_COLOURS,
    FLOOD_COLOUR,
    GREY,
    UNMEASURED,
    WATER_COLOUR,
    PairPicture,
    Scales,
    block_size,
    draw_backscatter,
    draw_evidence,
    draw_water,
)
from sar_mixmae_jax.utils.errors import escape_unprintable
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, add_title, figure_to_png

DPI = 100
PANEL, GAP, APART, MARGIN = 232, 6, 22, 16
"""Pixels: side of a panel, between dates, between bands, at the sides."""

MIN_WIDTH = 760
"""Pixels: least width of a figure, for its captions."""

HEAD, CAPTION, FOOT = 58, 90, 136
"""Pixels: above the first pair, above each pair's panels, below the last."""

COLOUR_BARS, LEGEND = 18, 86
"""Pixels: from the last panels down to the colour bars, and to the legend."""

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
      predictions: predictions of floods.
      rows: numbers of the pairs, at least one.
      pictures: pictures of these pairs.
      scale: of `scales`.
      title: title of the figure.

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

    add_title(figure, title, x=MARGIN / width, y=1 - 14 / height, ha="left", va="top", fontsize=11)
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
    bands, block = pictures[0].bands, block_size(shape.max())
    corners = [float(left) for left in lefts]
    _legend(figure, box, corners, names, bands, scale, height - FOOT + COLOUR_BARS, block)
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
    left, upper, *_ = box(MARGIN, top + LEGEND - COLOUR_BARS, 0, 0)
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left, upper), ncols=4, frameon=False,
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
