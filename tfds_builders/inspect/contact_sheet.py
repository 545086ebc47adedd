"""A contact sheet: patches side by side, pixel for pixel, on one scale of grey for each band."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.errors import plain
from sar_mixmae_jax.pictures import NODATA_COLOUR, png

DPI = 100
LARGEST = 250
"""Pixels of the picture that a patch may take: larger ones are averaged, smaller ones enlarged."""

GAP, CAPTION, HEAD, FOOT, MARGIN = 6, 34, 42, 92, 16
"""Pixels: between bands, for a caption, above the first row, below the last, at the sides."""

LINE = 72
"""Characters of a caption below two patches of `LARGEST`."""

Box = tuple[float, float, float, float]


class Shown(NamedTuple):
    """A patch that is drawn.

    Attributes:
      caption: id and split.
      backscatter: (row, column, band) dB, NaN = nodata.
    """

    caption: str
    backscatter: np.ndarray


def contact_sheet(
    patches: Sequence[Shown],
    bands: Sequence[str],
    scales: Sequence[tuple[float, float]],
    title: str,
    columns: int = 3,
) -> bytes:
    """Draws patches with their bands beside each other, as the bytes of a PNG.

    Args:
      patches: at least one, all of one size.
      bands: names of the bands.
      scales: ends of the grey scale of each band, dB.
      title: of the figure.
      columns: patches in a row.
    """
    head = HEAD + 20 * len(title.splitlines())
    rows, side = -(-len(patches) // columns), patches[0].backscatter.shape[0]
    block, zoom = max(1, -(-side // LARGEST)), max(1, LARGEST // side)
    shown = -(-side // block) * zoom
    width = len(bands) * (shown + GAP) - GAP
    size = (
        columns * (width + 3 * GAP) - 3 * GAP + 2 * MARGIN,
        head + rows * (shown + CAPTION) + FOOT,
    )
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)

    def box(left: float, top: float, wide: float, high: float) -> Box:
        """Of pixels from the top left corner, in the figure's own measure."""
        return left / size[0], 1 - (top + high) / size[1], wide / size[0], high / size[1]

    norms = [Normalize(*scale) for scale in scales]
    grey = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
    for number, patch in enumerate(patches):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (width + 3 * GAP), head + row * (shown + CAPTION)
        for band, norm in enumerate(norms):
            axis = figure.add_axes(box(left + band * (shown + GAP), top, shown, shown))
            pixels = multilook(patch.backscatter[..., band], block)
            axis.imshow(pixels, cmap=grey, norm=norm, interpolation="nearest", aspect="auto")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(bands[band], fontsize=10, pad=4)
        x, y, *_ = box(left, top + shown + 3, 1, 0)
        lines = textwrap.wrap(plain(patch.caption), max(20, LINE * width // (2 * LARGEST)))
        caption = "\n".join(lines)
        figure.text(x, y, caption, fontsize=7.5, va="top", linespacing=1.1, parse_math=False)
    averaged = f"; {block}x{block} pixels averaged in power" if block > 1 else ""
    figure.text(0.5, 1 - 14 / size[1], f"{title}{averaged}", ha="center", va="top", fontsize=12)
    bar = min(340, (size[0] - 200) // (len(bands) + 1))
    for band, name in enumerate(bands):
        place = box(MARGIN + band * (bar + 60), size[1] - FOOT + 24, bar, 14)
        figure.colorbar(
            ScalarMappable(norms[band], grey),
            cax=figure.add_axes(place),
            orientation="horizontal",
            label=f"{name} (dB)",
            extend="both",
            ticks=MaxNLocator(5, integer=True),
        )
    figure.legend(
        handles=[Patch(facecolor=NODATA_COLOUR, label="nodata")],
        loc="lower right",
        bbox_to_anchor=(1 - MARGIN / size[0], 40 / size[1]),
        frameon=False,
    )
    return png(figure)


def multilook(db: np.ndarray, block: int) -> np.ndarray:
    """Averages power over blocks of (row, column) dB; nodata where nothing was measured."""
    if block == 1:
        return db
    rows, columns = (-(-size // block) * block for size in db.shape)
    power = np.full((rows, columns), np.nan)
    power[: db.shape[0], : db.shape[1]] = 10.0 ** (db.astype(float) / 10.0)
    blocks = power.reshape(rows // block, block, columns // block, block)
    valid = np.isfinite(blocks).sum((1, 3))
    total = np.nansum(blocks, (1, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(valid > 0, 10.0 * np.log10(total / valid), np.nan)
