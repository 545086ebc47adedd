"""Draws simulated patches beside real ones, with their histograms and statistics.

`python -m tfds_builders.synthetic_s1.compare --real=DIR --picture=docs/simulator.png`; DIR holds
patch folders as BigEarthNet has them: NAME/NAME_VV.tif and NAME/NAME_VH.tif, dB.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch as Swatch

from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.errors import InputError, UserError, fail, parse_flags
from sar_mixmae_jax.files import write_whole
from sar_mixmae_jax.pictures import NODATA_COLOUR, png
from tfds_builders.bigearthnet_s1.patch_folder import read_patch
from tfds_builders.synthetic_s1.calm_windows import calm
from tfds_builders.synthetic_s1.likeness import PERCENTS, quantiles, resembles, with_ratio
from tfds_builders.synthetic_s1.simulator import Patch, simulate

REAL = flags.DEFINE_string("real", None, "folder of patch folders, NAME/NAME_VV.tif")
OUT = flags.DEFINE_string("picture", "docs/simulator.png", "picture to write")
SEED = flags.DEFINE_integer("seed", 1, "of the simulated patches")
PATCHES = flags.DEFINE_integer("patches", 300, "simulated patches in the statistics", 20)

SHOWN = 6
SCALE_DB = {"VH": (-27.0, -8.0), "VV": (-21.0, -1.0)}  # ends of the grey scales
AXIS_DB = {"VH": (-42.0, 2.0), "VV": (-35.0, 8.0), "VV - VH": (-8.0, 24.0)}
REAL_COLOUR, SIMULATED_COLOUR, LIKE_COLOUR = "black", "tab:blue", "tab:red"
LIKE = "simulated, under 20 % water and town"
CAPTION = (
    "Real: six patches of BigEarthNet-S1; contains modified Copernicus Sentinel data 2017-2018. "
    "Simulated: the first six of a seed\nthat was chosen to show fields, a lake and the edge of "
    "the swath. Quantiles and calm windows are medians over patches;\ncalm windows are the 5 % of "
    "11x11 windows with the highest equivalent number of looks."
)


def read(folder: Path) -> list[np.ndarray]:
    """Patches below a folder: (size, size, 2) dB, bands VH, VV.

    Raises:
      InputError: there is none.
      BadFilesError: one cannot be read.
    """
    found = sorted(folder.glob("*/*_VV.tif"))
    if not found:
        raise InputError(f"--real {folder}: found no NAME/NAME_VV.tif, expected patch folders")
    return [read_patch(path.parent, BANDS).backscatter for path in found]


def draw(real: Sequence[np.ndarray], simulated: Sequence[Patch], path: Path) -> None:
    """Writes the picture.

    Args:
      real: patches, (size, size, 2) dB.
      simulated: the first are shown, all are in the histograms.
      path: a PNG.
    """
    everything = [patch.backscatter for patch in simulated]
    like = [patch.backscatter for patch in simulated if resembles(patch)]
    figure = Figure(figsize=(14, 15.6), layout="constrained", dpi=100)
    grid = figure.add_gridspec(3, 1, height_ratios=(9.6, 3.2, 2.5))
    top, middle, bottom = (figure.add_subfigure(grid[row]) for row in range(3))
    _draw_patches(top, real[:SHOWN], everything[:SHOWN])
    _draw_histograms(middle, real, everything, like)
    _draw_table(bottom.subplots(), real, like)
    figure.suptitle("Real and simulated Sentinel-1 patches, 1.2 km x 1.2 km, 10 m pixels", size=15)
    figure.supxlabel(CAPTION, size=9)
    write_whole(path, png(figure))


def _draw_patches(
    figure: FigureBase, real: Sequence[np.ndarray], simulated: Sequence[np.ndarray]
) -> None:
    """Two rows a band, real over simulated, on one grey scale."""
    grey = colormaps["gray"].with_extremes(bad=NODATA_COLOUR)
    axes = figure.subplots(4, SHOWN, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for band, name in enumerate(BANDS):
        rows = axes[2 * band : 2 * band + 2]
        low, high = SCALE_DB[name]
        for row, kind, patches in zip(rows, ("real", "simulated"), (real, simulated), strict=True):
            row[0].set_ylabel(f"{name}, {kind}", size=12)
            for axis, patch in zip(row, patches, strict=False):
                image = axis.imshow(
                    patch[..., band], cmap=grey, vmin=low, vmax=high, interpolation="nearest"
                )
        figure.colorbar(image, ax=list(rows.flat), label=f"{name} (dB)", extend="both", aspect=35)
    swatch = Swatch(facecolor=NODATA_COLOUR, label="nodata")
    figure.legend(handles=[swatch], loc="outside lower right", frameon=False)


def _draw_histograms(
    figure: FigureBase,
    real: Sequence[np.ndarray],
    simulated: Sequence[np.ndarray],
    like: Sequence[np.ndarray],
) -> None:
    sets = (
        (f"real, {len(real)} patches", real, {"color": REAL_COLOUR, "lw": 1.6}),
        (f"simulated, {len(simulated)} patches", simulated, {"color": SIMULATED_COLOUR}),
        (f"{LIKE}, {len(like)}", like, {"color": LIKE_COLOUR, "ls": "--"}),
    )
    for index, (axis, (name, limits)) in enumerate(
        zip(figure.subplots(1, 3), AXIS_DB.items(), strict=True)
    ):
        bins = np.arange(limits[0], limits[1] + 0.1, 0.5)
        for label, patches, style in sets:
            values = np.concatenate([with_ratio(patch)[..., index].ravel() for patch in patches])
            axis.hist(values, bins, density=True, histtype="step", label=label, **style)
        axis.set(xlabel=f"{name} (dB)", xlim=limits)
        axis.spines[["top", "right"]].set_visible(False)
        if index == 0:
            axis.set_ylabel("share of pixels per dB")
            figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _draw_table(axis: Axes, real: Sequence[np.ndarray], like: Sequence[np.ndarray]) -> None:
    """A row per kind and band, a column per statistic."""
    rows = {}
    for kind, patches in (("real", real), ("simulated*", like)):
        percents = quantiles(patches)
        measured = [calm(patch) for patch in patches]
        looks, lag1, lag2 = (np.median([m[field] for m in measured], axis=0) for field in range(3))
        between = np.median([m.between_bands for m in measured])
        for band, name in enumerate(AXIS_DB):
            cells = [f"{value:.1f}" for value in percents[:, band]]
            if name in BANDS:
                cells += [f"{looks[band]:.1f}", f"{lag1[band]:.2f}", f"{lag2[band]:.2f}", ""]
            else:
                cells += ["", "", "", f"{between:.2f}"]
            rows[name, kind] = cells
    keys = sorted(rows, key=lambda key: list(AXIS_DB).index(key[0]))
    axis.axis("off")
    table = axis.table(
        [rows[key] for key in keys],
        rowLabels=[f"{name}, {kind}" for name, kind in keys],
        colLabels=[
            *(f"{percent} % (dB)" for percent in PERCENTS),
            *("calm: looks", "lag-1", "lag-2", "VH-VV corr."),
        ],
        loc="center",
        cellLoc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.45)
    axis.text(0.0, 0.0, f"* {LIKE}", size=10, transform=axis.transAxes)


def main(argv: Sequence[str]) -> None:
    """Draws what the flags name."""
    try:
        if len(argv) > 1 or not REAL.value:
            raise InputError("found no --real, expected a folder of real patches: --real=DIR")
        real = read(Path(REAL.value))
        simulated = [simulate(len(real[0]), (SEED.value, i)) for i in range(PATCHES.value)]
        draw(real, simulated, Path(OUT.value))
    except UserError as error:
        fail(error)
    print(f"{OUT.value}: {len(real)} real and {len(simulated)} simulated patches")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
