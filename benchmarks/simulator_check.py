"""Picture and statistics of real and simulated patches: values, speckle in homogeneous areas.

`python -m benchmarks.simulator_check --real=DIR --picture=docs/simulator.png`

The homogeneous areas of a patch are its windows of the highest equivalent number of looks (ENL).
This choice favours windows that are homogeneous by chance: an image of 4.4 looks has windows of 7
to 10. The numbers therefore compare patches with patches and are no estimate of a product's ENL.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch as Swatch
from numpy.lib.stride_tricks import sliding_window_view

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.decibel import db_to_linear
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR, figure_to_png
from tfds_builders.bigearthnet_s1.patch_files import read_patch
from tfds_builders.synthetic_s1.land_cover import CLASSES
from tfds_builders.synthetic_s1.simulator import Patch, simulate

WINDOW = 11  # pixels a side
STRIDE = 4  # pixels between windows
HOMOGENEOUS_FRACTION = 0.05  # of the windows of a patch


class HomogeneousAreas(NamedTuple):
    """Medians over the homogeneous areas of a patch.

    Attributes:
      looks: (band,) equivalent number of looks, mean² / variance of linear power.
      lag1: (band,) autocorrelation of linear power one pixel apart, rows and columns together.
      lag2: (band,) autocorrelation two pixels apart.
      between_bands: correlation of VH and VV power in windows that are homogeneous in both bands.
    """

    looks: np.ndarray
    lag1: np.ndarray
    lag2: np.ndarray
    between_bands: float


def speckle_in_homogeneous_areas(backscatter: np.ndarray) -> HomogeneousAreas:
    """Measure the speckle of a patch.

    Args:
      backscatter: (size, size, 2) dB, NaN = nodata; at least one window must be free of nodata.
    """
    power = np.moveaxis(db_to_linear(backscatter.astype(np.float64)), -1, 0)
    windows = sliding_window_view(power, (WINDOW, WINDOW), axis=(1, 2))[:, ::STRIDE, ::STRIDE]
    windows = windows.reshape(2, -1, WINDOW, WINDOW)
    windows = windows[:, np.isfinite(windows).all((0, 2, 3))]
    mean = windows.mean((2, 3), keepdims=True)
    deviation = windows - mean
    variance = np.square(deviation).mean((2, 3))
    looks = np.square(mean[..., 0, 0]) / variance
    count = max(1, int(HOMOGENEOUS_FRACTION * looks.shape[1]))
    order = np.argsort(-looks, axis=1)[:, :count]
    in_both = np.argsort(-looks.min(0))[:count]
    correlation = (deviation[0] * deviation[1]).mean((1, 2)) / np.sqrt(variance[0] * variance[1])

    def median(values: np.ndarray) -> np.ndarray:
        return np.median(np.take_along_axis(values, order, axis=1), axis=1)

    lag1, lag2 = (median(_autocorrelation(deviation, lag) / variance) for lag in (1, 2))
    return HomogeneousAreas(median(looks), lag1, lag2, float(np.median(correlation[in_both])))


def _autocorrelation(deviation: np.ndarray, lag: int) -> np.ndarray:
    """Return the (band, window) autocovariance of (band, window, row, column) deviations."""
    rows = (deviation[..., lag:, :] * deviation[..., :-lag, :]).mean((2, 3))
    columns = (deviation[..., lag:] * deviation[..., :-lag]).mean((2, 3))
    return (rows + columns) / 2


PERCENTS = (1, 5, 25, 50, 75, 95, 99)
UNREPRESENTED = (
    "Calm water",
    "Wind-roughened water",
    "Urban",
)  # the six real patches: one lake, no town
UNREPRESENTED_SHARE = 0.2


def resembles(patch: Patch) -> bool:
    """Return True if a patch has little water and town and no nodata, as the real ones."""
    unlike = np.isin(patch.land_cover, [list(CLASSES).index(name) for name in UNREPRESENTED]).mean()
    return bool(unlike < UNREPRESENTED_SHARE and np.isfinite(patch.backscatter).all())


def quantiles(patches: Sequence[np.ndarray]) -> np.ndarray:
    """Return quantiles of VH, VV and VV - VH in dB, medians over patches: (percent, 3)."""
    values = [np.nanpercentile(with_ratio(patch), PERCENTS, axis=(0, 1)) for patch in patches]
    return np.median(values, axis=0)


def with_ratio(patch: np.ndarray) -> np.ndarray:
    """Append VV - VH as a third band."""
    return np.concatenate([patch, patch[..., 1:] - patch[..., :1]], axis=-1)


FLAGS = flags.FlagValues()
REAL = flags.DEFINE_string(
    "real", None, "folder of patch folders, NAME/NAME_VV.tif", flag_values=FLAGS
)
OUT = flags.DEFINE_string("picture", "docs/simulator.png", "picture to write", flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 1, "seed of the simulated patches", flag_values=FLAGS)
PATCHES = flags.DEFINE_integer(
    "patches", 300, "simulated patches in the statistics", 20, flag_values=FLAGS
)

SHOWN = 6
SCALE_DB = {"VH": (-27.0, -8.0), "VV": (-21.0, -1.0)}  # ends of the grey scales
AXIS_DB = {"VH": (-42.0, 2.0), "VV": (-35.0, 8.0), "VV - VH": (-8.0, 24.0)}
REAL_COLOUR, SIMULATED_COLOUR, LIKE_COLOUR = "black", "tab:blue", "tab:red"
LIKE = "simulated, under 20 % water and town"
CAPTION = (
    "Real: six patches of BigEarthNet-S1; contains modified Copernicus Sentinel data 2017-2018. "
    "Simulated: the first six of a seed\nthat was chosen to show fields, a lake and the edge of "
    "the swath. Quantiles and speckle are medians over patches;\nhomogeneous areas are the 5 % of "
    "11x11 windows with the highest equivalent number of looks."
)


def read(folder: Path) -> list[np.ndarray]:
    """Read the patches below a folder: (size, size, 2) dB, bands VH, VV.

    Raises:
      InputError: there is none.
      BadFilesError: one cannot be read.
    """
    paths = sorted(folder.glob("*/*_VV.tif"))
    if not paths:
        raise InputError(f"--real {folder}: found no NAME/NAME_VV.tif, expected patch folders")
    return [read_patch(path.parent, BANDS).backscatter for path in paths]


def draw(real: Sequence[np.ndarray], simulated: Sequence[Patch], path: Path) -> None:
    """Draw real and simulated patches with their statistics and write the picture.

    Args:
      real: (size, size, 2) patches in dB.
      simulated: the first `SHOWN` are drawn, all are in the histograms.
      path: path of the PNG.
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
    atomic_write(path, figure_to_png(figure))


def _draw_patches(
    figure: FigureBase, real: Sequence[np.ndarray], simulated: Sequence[np.ndarray]
) -> None:
    """Draw two rows a band, real above simulated, on one grey scale."""
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
    """Draw a row per kind and band, a column per statistic."""
    rows = {}
    for kind, patches in (("real", real), ("simulated*", like)):
        percents = quantiles(patches)
        measured = [speckle_in_homogeneous_areas(patch) for patch in patches]
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
            *("ENL", "lag-1", "lag-2", "VH-VV corr."),
        ],
        loc="center",
        cellLoc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.45)
    axis.text(0.0, 0.0, f"* {LIKE}", size=10, transform=axis.transAxes)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Draw the picture of the flags."""
    parse_flags(argv, FLAGS, __doc__, {"real": "DIR"})
    real = read(Path(str(REAL.value)))
    simulated = [simulate(len(real[0]), (SEED.value, i)) for i in range(PATCHES.value)]
    draw(real, simulated, Path(OUT.value))
    print(f"{OUT.value}: {len(real)} real and {len(simulated)} simulated patches")


if __name__ == "__main__":
    main(sys.argv)
