"""Reading bands, and every bad file: the message says what was found, expected, and what to do."""

import numpy as np
import pytest

from sar_mixmae_jax.errors import InputError
from tfds_builders.geotiff import check_unit, find_bands, read_band, read_patch, write_band


@pytest.fixture
def db() -> np.ndarray:
    return np.random.default_rng(0).normal(-15, 4, (120, 120)).astype(np.float32)


def test_reads_what_was_written(tmp_path, db):
    write_band(tmp_path / "a.tif", db)
    np.testing.assert_array_equal(read_band(tmp_path / "a.tif", size=120), db)


def test_tagged_nodata_becomes_nan(tmp_path, db):
    db[:5] = -99.0
    write_band(tmp_path / "a.tif", db, nodata=-99.0)
    values = read_band(tmp_path / "a.tif", size=120)
    assert np.isnan(values[:5]).all()
    assert np.isfinite(values[5:]).all()


@pytest.fixture
def patch_folder(tmp_path):
    (tmp_path / "x").mkdir()
    return tmp_path / "x"


def test_bands_go_by_name_not_by_order(patch_folder, db):
    write_band(patch_folder / "x_VV.tif", db)
    write_band(patch_folder / "x_VH.tif", db - 7)
    patch = read_patch(find_bands(patch_folder, ("VH", "VV")), size=120, unit="dB")
    np.testing.assert_array_equal(patch[..., 0], db - 7)
    np.testing.assert_array_equal(patch[..., 1], db)


def test_missing_band(patch_folder, db):
    write_band(patch_folder / "x_VV.tif", db)
    write_band(patch_folder / "other_VH.tif", db)  # of another patch
    with pytest.raises(InputError, match=r"x_VH.tif: found no such file, expected one for each"):
        find_bands(patch_folder, ("VH", "VV"))


def test_wrong_shape(tmp_path, db):
    write_band(tmp_path / "a.tif", db[:100])
    with pytest.raises(InputError, match=r"a.tif: found \(1, 100, 120\).*expected \(1, 120, 120\)"):
        read_band(tmp_path / "a.tif", size=120)


def test_wrong_type(tmp_path, db):
    write_band(tmp_path / "a.tif", db.astype(np.int16))
    with pytest.raises(InputError, match="found int16 values, expected floating-point"):
        read_band(tmp_path / "a.tif", size=120)


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_truncated(tmp_path, db, keep):
    path = tmp_path / "a.tif"
    write_band(path, db)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.tif: cannot be read as a GeoTIFF"):
        read_band(path, size=120)


def patch_of(tmp_path, vh, vv):
    folder = tmp_path / "x"
    folder.mkdir(exist_ok=True)
    write_band(folder / "x_VH.tif", vh)
    write_band(folder / "x_VV.tif", vv)
    return find_bands(folder, ("VH", "VV"))


def test_all_nodata(tmp_path, db):
    paths = patch_of(tmp_path, db, np.full_like(db, np.nan))
    with pytest.raises(InputError, match=r"x_VV\.tif: found nodata only"):
        read_patch(paths, size=120, unit="dB")


def test_linear_power_where_db_is_expected(tmp_path, db):
    paths = patch_of(tmp_path, db, 10 ** (db / 10) - 0.01)  # noise subtraction goes below 0
    with pytest.raises(InputError, match=r"x_VV.tif: .*which is linear power, expected dB"):
        read_patch(paths, size=120, unit="dB")


def test_db_where_linear_power_is_expected(tmp_path, db):
    with pytest.raises(InputError, match="which is dB, expected linear power"):
        read_patch(patch_of(tmp_path, db, db), size=120, unit="linear")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-np.inf, "expected finite numbers"),
        (np.inf, "expected finite numbers"),
        (-9999.0, "between -90 and 50 dB"),
        (60.0, "between -90 and 50 dB"),
    ],
)
def test_values_that_are_no_backscatter(db, value, message):
    db[3, 3] = value
    with pytest.raises(InputError, match=message):
        check_unit(db, "dB", "a.tif")


def test_linear_power_is_seen_in_spite_of_an_outlier(db):
    power = 10 ** (db / 10)
    power[3, 3] = -2.0
    with pytest.raises(InputError, match="which is linear power"):
        check_unit(power, "dB", "a.tif")


def test_zeros_at_the_edge_in_all_bands_are_nodata(tmp_path, db):
    vh, vv = db - 7, db.copy()
    for band in (vh, vv):
        band[:, :12] = 0.0  # the border of a frame
        band[60, 60] = 0.0  # 0 dB inside is a bright scatterer
    vh[100, 119] = 0.0  # at the edge, but in one band only
    patch = read_patch(patch_of(tmp_path, vh, vv), size=120, unit="dB")
    assert np.isnan(patch[:, :12]).all()
    assert np.isfinite(patch[:, 12:]).all()
    assert (patch[60, 60] == 0).all()


def test_only_tiff_is_read_as_tiff(tmp_path, db):
    """Other formats of the raster library can name further files, and addresses on a network."""
    write_band(tmp_path / "real.tif", db)
    source = (
        '<SimpleSource><SourceFilename relativeToVRT="1">real.tif</SourceFilename></SimpleSource>'
    )
    band = f'<VRTRasterBand dataType="Float32" band="1">{source}</VRTRasterBand>'
    vrt = f'<VRTDataset rasterXSize="120" rasterYSize="120">{band}</VRTDataset>'
    (tmp_path / "x_VV.tif").write_text(vrt)
    with pytest.raises(InputError, match="cannot be read as a GeoTIFF"):
        read_band(tmp_path / "x_VV.tif", size=120)
