"""Figures of a survey: histograms, labels, places. Each is returned as the bytes of a PNG."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sar_mixmae_jax.pictures import png
from tfds_builders.inspect.places import Places
from tfds_builders.inspect.survey import BINS_PER_DB, EDGES, Survey, percentiles

DPI = 110
COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:purple", "tab:brown", "tab:olive")
"""Of the splits, in their order."""

MOST_ANNOTATED = 50
"""Classes up to which every cell of the matrix has its number."""


def colour(number: int) -> str:
    """Of a split by its number."""
    return COLOURS[number % len(COLOURS)]


def histograms(
    surveys: Mapping[str, Survey],
    bands: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
) -> bytes:
    """Density of every band and split on a linear and on a logarithmic axis.

    Args:
      surveys: by split.
      bands: names of the bands.
      mean: with which training standardises, dB.
      std: the same.
      title: of the figure.
    """
    figure = Figure(figsize=(5.0 * len(bands), 7.2), layout="constrained", dpi=DPI)
    axes = figure.subplots(2, len(bands), squeeze=False, sharex="col")
    figure.suptitle(title)
    for band, name in enumerate(bands):
        top, bottom = axes[:, band]
        for number, (split, found) in enumerate(surveys.items()):
            inside = found.histogram[band, 1:-1]
            density = inside / max(found.histogram[band].sum(), 1) * BINS_PER_DB
            width = 1.0 + 0.7 * (len(surveys) - 1 - number)  # so that those below are seen
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
        if any(found.histogram[band].any() for found in surveys.values()):
            bottom.set_yscale("log")
        bottom.set_xlabel(f"{name} backscatter (dB)")
        bottom.set_xlim(_range(surveys, band))
    handles, _ = axes[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.45", linestyle="--", label="mean used by training"))
    handles.append(Line2D([], [], color="0.9", linewidth=8, label="± deviation used by training"))
    columns = len(handles) if len(handles) <= 5 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return png(figure)


def _range(surveys: Mapping[str, Survey], band: int) -> tuple[float, float]:
    """From the lowest to the highest value of any split, without a millionth at either end."""
    ends = [percentiles(found, band, (1e-4, 100 - 1e-4)) for found in surveys.values()]
    if not np.isfinite(ends).any():
        return float(EDGES[0]), float(EDGES[-1])
    return float(np.nanmin(ends)) - 1.0, float(np.nanmax(ends)) + 1.0


def labels(surveys: Mapping[str, Survey], classes: Sequence[str], title: str) -> bytes:
    """How often labels occur in every split, and how often together, all splits joined.

    Args:
      surveys: by split.
      classes: names of the labels.
      title: of the figure.
    """
    names = [
        "\n".join(textwrap.wrap(f"{number}  {name}", 46)) for number, name in enumerate(classes, 1)
    ]
    together = sum(found.together for found in surveys.values())
    counts = np.diagonal(together)
    with np.errstate(invalid="ignore"):
        shares = 100.0 * together / counts[:, None]
    side = max(4.0, 0.42 * len(classes))
    figure = Figure(figsize=(side + 7.5, side + 1.6), layout="constrained", dpi=DPI)
    figure.suptitle(title)
    bars, matrix = figure.subplots(1, 2, sharey=True, width_ratios=(2.6, side))
    _bars(bars, surveys, names)
    np.fill_diagonal(shares, np.nan)  # 100 everywhere: it says nothing
    highest = 10 * np.ceil(np.max(shares, initial=10, where=np.isfinite(shares)) / 10)
    colours = colormaps["viridis"].with_extremes(bad="0.9")
    # not "equal": the rows must stay beside the bars
    image = matrix.imshow(shares, cmap=colours, vmin=0, vmax=highest, aspect="auto")
    numbers = range(1, len(classes) + 1)
    matrix.set_xticks(range(len(classes)), [str(number) for number in numbers], fontsize=8)
    matrix.set_xlabel("label (numbers as on the left; grey: itself, or no patch has the row's)")
    matrix.set_title("Share of patches with the row's label that have the column's too")
    if len(classes) <= MOST_ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                shade = "black" if share > 0.6 * highest else "white"
                matrix.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=shade
                )
    figure.colorbar(image, ax=matrix, label="share of patches (%)", pad=0.01, aspect=30)
    return png(figure)


def _bars(axis: Axes, surveys: Mapping[str, Survey], names: Sequence[str]) -> None:
    """Share of the patches of each split that have a label."""
    height = 0.8 / len(surveys)
    for number, (split, found) in enumerate(surveys.items()):
        share = 100.0 * np.diagonal(found.together) / max(found.records, 1)
        rows = np.arange(len(names)) - 0.4 + height * (number + 0.5)
        axis.barh(rows, share, height, color=colour(number), label=split)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("share of patches (%)")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    axis.figure.legend(loc="outside lower left", ncols=len(surveys), frameon=False)


def places(found: Mapping[str, Places], title: str) -> bytes:
    """A map of patch centres, longitude shrunk as it is at their latitude.

    Args:
      found: by split.
      title: of the figure.
    """
    every = np.concatenate([one.degrees for one in found.values()])
    centre = (every.min(0) + every.max(0)) / 2
    aspect = 1 / max(np.cos(np.radians(centre[1])), 0.05)
    half = np.maximum((every.max(0) - every.min(0)) * 0.53, [0.02 * aspect, 0.02])
    ratio = float(np.clip(half[1] / half[0] * aspect, 0.4, 1.6))
    height = 7.64 * ratio + 0.75 + 0.23 * (len(found) + len(title.splitlines()))
    figure = Figure(figsize=(8.2, height), layout="constrained", dpi=DPI)
    axis = figure.subplots()
    size = float(np.clip(90 / np.sqrt(len(every)), 0.8, 7.0))
    # by turns, so that no split hides another
    for turn in range(20):
        for number, one in enumerate(found.values()):
            longitude, latitude = one.degrees[turn::20].T
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
        Line2D([], [], marker="o", linestyle="", color=colour(number), label=_count(split, one))
        for number, (split, one) in enumerate(found.items())
    ]
    figure.legend(handles=handles, loc="outside lower center", frameon=False)
    return png(figure)


def _count(split: str, one: Places) -> str:
    lacking = f", {one.unknown:,} more without a place" if one.unknown else ""
    return f"{split}: {len(one.degrees):,} patches{lacking}"
