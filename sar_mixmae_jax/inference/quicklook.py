"""Picture of a map beside the backscatter, with scale bar and legend."""

import dataclasses
import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.utils.plotting import (
    NO_CLASS,
    NODATA_COLOUR,
    add_title,
    class_colours,
    figure_to_png,
    legend_columns,
)
from tfds_builders.geotiff import Georeference, pixel_spacing

LONGEST_SIDE = 900
"""Pixels of a picture along the longer side of the scene."""
MAX_LEGEND = 20
PANEL_WIDTH, LEGEND_FONT_SIZE = 6.0, 9
"""Inches, and points."""
LEGEND_ROW = 0.22
"""Height of a row of a legend in inches."""
COLOUR_BAR_HEIGHT, COLOUR_BAR_LABEL_HEIGHT = 0.15, 0.6
"""Height of a colour bar, and of the ticks and the label below it, in inches."""


@dataclasses.dataclass(frozen=True)
class QuicklookLayer:
    """Panel of a quicklook.

    Attributes:
      values: (row, column) class numbers, `NO_CLASS` for none; or float, NaN for none.
      title: title of the panel.
      label: label of the colour scale, with the unit, for continuous values.
      classes: names of the classes; empty for continuous values.
      limits: lowest and highest value of the colour scale, for continuous values.
      colormap: colormap of Matplotlib, for continuous values.
      cell: side of a value in pixels of the scene; the last row and column may extend beyond the
        scene. None: the values are stretched over the scene.
      nodata: legend entry of the colour of nodata.
    """

    values: np.ndarray
    title: str
    label: str = ""
    classes: tuple[str, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)
    colormap: str = "viridis"
    cell: int | None = None
    nodata: str = "no data"

    def extent(self, grid: Grid) -> tuple[float, float, float, float]:
        """Return left, right, bottom and top of the values in pixels of a scene."""
        rows, columns = grid.shape
        if self.cell is not None:
            rows, columns = (side * self.cell for side in self.values.shape)
        return 0.0, float(columns), float(rows), 0.0


def backscatter_layer(db: np.ndarray, band: str, cell: int) -> QuicklookLayer:
    """Return the panel of a band, whose grey values are its 2nd to 98th percentile.

    Args:
      db: (row, column) dB, NaN = nodata.
      band: its name.
      cell: side of a value in pixels of the scene.
    """
    measured = db[np.isfinite(db)]
    low, high = np.percentile(measured, (2, 98)) if measured.size else (-25.0, 0.0)
    limits = (low, max(high, low + 0.1))
    return QuicklookLayer(db, band, f"{band} (dB)", limits=limits, colormap="gray", cell=cell)


def draw_quicklook(title: str, layers: Sequence[QuicklookLayer], grid: Grid) -> bytes:
    """Draw layers of a scene side by side.

    Args:
      title: title of the picture.
      layers: layers of the whole scene, each at any resolution.
      grid: grid of the scene.

    Returns:
      PNG.
    """
    rows, columns = grid.shape
    height = float(np.clip(PANEL_WIDTH * rows / columns / pixel_aspect(grid), 1.5, 14.0))
    legends = [_legend_entries(layer) for layer in layers]
    footer_height = 0.1 + max(
        LEGEND_ROW * -(-len(entries) // _legend_columns(entries))
        + (0 if layer.classes else COLOUR_BAR_HEIGHT + COLOUR_BAR_LABEL_HEIGHT)
        for layer, entries in zip(layers, legends, strict=True)
    )
    figure = Figure(
        (len(layers) * PANEL_WIDTH + 0.6, height + footer_height + 0.9),
        dpi=100,
        layout="constrained",
    )
    panels = figure.subplots(2, len(layers), squeeze=False, height_ratios=(height, footer_height))
    for axes, footer, layer, entries in zip(*panels, layers, legends, strict=True):
        image = _draw_layer(axes, layer, grid)
        footer.set_axis_off()
        top = 1.0
        if not layer.classes:
            bar = COLOUR_BAR_HEIGHT / footer_height
            colour_bar = figure.colorbar(
                image,
                cax=footer.inset_axes((0.1, top - bar, 0.8, bar)),
                orientation="horizontal",
            )
            colour_bar.set_label(layer.label, parse_math=False)
            top -= bar + COLOUR_BAR_LABEL_HEIGHT / footer_height
        _draw_legend(footer, entries, top)
    add_title(figure, title)
    return figure_to_png(figure)


def _draw_legend(axes: Axes, entries: Sequence[Patch], top: float) -> None:
    legend = axes.legend(
        handles=entries,
        loc="upper center",
        bbox_to_anchor=(0.5, top),
        borderaxespad=0.0,
        ncols=_legend_columns(entries),
        fontsize=LEGEND_FONT_SIZE,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_entries(layer: QuicklookLayer) -> list[Patch]:
    colours = class_colours(len(layer.classes))
    numbers = np.unique(layer.values[layer.values != NO_CLASS] if layer.classes else ())
    return [
        *(
            Patch(color=colours[n], label=textwrap.shorten(layer.classes[n], 60, placeholder="…"))
            for n in numbers[:MAX_LEGEND].astype(int)
        ),
        Patch(color=NODATA_COLOUR, label=layer.nodata),
    ]


def _legend_columns(entries: Sequence[Patch]) -> int:
    labels = [str(entry.get_label()) for entry in entries]
    return legend_columns(labels, PANEL_WIDTH, LEGEND_FONT_SIZE)


def _draw_layer(axes: Axes, layer: QuicklookLayer, grid: Grid) -> AxesImage:
    rows, columns = grid.shape
    if layer.classes:
        values = np.ma.masked_equal(layer.values, NO_CLASS)
        colours = class_colours(len(layer.classes))
        colormap: Colormap = ListedColormap(colours)
        limits = (-0.5, len(colours) - 0.5)
    else:
        values = np.ma.masked_invalid(layer.values)
        colormap, limits = colormaps[layer.colormap], layer.limits
    axes.set_facecolor(NODATA_COLOUR)
    image = axes.imshow(
        values,
        cmap=colormap,
        vmin=limits[0],
        vmax=limits[1],
        extent=layer.extent(grid),
        interpolation="nearest",
    )
    axes.set_title(layer.title, parse_math=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect(1 / pixel_aspect(grid))
    _draw_scale_bar(axes, grid)
    return image


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
