"""Reading GeoTIFFs: nodata, place, and every file that is none."""

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
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
    unplaced_reason,
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
    """At the centre: 60 degrees north, where a degree of longitude is half one of latitude."""
    assert pixel_spacing(UTM, (100, 200)) == (10, 10)
    degrees = Georeference("EPSG:4326", (2e-4, 0, 10.0, 0, -1e-4, 60.01))
    assert pixel_spacing(degrees, (200, 100)) == pytest.approx((11.13, 11.13), rel=1e-3)
    turned = Georeference("EPSG:4326", (0, 2e-4, 10.0, 1e-4, 0, 59.99))
    assert pixel_spacing(turned, (100, 200)) == pytest.approx((11.13, 11.13), rel=1e-3)
    north = 6_378_137 * np.log(np.tan(np.radians(45 + 60 / 2)))
    mercator = Georeference("EPSG:3857", (20.0, 0, 1e6, 0, -40.0, north + 40 * 50))
    assert pixel_spacing(mercator, (100, 200)) == pytest.approx((20, 10), rel=1e-6)
    assert np.isnan(pixel_spacing(NO_GEOREFERENCE, (1, 1))).all()


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (np.uint8, "found uint8 values without .* pictures, masks and classes"),
        (np.uint16, "found uint16 values without .* need calibration"),
        (np.int16, "found int16 values without scale and offset tags.* set the tags"),
    ],
)
def test_integers_without_a_scale_are_refused(tmp_path, db, dtype, reason):
    write_band(tmp_path / "a.tif", np.abs(db).astype(dtype))
    with pytest.raises(BadFilesError, match=reason):
        read_file(tmp_path / "a.tif")


def test_integers_are_read_with_their_scale_and_offset(tmp_path, db):
    stored = np.round((db + 10) / 0.01).astype(np.int16)
    stored[:5] = -32768
    write_band(tmp_path / "a.tif", stored, nodata=-32768)
    with rasterio.open(tmp_path / "a.tif", "r+") as raster:
        raster.scales, raster.offsets = (0.01,), (-10.0,)
    values = read_file(tmp_path / "a.tif")
    assert np.isnan(values[:5]).all()
    np.testing.assert_allclose(values[5:], db[5:], atol=0.0051)
    told = read_file(tmp_path / "a.tif", nodata=-99999.5)  # no int16 is equal to it
    np.testing.assert_array_equal(told, values)


def write_mask(path, masks, flags, driver="GTiff"):
    """A file of masks as the library writes one beside an image."""
    write_bands(path, masks, crs=None, driver=driver)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(**{f"INTERNAL_MASK_FLAGS_{n + 1}": flags for n in range(len(masks))})


@pytest.mark.parametrize("layout", ["inside", "beside", "a mask a band"])
def test_masks_are_read_with_the_nodata_tag(tmp_path, db, layout):
    hidden = np.zeros((2, 120, 120), bool)
    hidden[:, 10:20, 30:50] = True
    bands = np.stack([db, db])
    bands[:, 0] = -99.0
    path = tmp_path / "a.tif"
    valid = np.where(hidden, 0, 255).astype(np.uint8)
    if layout == "inside":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_bands(path, bands, nodata=-99.0)
            with rasterio.open(path, "r+") as raster:
                raster.write_mask(valid[0])
    else:
        write_bands(path, bands, nodata=-99.0)
        if layout == "a mask a band":
            hidden[1, 10:20] = False
            valid = np.where(hidden, 0, 255).astype(np.uint8)
            write_mask(tmp_path / "a.tif.msk", valid, "0")
        else:
            write_mask(tmp_path / "a.tif.msk", valid[:1], "2")
    for band in (1, 2):
        with open_raster(path) as raster:
            part = read_band(raster, band, Window(20, 0, 60, 60))
        expected = np.where(hidden[band - 1], np.nan, bands[band - 1])
        expected[0] = np.nan
        np.testing.assert_array_equal(part, expected[:60, 20:80])


def test_a_mask_beside_a_file_is_no_way_to_other_files(tmp_path, db):
    """Only the pixels of a GeoTIFF of the right size are taken from it."""
    path, mask = tmp_path / "a.tif", tmp_path / "a.tif.msk"
    write_band(path, db)
    write_band(mask, np.zeros((60, 60), np.uint8))
    with pytest.raises(BadFilesError, match=r"a\.tif\.msk: found 1 masks of \(60, 60\) pixels"):
        read_file(path)
    write_band(tmp_path / "other.tif", np.zeros((120, 120), np.uint8))
    for source in (tmp_path / "other.tif", "/vsicurl/http://localhost:9/other.tif"):
        name = f"<SourceFilename>{source}</SourceFilename>"
        band = f"<SimpleSource>{name}</SimpleSource>"
        band = f'<VRTRasterBand dataType="Byte" band="1">{band}</VRTRasterBand>'
        mask.write_text(f'<VRTDataset rasterXSize="120" rasterYSize="120">{band}</VRTDataset>')
        with pytest.raises(BadFilesError, match=r"a\.tif\.msk: cannot be read as a GeoTIFF"):
            read_file(path)
    mask.unlink()
    mask.mkdir()
    np.testing.assert_array_equal(read_file(path), db)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>-15</NoDataValue><Scale>2</Scale>"
        "</PAMRasterBand></PAMDataset>"
    )
    np.testing.assert_array_equal(read_file(path), db)


def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path):
    (tmp_path / "a.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BadFilesError, match=r"found a Git LFS pointer.*git lfs pull"):
        read_file(tmp_path / "a.tif")


LOCAL = 'LOCAL_CS["radar geometry",UNIT["metre",1]]'


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"crs": rasterio.crs.CRS.from_wkt(LOCAL)}, "neither geographic nor projected"),
        ({"crs": None}, "no CRS"),
        ({"transform": Affine.identity()}, "no transform"),
        ({"crs": None, "transform": None, "gcps": True}, "ground control points only"),
        ({}, ""),
    ],
)
def test_places_that_are_unknown(tmp_path, db, settings, reason):
    if settings.pop("gcps", None):
        points = [GroundControlPoint(r, c, 10 + c, 50 - r) for r in (0, 9) for c in (0, 9)]
        settings = {"gcps": points, "crs": "EPSG:4326", "transform": Affine.identity()}
    write_band(tmp_path / "a.tif", db, **settings)
    with open_raster(tmp_path / "a.tif") as raster:
        place = georeference(raster)
        found = unplaced_reason(raster)
    assert reason in found
    assert bool(found) == bool(reason)
    assert np.isfinite(pixel_spacing(place, db.shape)).all() == (not reason)


@pytest.mark.parametrize(
    "wrong", [Affine.scale(np.nan), Affine.scale(np.inf), Affine(2, 2, 0, 1, 1, 0)]
)
def test_transforms_that_place_no_pixel_are_refused(tmp_path, db, wrong):
    write_band(tmp_path / "a.tif", db, transform=wrong)
    message = pytest.raises(BadFilesError, match=r"a\.tif.*found the transform .* expected finite")
    with open_raster(tmp_path / "a.tif") as raster, message:
        georeference(raster)


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
