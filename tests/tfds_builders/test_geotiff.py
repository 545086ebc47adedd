"""Reading GeoTIFFs: nodata, place, and every file that is none."""

import numpy as np
import pytest
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from tfds_builders.bad_files import BadFilesError
from tfds_builders.geotiff import (
    NO_GEOREFERENCE,
    Georeference,
    georeference,
    open_raster,
    pixel_spacing,
    read_band,
    same_grid,
    window_georeference,
    write_band,
    write_bands,
)


@pytest.fixture
def db() -> np.ndarray:
    return np.random.default_rng(0).normal(-15, 4, (120, 120)).astype(np.float32)


def read_file(path, **settings):
    with open_raster(path) as raster:
        return read_band(raster, 1, **settings)


def test_reads_what_was_written(tmp_path, db):
    write_band(tmp_path / "a.tif", db)
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif"), db)
    window = Window(10, 20, 30, 40)  # column, row, width, height
    part = read_file(tmp_path / "a.tif", window=window)
    np.testing.assert_array_equal(part, db[20:60, 10:40])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nodata", [-99.0, -9999.0, 0.0, np.nan, -3.4e38])
def test_tagged_nodata_becomes_nan(tmp_path, db, nodata, dtype):
    db[:5] = nodata
    write_band(tmp_path / "a.tif", db.astype(dtype), nodata=nodata)
    values = read_file(tmp_path / "a.tif")
    assert values.dtype == np.float32
    assert np.isnan(values[:5]).all()
    np.testing.assert_array_equal(values[5:], db[5:])


def test_nodata_that_is_only_told(tmp_path, db):
    db[7] = -9999.0
    write_band(tmp_path / "a.tif", db)
    assert np.isnan(read_file(tmp_path / "a.tif", nodata=-9999.0)[7]).all()
    assert (read_file(tmp_path / "a.tif")[7] == -9999.0).all()


def test_place_of_a_file_and_of_a_window(tmp_path, db):
    write_band(tmp_path / "a.tif", db, crs="EPSG:4326", transform=from_origin(10, 50, 2e-4, 1e-4))
    with open_raster(tmp_path / "a.tif") as raster:
        crs, transform = window_georeference(georeference(raster), row=40, column=5)
    assert crs == "EPSG:4326"
    longitude, latitude = Affine(*transform) * (0, 0)
    assert (longitude, latitude) == pytest.approx((10 + 5 * 2e-4, 50 - 40 * 1e-4), abs=1e-9)


def test_a_file_without_place(tmp_path, db):
    write_band(tmp_path / "a.tif", db, crs=None, transform=Affine.identity())
    with open_raster(tmp_path / "a.tif") as raster:
        assert georeference(raster) is NO_GEOREFERENCE


UTM = Georeference("EPSG:32633", (10.0, 0.0, 404_400.0, 0.0, -10.0, 5_342_400.0))


@pytest.mark.parametrize(
    ("east", "north", "same"), [(1e-4, 0, True), (0, 1e-3, True), (4, 0, False), (0, 10, False)]
)
def test_grids_are_compared_in_pixels_wherever_they_lie(east, north, same):
    a, b, c, d, e, f = UTM.transform
    assert same_grid(UTM, Georeference(UTM.crs, (a, b, c + east, d, e, f + north))) is same
    assert not same_grid(UTM, Georeference("EPSG:32634", UTM.transform))
    assert not same_grid(UTM, NO_GEOREFERENCE)
    assert same_grid(NO_GEOREFERENCE, NO_GEOREFERENCE)


def test_spacing_in_metres():
    assert pixel_spacing(UTM) == 10
    degrees = Georeference("EPSG:4326", (2e-4, 0, 10.0, 0, -1e-4, 50.0))
    assert pixel_spacing(degrees) == pytest.approx(11.1, abs=0.1)
    assert np.isnan(pixel_spacing(NO_GEOREFERENCE))


def test_integers_are_refused(tmp_path, db):
    write_band(tmp_path / "a.tif", db.astype(np.int16))
    with pytest.raises(BadFilesError, match="found int16 values, expected floating-point"):
        read_file(tmp_path / "a.tif")


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_truncated(tmp_path, db, keep):
    path = tmp_path / "a.tif"
    write_band(path, db)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadFilesError, match=r"a\.tif: cannot be read as a GeoTIFF"):
        read_file(path)


def test_a_file_kept_open_is_not_mistaken_for_its_successor(tmp_path, db):
    for shift in (0, 1):
        write_bands(tmp_path / "a.tif", np.stack([db + shift]), compress=["lzw", "none"][shift])
        with open_raster(tmp_path / "a.tif", keep_open=True) as raster:
            np.testing.assert_array_equal(read_band(raster, 1), db + shift)


def test_only_tiff_is_read_as_tiff(tmp_path, db):
    """Other formats of the raster library can name further files, and addresses on a network."""
    write_band(tmp_path / "real.tif", db)
    source = (
        '<SimpleSource><SourceFilename relativeToVRT="1">real.tif</SourceFilename></SimpleSource>'
    )
    band = f'<VRTRasterBand dataType="Float32" band="1">{source}</VRTRasterBand>'
    vrt = f'<VRTDataset rasterXSize="120" rasterYSize="120">{band}</VRTDataset>'
    (tmp_path / "x_VV.tif").write_text(vrt)
    with pytest.raises(BadFilesError, match="cannot be read as a GeoTIFF"):
        read_file(tmp_path / "x_VV.tif")
