"""Statistics of scenes, and warnings about exchanged bands, other values, mixed processing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.data.metadata import SPACING_RATIO
from tfds_builders import geotiff, units
from tfds_builders.finalize import CROSS_AND_CO
from tfds_builders.s1_folder.scenes import Scene

BLOCK = 8
"""Side in pixels of the windows that the number of looks is estimated in."""
SAMPLED_ROWS = 64
"""Rows of such windows in a scene, spread evenly, that moments and looks are computed from."""
LOOKS_PERCENTILE = 90
"""Percentile over windows that is the number of looks of a scene: the calmest have no texture."""

MEAN_DB = {"VV": (-27.0, -3.0), "HH": (-27.0, -3.0), "VH": (-38.0, -7.0), "HV": (-38.0, -7.0)}
"""Range of the mean of a scene, dB: from calm water to a city, with a margin."""
DEVIATION_DB = (0.5, 12.0)
"""Range of the deviation of a scene, dB: speckle of 75 looks, and more than any landscape has."""
LOOKS_RATIO = 4.0
"""Ratio of the numbers of looks of two scenes above which they were processed differently."""
MAX_NAMED = 5
"""Number of files that a warning names."""


class BandMeasures(NamedTuple):
    """Statistics of a band of a scene, without zeros and nodata; NaN where they are unknown.

    Attributes:
      minimum: smallest value in the unit of the scene.
      maximum: largest value.
      mean: mean, dB.
      deviation: standard deviation, dB.
      looks: equivalent number of looks.
    """

    minimum: float
    maximum: float
    mean: float
    deviation: float
    looks: float


class SceneMeasures:
    """Statistics of the bands of a scene that is read in strips.

    Attributes:
      summaries: summary of every band, of all pixels but zeros.
    """

    def __init__(self, bands: int, unit: str, shape: tuple[int, int]) -> None:
        """Begin without pixels."""
        self._unit, self._rows = unit, shape[0]
        self.summaries = [units.EMPTY_SUMMARY] * bands
        self._sums = np.zeros((bands, 3))  # pixels, sum of dB, sum of squares
        self._looks: list[list[np.ndarray]] = [[] for _ in range(bands)]

    def add(self, strip: np.ndarray) -> None:
        """Add (rows, columns, band) values in the unit of the scene, NaN = nodata."""
        rows, columns = (length // BLOCK for length in strip.shape[:2])
        wanted = max(1, round(SAMPLED_ROWS * len(strip) / self._rows))
        chosen = np.arange(0, rows, max(1, rows // wanted))
        for band, summary in enumerate(self.summaries):
            values = strip[..., band]
            measured = values if values.all() else values[values != 0]
            self.summaries[band] = summary + units.summarise(measured)
            whole = values[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
            blocks = whole[chosen].swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)
            with np.errstate(all="ignore"):
                if self._unit == "dB":
                    db, power = blocks, units.db_to_linear(blocks.astype(np.float64))
                else:
                    db, power = units.linear_to_db(blocks), blocks.astype(np.float64)
                looks = np.square(power.mean(1)) / power.var(1)
            db = db[np.isfinite(db) & (blocks != 0)].astype(np.float64)
            self._sums[band] += (db.size, db.sum(), np.square(db).sum())
            self._looks[band].append(looks[np.isfinite(looks) & (blocks != 0).all(1)])

    def of_bands(self) -> tuple[BandMeasures, ...]:
        """Return the measures of every band."""
        measures = []
        for summary, (count, total, squares), parts in zip(
            self.summaries, self._sums, self._looks, strict=True
        ):
            mean = total / count if count else np.nan
            deviation = np.sqrt(max(squares / count - mean**2, 0.0)) if count else np.nan
            looks = np.concatenate([np.empty(0), *parts])
            level = np.percentile(looks, LOOKS_PERCENTILE) if looks.size else np.nan
            measures.append(
                BandMeasures(
                    summary.minimum, summary.maximum, float(mean), float(deviation), float(level)
                )
            )
        return tuple(measures)


def find_warnings(
    scenes: Sequence[Scene], measures: Sequence[tuple[BandMeasures, ...]]
) -> list[str]:
    """Return one warning for each thing that is implausible, with the files and their numbers.

    Args:
      scenes: the scenes.
      measures: of the bands of every scene.
    """
    exchanged, implausible, looks = [], [], {}
    for scene, of_bands in zip(scenes, measures, strict=True):
        by_band = dict(zip(scene.bands, of_bands, strict=True))
        files = dict(zip(scene.bands, (layer.path for layer in scene.layers), strict=True))
        for cross, co in CROSS_AND_CO:
            if cross in by_band and co in by_band and by_band[cross].mean > by_band[co].mean:
                exchanged.append(
                    f"{files[cross]} ({cross} {by_band[cross].mean:.1f} dB, {co} "
                    f"{by_band[co].mean:.1f} dB)"
                )
        implausible += [
            f"{files[band]} ({band}: {reason})"
            for band, each in by_band.items()
            if (reason := _implausible(band, each, scene.unit))
        ]
        looks[files[scene.bands[0]]] = float(np.median([each.looks for each in of_bands]))
    warnings = []
    if exchanged:
        warnings.append(
            f"cross-polarised brighter than co-polarised, exchanged? {_list(exchanged)}"
        )
    if implausible:
        warnings.append(f"values that no surface has, is this backscatter? {_list(implausible)}")
    return [
        f"warning: {text}" for text in [*warnings, *_mixed_looks(looks), *_mixed_pixels(scenes)]
    ]


def _implausible(band: str, measures: BandMeasures, unit: str) -> str:
    """Return the reason why the values of a band are no backscatter; "" if they may be."""
    lowest, highest = MEAN_DB[band]
    if unit == "linear" and measures.minimum >= 0 and 0.99 <= measures.maximum <= 1:
        return f"from {measures.minimum:.3g} to {measures.maximum:.3g}, as after stretching to 0..1"
    if measures.mean < lowest or measures.mean > highest:
        return f"mean {measures.mean:.1f} dB, expected {lowest:g} to {highest:g}"
    least, most = DEVIATION_DB
    if measures.deviation < least or measures.deviation > most:
        return f"deviation {measures.deviation:.2g} dB, expected {least:g} to {most:g}"
    return ""


def _mixed_looks(looks: Mapping[str, float]) -> list[str]:
    """Return a warning if the numbers of looks, by file, differ too much."""
    known = {file: value for file, value in looks.items() if np.isfinite(value) and value > 0}
    if not known:
        return []
    few, many = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[many] <= LOOKS_RATIO * known[few]:
        return []
    return [
        f"numbers of looks are mixed, of a speckle filter or other multilooking: {few} "
        f"({known[few]:.1f}), {many} ({known[many]:.1f})"
    ]


def pixel_spacings(scenes: Sequence[Scene]) -> dict[tuple[float, float], str]:
    """Return the distances of (rows, columns) in metres, to two digits, and a scene of each."""
    spacings = {}
    for scene in scenes:
        rows, columns = geotiff.pixel_spacing(scene.georeference, scene.shape)
        if np.isfinite((rows, columns)).all():
            spacings[scene.name] = (float(f"{rows:.2g}"), float(f"{columns:.2g}"))
    return {size: name for name, size in sorted(spacings.items(), key=lambda item: item[::-1])}


def _mixed_pixels(scenes: Sequence[Scene]) -> list[str]:
    """Return a warning if the pixels of the scenes differ in size."""
    spacings = pixel_spacings(scenes)
    sides = np.array([*spacings])
    if len(sides) < 2 or (sides.max(0) <= SPACING_RATIO * sides.min(0)).all():
        return []
    sizes = _list([f"{r:g}" if r == c else f"{c:g} x {r:g}" for r, c in spacings])
    examples = ", ".join(list(spacings.values())[:MAX_NAMED])
    return [
        f"pixels of {sizes} m (width x height) are mixed ({examples}): speckle and texture differ "
        "between them"
    ]


def _list(entries: Sequence[str]) -> str:
    """Return the first entries, and the number of the others."""
    more = len(entries) - MAX_NAMED
    return ", ".join(entries[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
