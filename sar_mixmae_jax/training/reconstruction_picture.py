"""The reconstruction picture: input, mixed input, reconstruction and weights of a few patches."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, add_title, figure_to_png

PARTNER_COLOUR = "tab:cyan"
Array = np.ndarray | jax.Array
COLUMNS = ("input", "mixed input", "reconstruction", "loss weight")


class Panels(NamedTuple):
    """Images of the picture, each (patch, row, column, band), NaN = nodata.

    Attributes:
      measured: input in dB.
      mixed: input of the encoder, dB: mixed with the partner, or NaN in hidden units.
      reconstructed: dB.
      weights: weights of the loss.
      mask: (units, units), 1 where a mask unit of the mixed input comes from the partner.
    """

    measured: Array
    mixed: Array
    reconstructed: Array
    weights: Array
    mask: Array


def draw_reconstruction(
    panels: Panels,
    ids: Sequence[str],
    bands: Sequence[str],
    path: Path,
    *,
    title: str,
    norm_pix_loss: bool,
    mixed: bool = True,
) -> None:
    """Write a PNG with a row per patch and band.

    Args:
      panels: the images.
      ids: name of each patch.
      bands: name of each band.
      path: where to write; the file appears whole or not at all.
      title: title of the figure.
      norm_pix_loss: whether the targets were normalised, for the caption.
      mixed: whether images are mixed with partners; otherwise mask units are hidden.
    """
    rows = len(ids) * len(bands)
    figure = Figure(figsize=(11.5, 2.45 * rows + 1.6), layout="constrained", dpi=110)
    axes = figure.subplots(rows, len(COLUMNS), squeeze=False)
    range_db = [_range(panels.measured[..., band], (1, 99)) for band in range(len(bands))]
    weight_range = _range(panels.weights, (0, 100))
    for row in range(rows):
        patch, band = divmod(row, len(bands))
        for column, values in enumerate(map(np.asarray, panels[:4])):
            axis, is_weight = axes[row, column], column == 3
            low, high = weight_range if is_weight else range_db[band]
            image = axis.imshow(
                values[patch, ..., band],
                cmap=_colours("viridis" if is_weight else "gray"),
                vmin=low,
                vmax=high,
                interpolation="nearest",
            )
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title("masked input" if column == 1 and not mixed else COLUMNS[column])
            if column == 1:
                _mark_units(axis, np.asarray(panels.mask), values.shape[1], fill=not mixed)
            if column >= 2:
                label = "weight" if is_weight else f"{bands[band]} (dB)"
                extend = "neither" if is_weight else "both"
                figure.colorbar(image, ax=axis, label=label, shrink=0.9, extend=extend)
        axes[row, 0].set_ylabel(f"{_short(ids[patch])}\n{bands[band]}", fontsize=7)
    _explain(figure, title, norm_pix_loss, mixed)
    atomic_write(path, figure_to_png(figure))


def _range(values: Array, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return percentiles of the finite values, for the ends of a colour scale."""
    measured = np.asarray(values)[np.isfinite(values)]
    if not measured.size:
        return 0.0, 1.0
    low, high = np.percentile(measured, percentiles)
    if high - low < 1e-6:  # all equal: the scale is around the value
        return float(low) - 0.5, float(high) + 0.5
    return float(low), float(high)


def _colours(name: str) -> Colormap:
    return colormaps[name].with_extremes(bad=NODATA_COLOUR)


def _short(name: str, width: int = 26) -> str:
    return "\n".join(name[start : start + width] for start in range(0, len(name), width))


def _mark_units(axis: Axes, mask: np.ndarray, side: int, *, fill: bool) -> None:
    """Frame the mask units that come from the partner image, or fill those that are hidden."""
    unit = side // len(mask)
    inset, width = (-0.5, unit) if fill else (1.0, unit - 3.0)
    units = [
        Rectangle((column * unit + inset, row * unit + inset), width, width)
        for row, column in np.argwhere(mask == 1)
    ]
    face = PARTNER_COLOUR if fill else "none"
    axis.add_collection(
        PatchCollection(units, facecolor=face, edgecolor=PARTNER_COLOUR, linewidth=0.9)
    )


def _explain(figure: Figure, title: str, norm_pix_loss: bool, mixed: bool) -> None:
    """Add title, legend and caption."""
    add_title(figure, title)
    hidden = "mask unit of the partner image" if mixed else "hidden mask unit"
    views = (
        "Every mask unit is reconstructed from the view in which it was hidden."
        if mixed
        else "Mask units that the encoder saw are shown as measured."
    )
    handles = [
        Patch(facecolor=NODATA_COLOUR, label="nodata"),
        Patch(
            facecolor="none" if mixed else PARTNER_COLOUR, edgecolor=PARTNER_COLOUR, label=hidden
        ),
    ]
    caption = (
        f"{views} Scales run from the\n"
        "1st to the 99th percentile of the inputs in a band, the same for the pictures beside it."
    )
    if norm_pix_loss:
        caption += (
            "\nThe model predicts normalised mask units: the target's own mean and deviation over "
            "all bands of a unit\nbring the reconstruction back to dB, so these are given; what "
            "varies inside a unit, and between bands, is predicted."
        )
    figure.legend(
        handles=handles, title=caption, loc="outside lower center", ncols=2, frameon=False
    )
