"""Picture of a map beside the backscatter, with scale bar and legend."""

import dataclasses
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.utils.plotting import (
    NO_CLASS,
    NODATA_COLOUR,
    add_title,
    class_colours,
    figure_to_png,
)
from tfds_builders.geotiff import Georeference, pixel_spacing

LONGEST_SIDE = 900
"""Pixels of a picture along the longer side of the scene."""
MAX_LEGEND = 20


@dataclasses.dataclass(frozen=True)
class QuicklookMap:
    """Map of a quicklook.

    Attributes:
      values: (row, column) class numbers, `NO_CLASS` for none; or float, NaN for none.
      title: of the map.
      classes: names of the classes; empty for continuous values.
      limits: lowest and highest value of the colour scale, for continuous values.
    """

    values: np.ndarray
    title: str
    classes: tuple[str, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)


def draw_quicklook(
    title: str, backscatter_db: np.ndarray, band: str, layer: QuicklookMap, grid: Grid
) -> bytes:
    """Draw backscatter and map side by side.

    Args:
      title: of the picture.
      backscatter_db: (row, column) dB, NaN = nodata, of the whole scene at any resolution.
      band: name of its band.
      layer: map of the whole scene at any resolution.
      grid: of the scene.

    Returns:
      PNG.
    """
    rows, columns = grid.shape
    width = 6.0
    height = float(np.clip(width * rows / columns / pixel_aspect(grid), 1.5, 14.0))
    figure = Figure((2 * width + 0.6, height + 1.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    extent = (0.0, float(columns), float(rows), 0.0)
    measured = backscatter_db[np.isfinite(backscatter_db)]
    low, high = np.percentile(measured, (2, 98)) if measured.size else (-25.0, 0.0)
    left.set_facecolor(NODATA_COLOUR)
    image = left.imshow(
        np.ma.masked_invalid(backscatter_db),
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 0.1),
        extent=extent,
        interpolation="nearest",
    )
    figure.colorbar(image, ax=left, label=f"{band} (dB)", location="bottom", shrink=0.6, pad=0.02)
    left.set_title(band)
    right.set_facecolor(NODATA_COLOUR)
    handles = []
    if layer.classes:
        colours = class_colours(len(layer.classes))
        right.imshow(
            np.ma.masked_equal(layer.values, NO_CLASS),
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=len(colours) - 0.5,
            extent=extent,
            interpolation="nearest",
        )
        for number in np.unique(layer.values[layer.values != NO_CLASS])[:MAX_LEGEND]:
            handles.append(Patch(color=colours[number], label=layer.classes[number]))
    else:
        image = right.imshow(
            np.ma.masked_invalid(layer.values),
            cmap="viridis",
            vmin=layer.limits[0],
            vmax=layer.limits[1],
            extent=extent,
            interpolation="nearest",
        )
        figure.colorbar(image, ax=right, label=layer.title, location="bottom", shrink=0.6, pad=0.02)
    handles.append(Patch(color=NODATA_COLOUR, label="no data"))
    right.legend(handles=handles, loc="lower right", fontsize=9, framealpha=0.9)
    right.set_title(layer.title)
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlim(0, columns)
        axes.set_ylim(rows, 0)
        axes.set_aspect(1 / pixel_aspect(grid))
        _draw_scale_bar(axes, grid)
    add_title(figure, title)
    return figure_to_png(figure)


def pixel_size(grid: Grid) -> tuple[float, float]:
    """Return width and height of a pixel on the ground in metres; NaN where the CRS is unknown."""
    rows, columns = pixel_spacing(Georeference(grid.crs, grid.transform), grid.shape)
    return columns, rows


def pixel_aspect(grid: Grid) -> float:
    """Return width over height of a pixel on the ground; 1 where unknown."""
    width, height = pixel_size(grid)
    ratio = width / height if height else math.nan
    return ratio if 0.05 < ratio < 20 else 1.0


def scale_bar(grid: Grid) -> tuple[float, str]:
    """Return the length of a scale bar in pixels, near a quarter of the width, and its label."""
    width, _ = pixel_size(grid)
    known = math.isfinite(width) and width > 0
    target = grid.shape[1] / 4 * (width if known else 1.0)
    power = 10 ** math.floor(math.log10(target))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= target)
    if not known:
        return length, f"{length:g} pixels"
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    return length / width, label


def _draw_scale_bar(axes: Axes, grid: Grid) -> None:
    length, label = scale_bar(grid)
    rows, columns = grid.shape
    x, y = 0.04 * columns, 0.95 * rows
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    for colour, width in (("white", 6), ("black", 2.5)):
        axes.plot([x, x + length], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
    axes.text(x, y - 0.02 * rows, label, bbox=box, va="bottom", fontsize=9)
