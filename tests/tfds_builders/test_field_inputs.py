"""Folders as people have them: borders of one band, names, masks, places, implausible values."""

import re

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from sar_mixmae_jax.data.metadata import FLOOR_DB
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.geotiff import write_band, write_bands
from tfds_builders.inspect.survey import locate, map_degrees
from tfds_builders.s1_folder import gcps, window_plan
from tfds_builders.s1_folder.layer_names import find_polarisation, find_unit, parse_band_pattern
from tfds_builders.s1_folder.s1_folder_dataset_builder import Config, parse_config
from tfds_builders.s1_folder.scene_reader import ZeroCounts
from tfds_builders.shards import FLOOR_COUNTS


@pytest.fixture
def db() -> np.ndarray:
    """A scene (VH, VV) in dB, 64 x 80 pixels, with the speckle of 4.4 looks."""
    speckle = np.random.default_rng(0).gamma(4.4, 1 / 4.4, (2, 64, 80))
    return (10 * np.log10(speckle) + np.array([-18, -11])[:, None, None]).astype(np.float32)


def power(db):
    return 10 ** (db / 10)


def plan_folder(root, scratch, **options):
    """Plan of a build in this process, without writing a dataset."""
    scratch.mkdir()
    user, nodata, windows = parse_config(Config(name="x", **{"size": 64, **options}))
    return window_plan.make_plan(root, scratch, user, nodata, windows, 1)


def read_folder(root, scratch, **options):
    """Plan of a build, and its records by id."""
    plan = plan_folder(root, scratch, **options)
    records = [plan.read(*plan.arguments, item) for item in plan.items["train"].tolist()]
    return plan, {record["id"]: record for record in records}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "scratch"


# ---- nodata of single bands


def test_zeros_of_one_band_at_the_border_are_nodata_of_this_band(root, scratch, db):
    linear = power(db)
    linear[:, :, :5] = 0
    linear[0, :, 5:8] = 0  # VH has no measurement here, VV has
    linear[0, 30, 40] = 0  # dark after noise subtraction
    write_bands(root / "a.tif", linear, descriptions=("VH", "VV"))
    plan, records = read_folder(root, scratch, unit="linear")
    expected = db.copy()
    expected[0, :, :8], expected[1, :, :5], expected[0, 30, 40] = np.nan, np.nan, FLOOR_DB
    values = np.moveaxis(records["a_0_0"]["backscatter"], -1, 0)
    np.testing.assert_allclose(values, expected[:, :, :64], rtol=1e-5)
    assert plan.metadata["zero_pixels"] == ZeroCounts(border=64 * 13)._asdict()
    assert any(f"{64 * 13} connected to the frame's edge" in note for note in plan.notes)
    np.testing.assert_array_equal(records["a_0_0"][FLOOR_COUNTS], [[1, 0], [0, 0]])


def test_blocks_of_zeros_are_nodata_from_a_stated_size(root, scratch, tmp_path, db):
    linear = power(db)
    linear[0, 10:18, 10:30] = 0
    linear[0, 18, 12] = 0  # belongs to the block
    linear[1, 40:47, 40:60] = 0  # 7 rows are no square of 8
    write_bands(root / "a.tif", linear, descriptions=("VH", "VV"))
    plan, records = read_folder(root, scratch, unit="linear", zero_block=8)
    values = records["a_0_0"]["backscatter"]
    missing = np.zeros((64, 64), bool)
    missing[10:18, 10:30] = missing[18, 12] = True
    np.testing.assert_array_equal(np.isnan(values[..., 0]), missing)
    assert (values[40:47, 40:60, 1] == FLOOR_DB).all()
    assert plan.metadata["zero_pixels"]["blocks"] == 161
    assert any("161 in blocks of at least 8x8 pixels" in note for note in plan.notes)
    for name, size, count in (("all", 7, 161 + 140), ("none", 0, 0)):
        zeros = plan_folder(root, tmp_path / name, unit="linear", zero_block=size).metadata
        assert zeros["zero_pixels"]["blocks"] == count


def test_the_border_is_eroded_on_request(root, scratch, tmp_path, db):
    linear = power(db)
    linear[:, :, :4] = np.nan
    linear[0, :, 4:6] = 0
    linear[1, 50, 50] = np.nan  # not at the border
    write_bands(root / "a.tif", linear, descriptions=("VH", "VV"))
    plan, records = read_folder(root, scratch, unit="linear", erode_border=3)
    missing = np.isnan(records["a_0_0"]["backscatter"])
    assert missing[..., 0].sum() == 64 * 9
    assert missing[..., 1].sum() == 64 * 7 + 1
    assert missing[:, :9, 0].all()
    assert missing[:, :7, 1].all()
    assert plan.metadata["zero_pixels"] == ZeroCounts(128, eroded=2 * 3 * 64)._asdict()
    with pytest.raises(InputError, match="--erode_border=-1: expected pixels"):
        plan_folder(root, tmp_path / "x", unit="linear", erode_border=-1)


def test_exact_zeros_in_db_are_nodata(root, scratch, tmp_path, db):
    """In floating-point files; as integers at 0.01 dB only where both bands are 0."""
    db[:, 20, 20:23] = db[1, 40, 40] = 0
    write_bands(root / "a_dB.tif", db, descriptions=("VH", "VV"))
    plan, records = read_folder(root, scratch)
    missing = np.moveaxis(np.isnan(records["a_dB_0_0"]["backscatter"]), -1, 0)
    np.testing.assert_array_equal(missing, db[:, :64, :64] == 0)
    assert plan.metadata["zero_pixels"] == ZeroCounts(scattered=7)._asdict()
    assert any("7 elsewhere, where 0 dB is no measurement" in note for note in plan.notes)
    eroded = plan_folder(root, tmp_path / "c", erode_border=1).metadata["zero_pixels"]
    assert eroded["eroded"] == 2 * (3 * 5 - 3) + 8
    write_bands(root / "a_dB.tif", np.round(db / 0.01).astype(np.int16), descriptions=("VH", "VV"))
    with rasterio.open(root / "a_dB.tif", "r+") as raster:
        raster.scales = (0.01, 0.01)
    _, records = read_folder(root, tmp_path / "b")
    values = records["a_dB_0_0"]["backscatter"]
    assert np.isnan(values).sum() == np.isnan(values[20, 20:23]).sum() == 6
    assert values[40, 40, 1] == 0


def test_only_power_at_or_below_0_counts_as_floored(root, scratch, tmp_path, db):
    level = db.copy()
    level[:, 3:5] = FLOOR_DB
    write_bands(root / "a_dB.tif", level, descriptions=("VH", "VV"))
    _, records = read_folder(root, scratch)
    np.testing.assert_array_equal(records["a_dB_0_0"][FLOOR_COUNTS], 0)
    linear = power(level)  # -35 dB is a power like others
    linear[0, 20, 20:25], linear[0, 21, 20:22], linear[1, 30, 30] = -0.01, 1e-12, 0
    (root / "a_dB.tif").unlink()
    write_bands(root / "a.tif", linear, descriptions=("VH", "VV"))
    _, records = read_folder(root, tmp_path / "b", unit="linear")
    np.testing.assert_array_equal(records["a_0_0"][FLOOR_COUNTS], [[5, 1], [2, 0]])
    assert (records["a_0_0"]["backscatter"][[20, 21], 20, 0] == FLOOR_DB).all()


def test_a_raster_of_valid_pixels(root, scratch, tmp_path, db):
    place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 6e6, 10, 10)}
    write_bands(root / "a_dB.tif", db, descriptions=("VH", "VV"), **place)
    valid = np.ones((64, 80), np.uint8)
    valid[:7, :9] = 0
    valid[60:] = 255
    write_band(tmp_path / "mask.tif", valid, nodata=255, **place)
    expected = np.zeros((64, 64), bool)
    expected[:7, :9] = expected[60:] = True
    _, records = read_folder(root, scratch, mask=str(tmp_path / "mask.tif"))
    missing = np.isnan(records["a_dB_0_0"]["backscatter"])
    np.testing.assert_array_equal(missing, np.stack([expected] * 2, -1))
    # twice the pixel size, and it ends before the scene does
    coarse = np.ones((32, 30), np.float32)
    coarse[4:6, 10:12] = 0
    place["transform"] = from_origin(5e5, 6e6, 20, 20)
    write_band(tmp_path / "coarse.tif", coarse, **place)
    expected = np.zeros((64, 64), bool)
    expected[8:12, 20:24] = expected[:, 60:] = True
    _, records = read_folder(root, tmp_path / "b", mask=str(tmp_path / "coarse.tif"))
    missing = np.isnan(records["a_dB_0_0"]["backscatter"])
    np.testing.assert_array_equal(missing, np.stack([expected] * 2, -1))
    write_band(tmp_path / "lost.tif", coarse, crs=None)
    plan = plan_folder(root, tmp_path / "c", mask=str(tmp_path / "lost.tif"))
    assert [file.reason for file in plan.bad_files] == [
        "found (32, 30) pixels and no CRS, expected the (64, 80) pixels of a_dB, or a CRS in both "
        "files: resample the mask"
    ]


def test_masks_beside_the_files(root, scratch, db):
    for band, values in zip(("VH", "VV"), db, strict=True):
        write_band(root / f"a_dB_{band}.tif", values)
    hidden = np.full((64, 80), 255, np.uint8)
    hidden[:5, :6] = 0
    write_band(root / "a_dB_VH.tif.msk", hidden, crs=None)
    plan, records = read_folder(root, scratch)
    missing = np.isnan(records["a_dB_0_0"]["backscatter"])
    assert missing[:5, :6, 0].all()
    assert missing.sum() == 30
    item = plan.items["train"].tolist()[0]
    paths = plan.source_files(*plan.arguments, item)
    assert [path.name for path in paths] == ["a_dB_VH.tif", "a_dB_VV.tif", "a_dB_VH.tif.msk"]


def test_scaled_integers(root, scratch, tmp_path, db):
    stored = np.round(db / 0.01).astype(np.int16)
    stored[:, :3] = -32768
    write_bands(root / "a_dB.tif", stored, descriptions=("VH", "VV"), nodata=-32768)
    plan = plan_folder(root, tmp_path / "b")
    assert "found int16 values without scale and offset tags" in plan.bad_files[0].reason
    with rasterio.open(root / "a_dB.tif", "r+") as raster:
        raster.scales = (0.01, 0.01)
    _, records = read_folder(root, scratch)
    values = np.moveaxis(records["a_dB_0_0"]["backscatter"], -1, 0)
    assert np.isnan(values[:, :3]).all()
    np.testing.assert_allclose(values[:, 3:], db[:, 3:, :64], atol=0.0051)


# ---- names


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("MS1_IVV_999_01_20200115", "VV"),
        ("sigma0_VV", "VV"),
        ("Gamma0_VH_db", "VH"),
        ("GAMMAvh", "VH"),
        ("VVdB", "VV"),
        ("flattenedHV", "HV"),
        ("hh", "HH"),
        ("IVV_and_IVH", None),
        ("bhv", None),
    ],
)
def test_polarisations_inside_words(text, band):
    assert find_polarisation(text) == band
    assert find_unit([text]) == ("dB" if "db" in text.lower() else None)


def test_names_of_kuro_siwo(root, scratch, db):
    folder = root / "data/999/01/0001"
    folder.mkdir(parents=True)
    for kind, date in (("MS1", "20200115"), ("SL1", "20200103"), ("SL2", "20191222")):
        for band, values in zip(("IVH", "IVV"), power(db), strict=True):
            write_band(folder / f"{kind}_{band}_999_01_{date}.tif", values)
    for mask in ("MLU", "MNA"):
        path = folder / f"MK0_{mask}_999_01_20200115.tif"
        write_band(path, np.ones((64, 80), np.uint8))
    options = {"unit": "linear", "quantity": "sigma0", "nodata": "0"}
    plan, records = read_folder(root, scratch, **options)
    names = {scene.rsplit("/", 1)[1] for scene in (r["scene"] for r in records.values())}
    assert names == {
        "MS1_I_999_01_20200115",
        "SL1_I_999_01_20200103",
        "SL2_I_999_01_20191222",
    }
    for record in records.values():
        values = np.moveaxis(record["backscatter"], -1, 0)
        np.testing.assert_allclose(values, db[:, :, :64], rtol=1e-5)
    assert [file.file[-23:] for file in plan.unused_files] == [
        "_MLU_999_01_20200115.tif"[-23:],
        "_MNA_999_01_20200115.tif"[-23:],
    ]
    assert any(
        re.fullmatch(r"2 files left out, a picture, mask or map: .*MLU.*, .*MNA.*", note)
        for note in plan.notes
    )


def test_noise_in_a_name_is_no_reason_to_leave_a_file_out(root, scratch, tmp_path, db):
    for band, values in zip(("VH", "VV"), db, strict=True):
        write_band(root / f"S1A_thermal-noise-removed_{band}_dB.tif", values)
        write_band(root / f"noise-lake_{band}_dB.tif", values)
    plan, records = read_folder(root, scratch)
    assert set(records) == {"S1A_thermal-noise-removed_dB_0_0", "noise-lake_dB_0_0"}
    assert not plan.unused_files
    for band, values in zip(("VH", "VV"), db, strict=True):  # beside the image itself
        write_band(root / f"noise-lake_{band}_noise_dB.tif", values * 0 - 25)
    plan, more = read_folder(root, tmp_path / "b")
    assert set(more) == set(records)
    assert any(
        note.startswith(
            "2 files left out, a layer beside the image of the same name: noise-lake_VH"
        )
        for note in plan.notes
    )


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (("scene_co.tif", "scene_cross.tif"), "VV=*_co.tif,VH=*_cross.tif"),
        (("scene_xvvx.tif", "scene_xvhx.tif"), "*_x{band}x"),
        (("s1a-vv-t05-001.tif", "s1a-vh-t05-002.tif"), "*-{band}-*-00?"),
        (("vv/scene 1.tif", "vh/scene 1.tif"), "{band}/scene*"),
    ],
)
def test_names_that_only_the_user_understands(root, scratch, tmp_path, db, names, pattern):
    for name, values in zip(names, db[::-1], strict=True):
        (root / name).parent.mkdir(exist_ok=True)
        write_band(root / name, values)
    write_band(root / "other.tif", db[0])
    if "vv" not in names[0]:
        with pytest.raises(InputError, match=f"3 GeoTIFFs.*{names[0]}.*give --band_pattern"):
            plan_folder(root, tmp_path / "b", unit="dB")
    plan, records = read_folder(root, scratch, unit="dB", band_pattern=pattern)
    (record,) = records.values()
    np.testing.assert_array_equal(np.moveaxis(record["backscatter"], -1, 0), db[:, :, :64])
    (unused,) = plan.unused_files
    assert unused == ("other.tif", f"a name that does not match --band_pattern={pattern}")


@pytest.mark.parametrize("text", ["*_I*", "VV", "XX=*_1", "VV="])
def test_patterns_that_say_no_band(text):
    with pytest.raises(InputError, match=r"expected \{band\} in place of the polarisation"):
        parse_band_pattern(text)


# ---- places


def test_radar_geometry_has_no_place(root, scratch, db):
    crs = rasterio.crs.CRS.from_wkt('LOCAL_CS["radar geometry",UNIT["metre",1]]')
    local = {"crs": crs, "transform": Affine(10, 0, 0, 0, -10, 0)}
    for name in "ab":
        write_bands(root / f"{name}_dB.tif", db, descriptions=("VH", "VV"), **local)
    plan, records = read_folder(root, scratch)
    assert {record["crs"] for record in records.values()} == {""}
    assert plan.metadata["pixel_spacing_m"] == []
    assert [note for note in plan.notes if "place" in note] == [
        "place unknown of 2 scenes: 2 with a CRS that is neither geographic nor projected"
    ]


def test_scenes_across_the_antimeridian_are_one_group(root, scratch, db):
    degree = 9e-5
    for name, west in (("across", 180 - 40 * degree), ("east", -180 + 100 * degree)):
        place = {"crs": "EPSG:4326", "transform": from_origin(west, -17, degree, degree)}
        write_bands(root / f"{name}_dB.tif", db, descriptions=("VH", "VV"), **place)
    utm = {"crs": "EPSG:32760", "transform": from_origin(818_000, 8_118_000, 10, 10)}
    write_bands(root / "utm60_dB.tif", db, descriptions=("VH", "VV"), **utm)
    _, records = read_folder(root, scratch)
    centres: dict[str, list[float]] = {}
    for record in records.values():
        centre = Affine(*record["transform"]) * (32, 32)
        centres.setdefault(record["crs"], []).extend(centre)
    longitudes = map_degrees({"train": locate(centres, 0)})["train"][:, 0]
    assert len(longitudes) == 3
    assert np.ptp(longitudes) < 0.05
    assert np.abs(np.abs(longitudes) - 180).max() < 0.05


def write_with_gcps(path, values, crs="EPSG:4326"):
    """A turned image in UTM zone 60, at the antimeridian, placed by ground control points only.

    Returns:
      Transform from its columns and rows to UTM.
    """
    ground = Affine.translation(816_000, 8_118_000) @ Affine.rotation(170) @ Affine.scale(10, -12)
    points = []
    for row in np.linspace(0, values.shape[1], 4):
        for column in np.linspace(0, values.shape[2], 5):
            (x,), (y,) = transform(
                "EPSG:32760", "EPSG:4326", *np.reshape(ground * (column, row), (2, 1))
            )
            points.append(GroundControlPoint(row, column, x, y))
    write_bands(
        path,
        values,
        descriptions=("VH", "VV") if len(values) == 2 else (),
        gcps=points,
        crs=crs,
        transform=Affine.identity(),
    )
    return ground


def test_ground_control_points_place_an_image_on_request(root, scratch, tmp_path, db, monkeypatch):
    monkeypatch.setattr(gcps, "TILE", 40)
    ground = write_with_gcps(root / "a_dB.tif", db)
    plan, records = read_folder(root, tmp_path / "b")
    (record,) = records.values()
    assert record["crs"] == ""
    assert np.isnan(record["transform"]).all()
    (note,) = [note for note in plan.notes if "place unknown" in note]
    assert note.endswith("1 with ground control points only; --use_gcps warps by the points")
    plan, records = read_folder(root, scratch, use_gcps=True, max_nodata=0.9)
    assert not any("place unknown" in note for note in plan.notes)
    seen = 0
    for record in records.values():
        assert record["crs"] == "EPSG:32760"
        column, row = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
        place = Affine(*record["transform"])
        assert place.a == -place.e == pytest.approx(np.sqrt(120), abs=0.1)
        column, row = ~ground * (place * (column, row))
        inside = (column >= 0) & (column < 80) & (row >= 0) & (row < 64)
        values = np.full((64, 64, 2), np.nan, np.float32)
        values[inside] = np.moveaxis(db, 0, -1)[row[inside].astype(int), column[inside].astype(int)]
        same = (values == record["backscatter"]) | (np.isnan(values + record["backscatter"]))
        assert same.mean() > 0.99  # else at the border of two pixels
        seen += inside.sum()
    assert seen > 2000


def test_digital_numbers_are_refused_as_such(root, scratch, db):
    """Not for their names or the missing unit."""
    for number, band in enumerate(("vv", "vh"), 1):
        numbers = np.full((1, 64, 80), 300, np.uint16)
        write_with_gcps(root / f"s1a-iw-grd-{band}-20200101t050000-00{number}.tiff", numbers)
    plan = plan_folder(root, scratch)
    assert len(plan.bad_files) == 2
    for file in plan.bad_files:
        assert "digital numbers need calibration to sigma0 or gamma0" in file.reason


def test_ground_control_points_need_a_crs(root, scratch, db):
    write_with_gcps(root / "a_dB.tif", db, crs=rasterio.crs.CRS())
    plan = plan_folder(root, scratch, use_gcps=True)
    assert "without a CRS, expected at least 4 with one" in plan.bad_files[0].reason


@pytest.mark.parametrize(
    "places",
    [
        [(0, 0, 16, 48)] * 3 + [(1, 1, 16, 48)],
        [(0, 0, 1e9, 1e9), (0, 80, 2e9, 1e9), (64, 0, 1e9, 2e9), (64, 80, 2e9, 2e9)],
        [(0, 0, 16, 48), (0, 80, float("nan"), 48), (64, 0, 16, 49), (64, 80, 17, 49)],
    ],
)
def test_ground_control_points_that_cannot_be_used_are_named(places, root, scratch, db):
    points = [GroundControlPoint(*place) for place in places]
    write_bands(
        root / "a_dB.tif",
        db,
        descriptions=("VH", "VV"),
        gcps=points,
        crs="EPSG:4326",
        transform=Affine.identity(),
    )
    (file,) = plan_folder(root, scratch, use_gcps=True).bad_files
    assert file.file.endswith("a_dB.tif")
    assert "its ground control points cannot be used" in file.reason


# ---- values that are not plausible


def warnings_of(root, scratch, **options):
    plan = plan_folder(root, scratch, **options)
    return [note for note in plan.notes if note.startswith("warning: ")]


def test_plausible_scenes_are_not_warned_of(root, scratch, db):
    for name in "ab":
        write_bands(root / f"{name}_dB.tif", db, descriptions=("VH", "VV"))
    assert warnings_of(root, scratch) == []


def test_exchanged_bands_are_warned_of(root, scratch, db):
    write_bands(root / "a_dB.tif", db, descriptions=("VV", "VH"))
    vh, vv = db[1].mean(), db[0].mean()
    assert warnings_of(root, scratch) == [
        "warning: cross-polarised brighter than co-polarised, exchanged? "
        f"a_dB.tif (VH {vh:.1f} dB, VV {vv:.1f} dB)"
    ]


@pytest.mark.parametrize(
    ("change", "unit", "reason"),
    [
        (
            lambda db: (db - db.min()) / np.ptp(db),
            "linear",
            r".*VV: from \S+ to 1, as after stretch",
        ),
        (lambda db: (db + 50) / 60, "linear", r"VH: mean -2\.\d dB, expected -38 to -7"),
        (lambda db: db + 14, "dB", r"VH: mean -4\.\d dB, expected -38 to -7"),
        (lambda db: db * 0.01 - 20, "dB", r"VV: deviation 0\.02\d* dB, expected 0\.5 to 12"),
    ],
)
def test_values_that_no_surface_has_are_warned_of(root, scratch, db, change, unit, reason):
    write_bands(root / "a.tif", change(db), descriptions=("VH", "VV"))
    found = warnings_of(root, scratch, unit=unit)
    assert re.search(rf"warning: values that no surface has.* a\.tif \({reason}", "".join(found))


def test_mixed_numbers_of_looks_are_warned_of(root, scratch, db):
    write_bands(root / "a_dB.tif", db, descriptions=("VH", "VV"))
    fine = np.random.default_rng(1).gamma(50, 1 / 50, db.shape)
    smooth = 10 * np.log10(fine) + np.array([-18, -11])[:, None, None]
    write_bands(root / "b_dB.tif", smooth.astype(np.float32), descriptions=("VH", "VV"))
    (warning,) = warnings_of(root, scratch)
    few, many = map(float, re.findall(r"\((\d+\.\d)\)", warning))
    assert "a_dB.tif" in warning.partition("b_dB.tif")[0]
    assert 4.4 < few < 8
    assert 50 < many < 90
