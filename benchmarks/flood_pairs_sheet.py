"""Picture of simulated pairs: two rows without and one for each hard case; dry and flooded.

`python -m benchmarks.flood_pairs_sheet --picture=docs/flood_pairs.png`
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from scipy.ndimage import uniform_filter

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.decibel import db_to_linear, linear_to_db
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.plotting import figure_to_png
from tfds_builders.flood_pairs.cases import CYCLE, Case
from tfds_builders.flood_pairs.flood_simulator import DATES, Image, simulate_date

FLAGS = flags.FlagValues()
PICTURE = flags.DEFINE_string(
    "picture", "docs/flood_pairs.png", "picture to write", flag_values=FLAGS
)
SEED = flags.DEFINE_integer("seed", 1, "seed of the pairs", 0, flag_values=FLAGS)
SIZE = flags.DEFINE_integer("size", 256, "side of an image in pixels", 128, flag_values=FLAGS)

BAND = "VV"
SCALE_DB = (-23.0, -2.0)
CHANGE_DB = (-10.0, 10.0)
AVERAGED = 3  # pixels a side, in power, before the change is taken
TRUTH = {"land": "#dddddd", "water on both dates": "#0072b2", "flooded": "#e69f00"}
CASES = ("", *dict.fromkeys(CYCLE))  # two rows of plain ones
PANELS = ("before", "after", "change", "true water")
CAPTION = (
    f"Simulated {BAND} backscatter, 10 m pixels. The change is taken after averaging "
    f"{AVERAGED}x{AVERAGED} pixels in power."
)


def draw(seed: int, size: int, path: Path) -> None:
    """Draw the pairs and write the picture.

    Args:
      seed: random seed of the pairs.
      size: side of an image in pixels.
      path: path of the PNG.
    """
    figure = Figure(figsize=(16, 2.15 * len(CASES) + 1), layout="constrained", dpi=75)
    axes = figure.subplots(len(CASES), 2 * len(PANELS))
    for row, hard_case in enumerate(CASES):
        for flooded in (False, True):
            case = Case(flooded, hard_case)
            images = [
                simulate_date(size, (seed, 0, 2 * row + flooded), case, name) for name in DATES
            ]
            four = axes[row, len(PANELS) * flooded :][: len(PANELS)]
            grey, colour = _draw_pair(four, *images)
            four[0].set_ylabel(
                f"{hard_case or 'plain'}, {'flooded' if flooded else 'dry'}", size=11
            )
            share = f" ({100 * images[1].flooded_fraction:.1f} % flooded)" if flooded else ""
            for axis, panel in zip(four, PANELS, strict=True):
                axis.set(xticks=[], yticks=[], frame_on=False)
                axis.set_title(panel + (share if panel == PANELS[-1] else ""), size=9)
    half = len(PANELS)
    for image, label, part in (
        (grey, f"{BAND} (dB)", axes[:, :half]),
        (colour, f"change of {BAND} (dB)", axes[:, half:]),
    ):
        figure.colorbar(
            image,
            ax=list(part.flat),
            label=label,
            location="bottom",
            aspect=40,
            shrink=0.6,
            extend="both",
        )
    swatches = [Swatch(facecolor=colour, label=name) for name, colour in TRUTH.items()]
    figure.legend(handles=swatches, loc="outside upper center", ncols=len(TRUTH), frameon=False)
    figure.supxlabel(CAPTION, size=10)
    atomic_write(path, figure_to_png(figure))


def _draw_pair(axes: Sequence[Axes], before: Image, after: Image) -> tuple:
    """Fill the panels of a pair; return the images for the grey and the colour scale."""
    levels = [date.patch.backscatter[..., BANDS.index(BAND)] for date in (before, after)]
    for axis, level in zip(axes, levels, strict=False):
        grey = axis.imshow(level, cmap="gray", vmin=SCALE_DB[0], vmax=SCALE_DB[1])
    first, second = (uniform_filter(db_to_linear(level), AVERAGED) for level in levels)
    change = linear_to_db(second / first)
    colour = axes[2].imshow(change, cmap="PuOr_r", vmin=CHANGE_DB[0], vmax=CHANGE_DB[1])
    water = np.where(before.water, 1, 2 * after.water)
    axes[3].imshow(water, cmap=ListedColormap(list(TRUTH.values())), vmin=0, vmax=2)
    return grey, colour


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Draw the picture of the flags."""
    parse_flags(argv, FLAGS, __doc__)
    draw(SEED.value, SIZE.value, Path(PICTURE.value))
    print(f"{PICTURE.value}: {2 * len(CASES)} pairs")


if __name__ == "__main__":
    main(sys.argv)
