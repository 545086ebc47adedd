"""Read scenes of any size by windows, with the nodata of every band; usable without a build.

    reader = SceneReader(root, scene, NodataSettings(), Path("zeros.npy"))
    survey = survey_pixels(reader)          # reads every pixel once, in strips; writes zeros.npy
    image = reader.read_db(Window(column, row, width, height))  # (rows, columns, band) dB, NaN

`scenes.group_into_scenes` makes scenes of the files of a folder. Memory: a strip of pixels, and the
masks of zeros at one bit per pixel and band, compressed.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window

from sar_mixmae_jax.utils.files import create_array, report_write_errors
from tfds_builders import geotiff, units
from tfds_builders.bad_files import bad_file
from tfds_builders.s1_folder import gcps
from tfds_builders.s1_folder.measures import BandMeasures, SceneMeasures
from tfds_builders.s1_folder.scenes import Layer, Scene
from tfds_builders.zero_regions import (
    Strips,
    border_zeros_in_strips,
    grow,
    zero_blocks_in_strips,
)

STRIP_PIXELS = 2 * 2**20
"""Number of pixels per band that are read at once."""


@dataclasses.dataclass(frozen=True)
class NodataSettings:
    """Pixels that mean nodata besides NaN, tagged values, and the masks of the files.

    Attributes:
      value: stored value that means nodata; None: none.
      mask: GeoTIFF of valid pixels: nodata where it is 0, or nodata, or ends; None: none.
      zero_block: zeros of a band are nodata in regions that hold a square of them with this side
        in pixels, wherever they lie; 0: only in regions that are connected to the frame's edge.
      erode_border: number of pixels beside such zeros, and beside other nodata at the frame's edge,
        that are nodata too.
    """

    value: float | None = None
    mask: Path | None = None
    zero_block: int = 16
    erode_border: int = 0


class ZeroCounts(NamedTuple):
    """Numbers of pixels, summed over the bands, that became nodata.

    Attributes:
      border: zeros in regions that are connected to the frame's edge.
      blocks: zeros in other regions that hold a square of them.
      scattered: other zeros of dB files, see `_zeros_in_db`.
      eroded: pixels beside all of them, and beside other nodata at the frame's edge.
    """

    border: int = 0
    blocks: int = 0
    scattered: int = 0
    eroded: int = 0


class PixelSurvey(NamedTuple):
    """Result of reading all pixels of a scene.

    Attributes:
      missing: mask of the pixels that are nodata in at least one band.
      zeros: numbers of zeros that became nodata.
      measures: measures of every band.
    """

    missing: Strips
    zeros: ZeroCounts
    measures: tuple[BandMeasures, ...]


@dataclasses.dataclass(frozen=True)
class SceneReader:
    """Windows of a scene.

    Attributes:
      root: folder of the files.
      scene: the scene.
      nodata: further nodata.
      zeros: path of the file that `survey_pixels` writes: the pixels of every band that are nodata
        because of zeros, as packed bits (row, band, column); absent if there are none.
    """

    root: Path
    scene: Scene
    nodata: NodataSettings
    zeros: Path

    def read_db(self, window: Window) -> np.ndarray:
        """Return a window: (rows, columns, band) float32 dB, NaN = nodata of the band.

        Raises:
          BadFilesError: a file cannot be read.
        """
        return units.to_db(self.read_measured(window), self.scene.unit)

    def read_measured(self, window: Window) -> np.ndarray:
        """Return a window in the unit of the scene; see `read_db`."""
        values = self.read_stored(window)
        if self.zeros.exists():
            top, left = window.row_off, window.col_off
            packed = np.load(self.zeros, mmap_mode="r")[top : top + window.height]
            bits = np.unpackbits(packed, axis=2)[..., left : left + window.width]
            values[np.moveaxis(bits, 1, 2).astype(bool)] = np.nan
        return values

    def read_stored(self, window: Window) -> np.ndarray:
        """Return a window in the unit of the scene, with zeros as they are stored.

        The pixels of a band are contiguous, as most readers take band by band.
        """
        bands = np.stack([self._read_layer(layer, window) for layer in self.scene.layers])
        values = np.moveaxis(bands, 0, -1)
        if self.nodata.mask is not None:
            values[~read_valid(self.nodata.mask, self.scene, window)] = np.nan
        return values

    def _read_layer(self, layer: Layer, window: Window) -> np.ndarray:
        with geotiff.open_raster(self.root / layer.path, keep_open=True) as raster:
            if self.scene.uses_gcps:
                grid = gcps.GroundGrid(self.scene.shape, self.scene.georeference)
                return gcps.read_band(raster, layer.number, grid, window, self.nodata.value)
            return geotiff.read_band(raster, layer.number, window, self.nodata.value)

    def strips(self) -> Iterator[np.ndarray]:
        """Yield `read_stored` from top to bottom.

        Raises:
          BadFilesError: a file cannot be read.
        """
        rows, columns = self.scene.shape
        height = max(1, STRIP_PIXELS // columns)
        for top in range(0, rows, height):
            yield self.read_stored(Window(0, top, columns, min(height, rows - top)))

    def paths(self) -> list[Path]:
        """Return the paths of the files that are read, and of masks that may lie beside them."""
        paths = [self.root / layer.path for layer in self.scene.layers]
        masks = [path.with_name(path.name + ".msk") for path in paths]
        return [
            *paths,
            *(path for path in masks if path.exists()),
            *filter(None, [self.nodata.mask]),
        ]


def survey_pixels(reader: SceneReader, *, may_be_empty: bool = False) -> PixelSurvey:
    """Read all pixels of a scene once, and find the zeros that mean nodata.

    Zeros of a band are nodata in regions of zeros or nodata of this band that are connected to the
    frame's edge, and in regions of zeros that hold a square of `zero_block` pixels a side. Pixels
    are connected to their eight neighbours. In dB, exact zeros of floating-point files are nodata
    wherever they lie.

    Args:
      reader: reader of the scene; its file of zeros is written.
      may_be_empty: accept bands without a measurement.

    Raises:
      BadFilesError: the scene cannot be read, or is not backscatter.
      InputError: the file of zeros cannot be written.
    """
    scene, settings = reader.scene, reader.nodata
    count = len(scene.layers)
    nan, zero = ([Strips() for _ in range(count)] for _ in range(2))
    measures = SceneMeasures(count, scene.unit, scene.shape)
    for values in reader.strips():
        measures.add(values)
        for band in range(count):
            nan[band].append(np.isnan(values[..., band]))
            zero[band].append(values[..., band] == 0)
    for layer, summary in zip(scene.layers, measures.summaries, strict=True):
        if may_be_empty and not summary.valid:
            continue
        if reason := units.find_unit_error(summary, scene.unit):
            raise bad_file(reader.root / layer.path, reason)
    everywhere = _zeros_in_db(reader, zero)
    found = [_find_zeros(*masks, settings) for masks in zip(nan, zero, everywhere, strict=True)]
    masks = [mask for mask, _ in found]
    reader.zeros.unlink(missing_ok=True)
    if any(mask.any() for mask in masks):
        _write_zeros(reader.zeros, scene.shape, masks)
    missing = Strips(np.any([*parts], axis=0) for parts in zip(*nan, *masks, strict=True))
    counts = ZeroCounts(*(sum(column) for column in zip(*(c for _, c in found), strict=True)))
    return PixelSurvey(missing, counts, measures.of_bands())


def _zeros_in_db(reader: SceneReader, zero: list[Strips]) -> list[Strips]:
    """Return the zeros of every band that are nodata wherever they lie, as 0 dB is bright.

    A floating-point measurement is never exactly 0 dB: such zeros replace NaN. A scaled integer may
    be, but not in two bands of a pixel.
    """
    nothing = Strips(np.zeros_like(strip) for strip in zero[0])
    if reader.scene.unit != "dB" or not any(band.any() for band in zero):
        return [nothing] * len(zero)
    common = nothing
    if len(zero) > 1:
        common = Strips(np.all(strips, axis=0) for strips in zip(*zero, strict=True))
    everywhere = []
    for layer, band in zip(reader.scene.layers, zero, strict=True):
        with geotiff.open_raster(reader.root / layer.path, keep_open=True) as raster:
            is_floating = geotiff.is_floating(raster.dtypes[layer.number - 1])
        everywhere.append(band if is_floating else common)
    return everywhere


def _find_zeros(
    nan: Strips, zero: Strips, everywhere: Strips, settings: NodataSettings
) -> tuple[Strips, ZeroCounts]:
    """Return the pixels of a band that are nodata because of zeros, and their numbers.

    Args:
      nan: other nodata of the band.
      zero: zeros of the band.
      everywhere: zeros that are nodata wherever they lie.
      settings: settings of the scene.
    """
    nothing = Strips(np.zeros_like(strip) for strip in zero)
    if not zero.any() and not (nan.any() and settings.erode_border):
        return nothing, ZeroCounts()
    edge = border_zeros_in_strips(_union(nan, zero))
    border = Strips(a & b for a, b in zip(edge, zero, strict=True))
    blocks = nothing
    if settings.zero_block:
        inside = Strips(a & ~b for a, b in zip(zero, border, strict=True))
        blocks = zero_blocks_in_strips(inside, settings.zero_block)
    regions = _union(border, blocks)
    found = _union(regions, everywhere)
    counts = ZeroCounts(border.sum(), blocks.sum(), found.sum() - regions.sum())
    if not settings.erode_border:
        return found, counts
    grown = grow(_union(edge, found), settings.erode_border)
    wider = Strips(a & ~b for a, b in zip(_union(found, grown), nan, strict=True))
    return wider, counts._replace(eroded=wider.sum() - found.sum())


def _union(first: Strips, second: Strips) -> Strips:
    return Strips(a | b for a, b in zip(first, second, strict=True))


def _write_zeros(path: Path, shape: tuple[int, int], masks: list[Strips]) -> None:
    """Write the masks of all bands as packed bits (row, band, column), a strip at a time.

    Raises:
      InputError: the file cannot be written.
    """
    rows, columns = shape
    with report_write_errors(path):
        file = create_array(path, (rows, len(masks), -(-columns // 8)), np.uint8)
    top = 0
    for strips in zip(*masks, strict=True):
        height = len(strips[0])
        for band, strip in enumerate(strips):
            file[top : top + height, band] = np.packbits(strip, axis=1)
        top += height
    file.flush()


def read_valid(mask: Path, scene: Scene, window: Window) -> np.ndarray:
    """Return the valid pixels of a window of a scene by a mask, taken from the nearest pixel.

    Args:
      mask: GeoTIFF of one band: 0 and nodata are not valid.
      scene: the scene.
      window: part of the scene.

    Raises:
      BadFilesError: the mask cannot be read, or has neither the grid of the scene nor a CRS.
    """
    with geotiff.open_raster(mask, keep_open=True) as raster:
        place = geotiff.georeference(raster)
        same_shape = raster.shape == scene.shape
        if same_shape and geotiff.same_grid(place, scene.georeference):
            values = raster.read(1, window=window, masked=True)
        elif place.crs and scene.georeference.crs:
            values = _warp(raster, scene, window)
        elif same_shape and not (place.crs or scene.georeference.crs):
            values = raster.read(1, window=window, masked=True)
        else:
            raise bad_file(
                mask,
                f"found {raster.shape} pixels and {'a' if place.crs else 'no'} CRS, expected the "
                f"{scene.shape} pixels of {scene.name}, or a CRS in both files: resample the mask",
            )
    known = ~np.ma.getmaskarray(values) & ~np.isnan(values.data.astype(np.float32))
    return known & (values.data != 0)


def _warp(mask: DatasetReader, scene: Scene, window: Window) -> np.ma.MaskedArray:
    """Return a mask on a window of a scene; NaN outside of the mask and where it is nodata.

    With 0 in place of NaN, GDAL 3.12 changes the zeros of the mask to the next number.
    """
    place = geotiff.window_georeference(scene.georeference, window.row_off, window.col_off)
    values = np.full((window.height, window.width), np.nan, np.float32)
    reproject(
        rasterio.band(mask, 1),
        values,
        dst_transform=Affine(*place.transform),
        dst_crs=CRS.from_string(place.crs),
        dst_nodata=np.nan,
        resampling=Resampling.nearest,
        tolerance=0.0,
    )
    return np.ma.masked_array(values)
