"""Figures of an inspection: contact sheet, histograms, labels and a map, as PNG bytes."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.utils.errors import escape_unprintable
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, block_average, figure_to_png
from tfds_builders.inspect.survey import (
    BINS_PER_DB,
    EDGES,
    Places,
    Survey,
    map_degrees,
    percentiles,
)

SHEET_DPI = 100
MAX_PATCH_PIXELS = 250
"""Pixels of the figure per patch side: larger patches are averaged, smaller ones enlarged."""

GAP, CAPTION, HEAD, FOOT, MARGIN = 6, 34, 42, 92, 16
"""Pixels: between bands, for a caption, above the first row, below the last, at the sides."""

MAX_CAPTION = 72
"""Characters of a caption below two patches of `MAX_PATCH_PIXELS`."""

Box = tuple[float, float, float, float]


class LabelledPatch(NamedTuple):
    """A patch of the contact sheet.

    Attributes:
      caption: text below the patch.
      backscatter: (row, column, band) dB, NaN = nodata.
    """

    caption: str
    backscatter: np.ndarray


def draw_contact_sheet(
    patches: Sequence[LabelledPatch],
    bands: Sequence[str],
    scales: Sequence[tuple[float, float]],
    title: str,
    columns: int = 3,
) -> bytes:
    """Draw patches side by side, pixel for pixel, with one grey scale for each band.

    Args:
      patches: at least one, all of one size.
      bands: names of the bands.
      scales: (low, high) ends of the grey scale of each band, dB.
      title: title of the figure.
      columns: patches in a row.
    """
    head = HEAD + 20 * len(title.splitlines())
    rows, side = -(-len(patches) // columns), patches[0].backscatter.shape[0]
    block, zoom = max(1, -(-side // MAX_PATCH_PIXELS)), max(1, MAX_PATCH_PIXELS // side)
    shown = -(-side // block) * zoom
    width = len(bands) * (shown + GAP) - GAP
    size = (
        columns * (width + 3 * GAP) - 3 * GAP + 2 * MARGIN,
        head + rows * (shown + CAPTION) + FOOT,
    )
    figure = Figure(figsize=(size[0] / SHEET_DPI, size[1] / SHEET_DPI), dpi=SHEET_DPI)

    def box(left: float, top: float, wide: float, high: float) -> Box:
        """Return figure coordinates of a box in pixels from the top left corner."""
        return left / size[0], 1 - (top + high) / size[1], wide / size[0], high / size[1]

    norms = [Normalize(*scale) for scale in scales]
    grey = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
    for number, patch in enumerate(patches):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (width + 3 * GAP), head + row * (shown + CAPTION)
        for band, norm in enumerate(norms):
            axis = figure.add_axes(box(left + band * (shown + GAP), top, shown, shown))
            pixels = block_average(patch.backscatter[..., band], block)
            axis.imshow(pixels, cmap=grey, norm=norm, interpolation="nearest", aspect="auto")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(bands[band], fontsize=10, pad=4)
        x, y, *_ = box(left, top + shown + 3, 1, 0)
        lines = textwrap.wrap(
            escape_unprintable(patch.caption),
            max(20, MAX_CAPTION * width // (2 * MAX_PATCH_PIXELS)),
        )
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
    return figure_to_png(figure)


DPI = 110
COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:purple", "tab:brown", "tab:olive")
"""Colours of the splits, in their order."""

MAX_ANNOTATED = 50
"""Largest number of classes for which the cells of the matrix show numbers."""


def colour(number: int) -> str:
    """Return the colour of a split by its number."""
    return COLOURS[number % len(COLOURS)]


def draw_histograms(
    surveys: Mapping[str, Survey],
    bands: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
) -> bytes:
    """Draw the density of every band and split on a linear and on a logarithmic axis.

    Args:
      surveys: by split.
      bands: names of the bands.
      mean: (band,) mean with which training standardises, dB.
      std: (band,) standard deviation with which training standardises, dB.
      title: title of the figure.
    """
    figure = Figure(figsize=(5.0 * len(bands), 7.2), layout="constrained", dpi=DPI)
    axes = figure.subplots(2, len(bands), squeeze=False, sharex="col")
    figure.suptitle(title)
    for band, name in enumerate(bands):
        top, bottom = axes[:, band]
        for number, (split, survey) in enumerate(surveys.items()):
            inside = survey.histogram[band, 1:-1]
            density = inside / max(survey.histogram[band].sum(), 1) * BINS_PER_DB
            width = 1.0 + 0.7 * (len(surveys) - 1 - number)  # wider lines below stay visible
            for axis in (top, bottom):
                axis.stairs(density, EDGES, color=colour(number), label=split, linewidth=width)
        for axis in (top, bottom):
            if np.isfinite([mean[band], std[band]]).all():
                axis.axvline(mean[band], color="0.45", linestyle="--")
                axis.axvspan(mean[band] - std[band], mean[band] + std[band], color="0.9", zorder=0)
            axis.set_ylabel("share of valid pixels per dB")
            axis.grid(alpha=0.3)
        top.set_title(name)
        top.set_ylim(bottom=0)
        if any(survey.histogram[band].any() for survey in surveys.values()):
            bottom.set_yscale("log")
        bottom.set_xlabel(f"{name} backscatter (dB)")
        bottom.set_xlim(_value_range(surveys, band))
    handles, _ = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.45", linestyle="--", label="mean used by training"))
    handles.append(Line2D([], [], color="0.9", linewidth=8, label="± std used by training"))
    columns = len(handles) if len(handles) <= 5 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure_to_png(figure)


def _value_range(surveys: Mapping[str, Survey], band: int) -> tuple[float, float]:
    """Return the range of a band over all splits, dB, without a millionth at either end."""
    ends = [percentiles(survey, band, (1e-4, 100 - 1e-4)) for survey in surveys.values()]
    if not np.isfinite(ends).any():
        return float(EDGES[0]), float(EDGES[-1])
    return float(np.nanmin(ends)) - 1.0, float(np.nanmax(ends)) + 1.0


def draw_labels(surveys: Mapping[str, Survey], classes: Sequence[str], title: str) -> bytes:
    """Draw the frequency of labels by split, and their co-occurrence over all splits.

    Args:
      surveys: by split.
      classes: names of the labels.
      title: title of the figure.
    """
    names = [
        "\n".join(textwrap.wrap(f"{number}  {name}", 46)) for number, name in enumerate(classes, 1)
    ]
    cooccurrence = sum(survey.cooccurrence for survey in surveys.values())
    counts = np.diagonal(cooccurrence)
    with np.errstate(invalid="ignore"):
        shares = 100.0 * cooccurrence / counts[:, None]
    side = max(4.0, 0.42 * len(classes))
    figure = Figure(figsize=(side + 7.5, side + 1.6), layout="constrained", dpi=DPI)
    figure.suptitle(title)
    bars, matrix = figure.subplots(1, 2, sharey=True, width_ratios=(2.6, side))
    _bars(bars, surveys, names)
    np.fill_diagonal(shares, np.nan)  # 100 for every label
    highest = 10 * np.ceil(np.max(shares, initial=10, where=np.isfinite(shares)) / 10)
    colours = colormaps["viridis"].with_extremes(bad="0.9")
    # "auto" keeps the rows aligned with the bars
    image = matrix.imshow(shares, cmap=colours, vmin=0, vmax=highest, aspect="auto")
    numbers = range(1, len(classes) + 1)
    matrix.set_xticks(range(len(classes)), [str(number) for number in numbers], fontsize=8)
    matrix.set_xlabel("label (numbers as on the left; grey: itself, or no patch has the row's)")
    matrix.set_title("Share of patches with the row's label that have the column's too")
    if len(classes) <= MAX_ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                shade = "black" if share > 0.6 * highest else "white"
                matrix.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=shade
                )
    figure.colorbar(image, ax=matrix, label="share of patches (%)", pad=0.01, aspect=30)
    return figure_to_png(figure)


def _bars(axis: Axes, surveys: Mapping[str, Survey], names: Sequence[str]) -> None:
    """Draw the share of the patches of each split that have a label."""
    height = 0.8 / len(surveys)
    for number, (split, survey) in enumerate(surveys.items()):
        share = 100.0 * np.diagonal(survey.cooccurrence) / max(survey.records, 1)
        rows = np.arange(len(names)) - 0.4 + height * (number + 0.5)
        axis.barh(rows, share, height, color=colour(number), label=split)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("share of patches (%)")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.figure.legend(loc="outside lower left", ncols=len(surveys), frameon=False)


def draw_places(places: Mapping[str, Places], title: str) -> bytes:
    """Draw a map of patch centres in a projection that is true to scale at its centre.

    Args:
      places: by split.
      title: title of the figure.
    """
    by_split = map_degrees(places)
    degrees = np.concatenate(list(by_split.values()))
    centre = (degrees.min(0) + degrees.max(0)) / 2
    aspect = 1 / max(np.cos(np.radians(centre[1])), 0.05)
    half = np.maximum((degrees.max(0) - degrees.min(0)) * 0.53, [0.02 * aspect, 0.02])
    ratio = float(np.clip(half[1] / half[0] * aspect, 0.4, 1.6))
    height = 7.64 * ratio + 0.75 + 0.23 * (len(places) + len(title.splitlines()))
    figure = Figure(figsize=(8.2, height), layout="constrained", dpi=DPI)
    axis = figure.subplots()
    size = float(np.clip(90 / np.sqrt(len(degrees)), 0.8, 7.0))
    # Interleaved, the smallest split last, so that no split hides another.
    largest_first = sorted(enumerate(by_split.values()), key=lambda numbered: -len(numbered[1]))
    for turn in range(20):
        for number, split_degrees in largest_first:
            first, last = (len(split_degrees) * n // 20 for n in (turn, turn + 1))
            longitude, latitude = split_degrees[first:last].T
            axis.plot(
                longitude, latitude, "o", markersize=size, markeredgewidth=0, color=colour(number)
            )
    axis.set_xlim(centre[0] - half[0], centre[0] + half[0])
    axis.set_ylim(centre[1] - half[1], centre[1] + half[1])
    axis.set_aspect(aspect)
    axis.set_xlabel("longitude (° east)")
    axis.set_ylabel("latitude (° north)")
    axis.ticklabel_format(useOffset=False)
    axis.grid(alpha=0.4)
    axis.set_title(title)
    handles = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            color=colour(number),
            label=_count(split, split_places),
        )
        for number, (split, split_places) in enumerate(places.items())
    ]
    figure.legend(handles=handles, loc="outside lower center", frameon=False)
    return figure_to_png(figure)


def _count(split: str, places: Places) -> str:
    missing = f", {places.unknown:,} without a place" if places.unknown else ""
    return f"{split}: {len(places.degrees):,} patches{missing}"
