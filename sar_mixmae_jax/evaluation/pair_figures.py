"""Pairs of images with what was said of them: both dates on one scale of dB, truth, evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.errors import plain
from sar_mixmae_jax.evaluation import pair_panels
from sar_mixmae_jax.evaluation.pair_panels import DRY_COLOUR, FLOOD_COLOUR, WATER_COLOUR, Scales
from sar_mixmae_jax.evaluation.pairs import PairPicture
from sar_mixmae_jax.pictures import NODATA_COLOUR, png

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

DPI = 100
PANEL, GAP, APART, MARGIN = 232, 6, 22, 16
"""Pixels: side of a panel, between dates, between bands, at the sides."""

HEAD, CAPTION, FOOT = 40, 72, 104
"""Pixels: above the first pair, above each pair's panels, below the last."""

LONGEST = 110
"""Characters of the ids of the images that a caption shows."""

Box = tuple[float, float, float, float]


def pairs(
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
    return png(figure)


def _panels(one: PairPicture, scale: Scales, names: Sequence[str]) -> list[Callable[[Axes], None]]:
    """What draws each of the panels."""
    draw: list[Callable[[Axes], None]] = [
        partial(pair_panels.backscatter, db=date[..., band], norm=scale.bands[band])
        for band in range(len(BANDS))
        for date in (one.before, one.after)
    ]
    if any("truth" in name for name in names):
        draw.append(partial(pair_panels.water, one=one))
    if any("evidence" in name for name in names):
        draw.append(partial(pair_panels.evidence, one=one, norm=scale.evidence))
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
        (lefts[2 * band], 2 * PANEL + GAP, norm, pair_panels.GREY, f"{name}, both dates (dB)")
        for band, (name, norm) in enumerate(zip(BANDS, scale.bands, strict=True))
    ]
    if "evidence" in names[-1]:
        label = "logit of flood − logit of dry"
        place = lefts[len(names) - 1]
        bars.append((place, PANEL, scale.evidence, pair_panels.EVIDENCE_COLOURS, label))
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
    images = plain(f"{known['before']} → {known['after']}")
    images = images if len(images) <= LONGEST else f"{images[:LONGEST]} …"
    return f"{plain(';  '.join(facts))}\n{images}"


def _probability(value: float) -> str:
    """Four digits; the ends as what they are beyond."""
    if value < 0.0001:
        return "< 0.0001"
    return "> 0.9999" if value > 0.9999 else f"= {value:.4f}"
