"""Folders of one's own: layouts, band names, units, nodata, places, and what contradicts itself."""

import re

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from rasterio.transform import from_origin

from sar_mixmae_jax.data.metadata import FLOOR_DB
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFilesError
from tfds_builders.build import build
from tfds_builders.built_dataset import build_summary
from tfds_builders.geotiff import write_band, write_bands
from tfds_builders.records import acquisition_time
from tfds_builders.s1_folder import scene_reader
from tfds_builders.s1_folder.layer_names import find_polarisation
from tfds_builders.s1_folder.windows import WindowSettings, nodata_fraction


@pytest.fixture
def db() -> np.ndarray:
    """A scene (VH, VV) in dB, 150 x 200 pixels; VV is brighter everywhere."""
    rng = np.random.default_rng(0)
    vh = rng.normal(-18, 2, (150, 200))
    return np.stack([vh, vh + 7]).astype(np.float32)


def power(db):
    return 10 ** (db / 10)


def build_folder(root, tmp_path, **options):
    options = {"size": 64, **options}
    return build("s1_folder/mine", tmp_path / "data", root, options)


def records_of(folder):
    source = tfds.builder_from_directory(folder).as_data_source("train")
    return {record["id"].decode(): record for record in source}


def assert_is_scene(folder, db, **tolerance):
    """All patches are the parts of the scene at their corners, bands in the order VH, VV."""
    records = records_of(folder)
    assert len(records) == 6
    for record in records.values():
        row, column = record["corner"]
        expected = np.moveaxis(db[:, row : row + 64, column : column + 64], 0, -1)
        np.testing.assert_allclose(record["backscatter"], expected, **tolerance)


LAYOUTS = {
    "two bands, VV first": lambda root, db: write_bands(
        root / "a.tif", db[::-1], descriptions=("Sigma0_VV_db", "Sigma0_VH_db")
    ),
    "two bands with an angle between": lambda root, db: write_bands(
        root / "a.tif", np.stack([db[0], db[0] * 0 + 38, db[1]]), descriptions=("VH", "angle", "VV")
    ),
    "a file a band": lambda root, db: [
        write_band(root / f"S1A_20200101T050000_{band}_x.tif", db[i])
        for i, band in enumerate(("VH", "VV"))
    ],
    "lower case, described": lambda root, db: [
        write_band(root / f"{band}.tiff", db[i]) for i, band in enumerate(("vh", "vv"))
    ],
    "float64 below a folder": lambda root, db: (
        (root / "2020").mkdir(),
        write_bands(root / "2020/a.tif", db.astype(np.float64), descriptions=("VH", "VV")),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, db, layout):
    root = tmp_path / "raw"
    root.mkdir()
    LAYOUTS[layout](root, db)
    assert_is_scene(build_folder(root, tmp_path, unit="dB"), db, rtol=1e-6)


@pytest.mark.parametrize("descriptions", [(), ("VV", "VV"), ("band", "band")])
def test_bands_are_told_where_the_file_does_not_say(tmp_path, db, descriptions):
    root = tmp_path / "raw"
    root.mkdir()
    write_bands(root / "a.tif", db[::-1], descriptions=descriptions)
    with pytest.raises(BadFilesError, match="name them with --bands"):
        build_folder(root, tmp_path, unit="dB")
    assert_is_scene(build_folder(root, tmp_path, unit="dB", bands="VV,VH"), db, rtol=1e-6)


ONE_BAND = {
    "two bands, described": lambda root, db: write_bands(
        root / "a.tif", db[::-1], descriptions=("VV", "VH")
    ),
    "a file a band, one image without VH": lambda root, db: (
        write_band(root / "a_VV.tif", db[1]),
        write_band(root / "a_VH.tif", db[0, :100]),  # of another size: it is not read
    ),
    "no file says": lambda root, db: (
        write_band(root / "a.tif", db[1]),
        write_band(root / "a_mask.tif", (db[1] < -20).astype(np.uint8)),
    ),
}


@pytest.mark.parametrize("layout", ONE_BAND)
def test_one_band_of_a_folder(tmp_path, db, layout):
    root = tmp_path / "raw"
    root.mkdir()
    ONE_BAND[layout](root, db)
    folder = build_folder(root, tmp_path, unit="dB", bands="VV")
    assert_is_scene(folder, db[1:], rtol=1e-6)
    metadata = tfds.builder_from_directory(folder).info.metadata
    assert metadata["bands"] == ["VV"]
    assert metadata["statistics"]["mean"] == pytest.approx([db[1, :128, :192].mean()], abs=1e-3)
    left_out = "1 files left out, a band that --bands does not name: a_VH.tif"
    assert (left_out in metadata["notes"]) == ("a file a band" in layout)


def test_the_other_polarisations_are_in_the_order_of_the_usual_ones(tmp_path, db):
    """HV, HH as VH, VV; a cross-polarised band that is the brighter one is noted."""
    write_bands(tmp_path / "a.tif", db, descriptions=("HH", "HV"))
    with pytest.raises(BadFilesError, match=r"found 2 bands described as HH,HV, .*name them"):
        build_folder(tmp_path, tmp_path / "out", unit="dB")
    folder = build_folder(tmp_path, tmp_path / "out", unit="dB", bands="HH,HV")
    assert_is_scene(folder, db[::-1], rtol=1e-6)
    metadata = tfds.builder_from_directory(folder).info.metadata
    assert metadata["bands"] == ["HV", "HH"]
    assert any("HV is 7.0 dB brighter than HH" in note for note in metadata["notes"])


def test_bands_that_contradict_the_file(tmp_path, db):
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"))
    with pytest.raises(BadFilesError, match="expected no contradiction"):
        build_folder(tmp_path, tmp_path / "out", unit="dB", bands="VV,VH")


def test_linear_power_becomes_db_and_darkness_a_floor(tmp_path, db):
    linear = power(db)
    linear[:, 30:40, 30:40] = 0.0  # not at the edge: dark water after noise subtraction
    linear[1, 100, 100] = -0.01
    linear[1, 100, 101] = 1e-12
    write_bands(tmp_path / "a.tif", linear, descriptions=("VH", "VV"))
    folder = build_folder(tmp_path, tmp_path / "out", unit="linear")
    expected = db.copy()
    expected[:, 30:40, 30:40] = FLOOR_DB
    expected[1, 100, 100:102] = FLOOR_DB
    assert_is_scene(folder, expected, rtol=1e-5)
    metadata = tfds.builder_from_directory(folder).info.metadata
    assert metadata["measured"]["train"]["floored_pixels"] == 201
    summary = build_summary(folder)
    assert "201 pixels of linear power at or below 0 became -35.0 dB" in summary
    assert "1 pixels of linear power above 0 and below -90 dB became -35.0 dB" in summary


def test_the_unit_comes_from_the_file_or_the_user_and_never_from_a_guess(tmp_path, db):
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"))
    with pytest.raises(BadFilesError, match="give --unit=dB or --unit=linear"):
        build_folder(tmp_path, tmp_path / "out")
    with pytest.raises(BadFilesError, match="which is dB, expected linear power"):
        build_folder(tmp_path, tmp_path / "out", unit="linear")
    (tmp_path / "said").mkdir()
    write_bands(tmp_path / "said/b.tif", db, descriptions=("VH dB", "VV dB"))
    assert_is_scene(build_folder(tmp_path / "said", tmp_path / "out"), db, rtol=1e-6)
    with pytest.raises(BadFilesError, match=r"found dB stated by the files and --unit=linear"):
        build("s1_folder/x", tmp_path / "out", tmp_path / "said", {"size": 64, "unit": "linear"})


@pytest.mark.parametrize("kind", ["nan", "tagged", "zero border", "told"])
def test_nodata_of_every_kind(tmp_path, db, kind):
    value, settings, options = {
        "nan": (np.nan, {}, {}),
        "tagged": (-99.0, {"nodata": -99.0}, {}),
        "zero border": (0.0, {}, {}),
        "told": (-9999.0, {}, {"nodata": "-9999"}),
    }[kind]
    db[:, :, :20] = value  # 20 of the first 64 columns: 31 %
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"), **settings)
    folder = build_folder(tmp_path, tmp_path / "out", unit="dB", **options)
    assert {tuple(r["corner"]) for r in records_of(folder).values()} == {
        (row, column) for row in (0, 64) for column in (64, 128)
    }
    for record in records_of(folder).values():
        assert np.isfinite(record["backscatter"]).all()
    more = build(
        "s1_folder/more",
        tmp_path / "out",
        tmp_path,
        {"size": 64, "unit": "dB", "max_nodata": 0.35, **options},
    )
    edge = records_of(more)["a_0_0"]["backscatter"]
    assert np.isnan(edge[:, :20]).all()
    assert np.isfinite(edge[:, 20:]).all()


def test_overlap_and_what_is_left_at_the_edges(tmp_path, db):
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"))
    folder = build_folder(tmp_path, tmp_path / "out", unit="dB", overlap=32)
    corners = {tuple(record["corner"]) for record in records_of(folder).values()}
    assert corners == {(r, c) for r in (0, 32, 64) for c in (0, 32, 64, 96, 128)}


def test_windows_count_nodata_as_numpy_does():
    missing = np.random.default_rng(0).random((150, 170)) < 0.3
    cut = WindowSettings(size=32, overlap=12, max_nodata=0)
    for height in (1, 7, 64, 150):
        strips = (missing[top : top + height] for top in range(0, 150, height))
        share = nodata_fraction(strips, missing.shape, cut)
        expected = [
            [missing[r : r + 32, c : c + 32].mean() for c in range(0, 139, 20)]
            for r in range(0, 119, 20)
        ]
        np.testing.assert_allclose(share, expected)


def test_a_scene_is_surveyed_in_strips(tmp_path, db, monkeypatch):
    """The border is followed through strips that are read one after the other."""
    large = np.tile(power(db), (1, 8, 1))  # 1,200 rows in strips of 90
    large[:, :600, :70] = 0.0
    monkeypatch.setattr(scene_reader, "STRIP_PIXELS", 90 * 200)
    write_bands(tmp_path / "a.tif", large, descriptions=("VH", "VV"))
    folder = build_folder(tmp_path, tmp_path / "out", unit="linear")
    corners = {tuple(record["corner"]) for record in records_of(folder).values()}
    assert {row for row, column in corners if column == 0} == set(range(640, 1137, 64))
    assert {row for row, column in corners if column == 128} == set(range(0, 1137, 64))


def test_georeference_is_kept_in_degrees_to_the_last_digit(tmp_path, db):
    transform = from_origin(10.123456789, 50.987654321, 8.983152841195215e-05, 9e-05)
    write_bands(
        tmp_path / "S1B_IW_GRDH_1SDV_20190704T053009_x.tif",
        db,
        descriptions=("VH", "VV"),
        crs="EPSG:4326",
        transform=transform,
    )
    for record in records_of(build_folder(tmp_path, tmp_path / "out", unit="dB")).values():
        row, column = (int(value) for value in record["corner"])
        a, b, c, d, e, f = record["transform"]
        assert record["crs"] == b"EPSG:4326"
        assert (b, d) == (0, 0)
        assert (a, e) == (transform.a, transform.e)
        assert c == pytest.approx(transform.c + column * transform.a, abs=1e-12)
        assert f == pytest.approx(transform.f + row * transform.e, abs=1e-12)
        assert record["time"] == b"2019-07-04T05:30:09"


def test_sigma0_and_gamma0_are_not_mixed(tmp_path, db):
    write_bands(tmp_path / "a.tif", db, descriptions=("Gamma0_VH", "Gamma0_VV"))
    write_bands(tmp_path / "b.tif", db, descriptions=("VH", "VV"))
    with pytest.raises(InputError, match=r"1 files state gamma0 \(a\.tif\).*--quantity=gamma0"):
        build_folder(tmp_path, tmp_path / "out", unit="dB")
    folder = build_folder(tmp_path, tmp_path / "out", unit="dB", quantity="gamma0")
    assert tfds.builder_from_directory(folder).info.metadata["quantity"] == "gamma0"
    write_bands(tmp_path / "b.tif", db, descriptions=("Sigma0_VH", "Sigma0_VV"))
    with pytest.raises(InputError, match="build them separately"):
        build("s1_folder/x", tmp_path / "out", tmp_path, {"unit": "dB", "quantity": "gamma0"})


def test_what_is_not_stated_is_said_to_be(tmp_path, db):
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"))
    metadata = tfds.builder_from_directory(
        build_folder(tmp_path, tmp_path / "out", unit="dB")
    ).info.metadata
    assert metadata["quantity"] == "not stated"
    assert metadata["statistics"]["of"].startswith("all valid pixels of the 6 patches of the split")
    np.testing.assert_allclose(metadata["statistics"]["mean"], db[:, :128, :192].mean((1, 2)), 1e-5)


def test_all_bad_files_are_named_at_once(tmp_path, db):
    root = tmp_path / "raw"
    root.mkdir()
    write_bands(root / "good.tif", db, descriptions=("VH", "VV"))
    write_band(root / "alone_VV.tif", db[1])
    write_band(root / "grid_VV.tif", db[1])
    write_band(root / "grid_VH.tif", db[0, :140])
    write_bands(root / "small.tif", db[:, :50], descriptions=("VH", "VV"))
    write_bands(root / "integers.tif", db.astype(np.int16), descriptions=("VH", "VV"))
    write_bands(root / "empty.tif", np.full_like(db, np.nan), descriptions=("VH", "VV"))
    write_bands(root / "good.tiff", db, descriptions=("VH", "VV"))
    (root / "broken.tif").write_bytes((root / "good.tif").read_bytes()[:70_000])
    (root / "zero.tif").touch()
    with pytest.raises(BadFilesError) as raised:
        build_folder(root, tmp_path, unit="dB")
    told = {problem.file.rsplit("/", 1)[1]: problem.reason for problem in raised.value.bad_files}
    expected = {
        "alone_VV.tif": "no VH belongs to it; --bands=VV builds a dataset of what was found",
        "grid_VH.tif": "expected the grid of",
        "small.tif": "expected at least 64 a side",
        "integers.tif": "found int16",
        "empty.tif": "nodata only",
        "good.tiff": "found the image good",
        "broken.tif": "cannot be read as a GeoTIFF",
        "zero.tif": "cannot be read as a GeoTIFF",
    }
    assert told.pop("grid_VV.tif", None) or told.pop("grid_VH.tif")  # of two, one is the other's
    del expected["grid_VH.tif"]
    assert told.keys() == expected.keys()
    for file, reason in told.items():
        assert expected[file] in reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": "VX,angle"}, "expected at least one of VH, VV, HV, HH"),
        ({"bands": "VV,VV"}, "each once"),
        ({"unit": "db"}, "unknown unit"),
        ({"quantity": "sigma"}, "unknown quantity"),
        ({"nodata": "none"}, "expected a number"),
        ({"overlap": 64}, "below the size"),
        ({"max_nodata": 1.5}, "from 0 to below 1"),
        ({"zero_block": -1}, "expected pixels, at least 0"),
        ({"mask": "none.tif"}, "found no such file, expected a GeoTIFF"),
        ({"band_pattern": "*_co"}, "in place of the polarisation"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, db, options, message):
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"))
    with pytest.raises(InputError, match=message):
        build_folder(tmp_path, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("Sigma0_VV_db", "VV"),
        ("s1a_iw_vh", "VH"),
        ("OPERA_L2_RTC-S1_T064-135518-IW1_20230101T052003Z_S1A_30_v1.0_VH", "VH"),
        ("VV and VH", None),
        ("valley_VVX", None),
        ("Bhv", None),
    ],
)
def test_polarisations_in_names(text, band):
    assert find_polarisation(text) == band


# ---- what other processors deliver


@pytest.mark.parametrize(
    ("descriptions", "found"), [(("HH", "HV"), "HH,HV"), (("VH", ""), r"VH,\?"), (("", "VH"), "VH")]
)
def test_a_description_is_never_overruled(tmp_path, db, descriptions, found):
    bands = "VH,VV" if descriptions[1] == "VH" else "VV,VH"
    write_bands(tmp_path / "a.tif", db, descriptions=descriptions)
    with pytest.raises(BadFilesError, match=f"{found}.*expected no contradiction"):
        build_folder(tmp_path, tmp_path / "out", unit="dB", bands=bands)


def test_names_of_hyp3_say_unit_and_quantity(tmp_path, db):
    root = tmp_path / "S1A_IW_20200103T051702_DVP_RTC30_G_gpuned_1234"
    root.mkdir()
    for band, values in zip(("VH", "VV"), power(db), strict=True):
        write_band(root / f"{root.name}_{band}.tif", values, nodata=0.0)
    for side, dtype in (("dem", np.int16), ("ls_map", np.uint8), ("inc_map", np.float32)):
        write_band(root / f"{root.name}_{side}.tif", db[0].astype(dtype))
    write_bands(root / f"{root.name}_rgb.tif", np.zeros((3, 150, 200), np.uint8))
    folder = build_folder(tmp_path, tmp_path / "out")
    assert_is_scene(folder, db, rtol=1e-5)
    metadata = tfds.builder_from_directory(folder).info.metadata
    assert metadata["quantity"] == "gamma0"
    notes = "; ".join(metadata["notes"])
    for side, reason in (
        ("dem", "1 files left out, integers without scale tags"),
        ("inc_map", "1 files left out, no polarisation in name and description"),
        ("rgb", "2 files left out, a picture, mask or map"),
    ):
        assert re.search(f"{reason}[^;]*: [^;]*_{side}.tif", notes)
    table = (folder / "unused_files.tsv").read_text()
    assert "_ls_map.tif\ta picture, mask or map (found uint8 values" in table
    with pytest.raises(InputError, match=r"2 files state gamma0 \(.*…\), --quantity=sigma0"):
        build("s1_folder/x", tmp_path / "out", tmp_path, {"quantity": "sigma0"})
    (tmp_path / "amplitude").mkdir()
    for path in root.glob("*_V?.tif"):
        path.rename(tmp_path / "amplitude" / path.name.replace("gpuned", "gauned"))
    with pytest.raises(BadFilesError, match="found amplitude"):
        build("s1_folder/x", tmp_path / "out", tmp_path / "amplitude")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda db: power(db) * 1e4, "digital numbers, amplitudes, or angles"),
        (lambda db: np.full_like(db, 38.0) + db, "digital numbers, amplitudes, or angles"),
    ],
)
def test_what_is_not_calibrated_power(tmp_path, db, change, message):
    write_bands(tmp_path / "a.tif", change(db), descriptions=("VH", "VV"))
    with pytest.raises(BadFilesError, match=message):
        build_folder(tmp_path, tmp_path / "out", unit="linear")


@pytest.mark.parametrize(("word", "message"), [("Amplitude", "square it"), ("Beta0", "beta0")])
def test_quantities_that_are_not_taken(tmp_path, db, word, message):
    write_bands(tmp_path / "a.tif", power(db), descriptions=(f"{word}_VH", f"{word}_VV"))
    with pytest.raises(InputError, match=message):
        build_folder(tmp_path, tmp_path / "out", **({} if word == "Amplitude" else {"unit": "dB"}))


def test_annotation_is_no_image(tmp_path, db):
    for number, band in enumerate(("vh", "vv")):
        write_band(tmp_path / f"s1a-{band}.tif", db[number])
        write_band(tmp_path / f"s1a-np-{band}.tif", db[number] * 0 - 25)
        write_band(tmp_path / f"s1a_{band}_incidence.tif", db[number] * 0 + 38)
    assert_is_scene(build_folder(tmp_path, tmp_path / "out", unit="dB"), db, rtol=1e-6)


def test_a_folder_for_each_polarisation(tmp_path, db):
    for number, band in enumerate(("VH", "VV")):
        (tmp_path / band).mkdir()
        write_band(tmp_path / band / "scene.tif", db[number])
    assert_is_scene(build_folder(tmp_path, tmp_path / "out", unit="dB"), db, rtol=1e-6)


def test_nothing_that_names_a_polarisation(tmp_path, db):
    write_band(tmp_path / "a.tif", db[0])
    with pytest.raises(InputError, match="none of which names a polarisation"):
        build_folder(tmp_path, tmp_path / "out", unit="dB")


def test_fill_zeros_of_a_frame_that_lies_askew(tmp_path, db):
    """Beyond nodata that reaches the edge, in one band tagged, along a diagonal."""
    db = power(db)
    db[:, :, :10] = np.nan
    db[:, :, 10:20] = 0.0
    db[:, np.arange(60), 20 + np.arange(60)] = 0.0
    db[1, 100:150, 180:] = 0.0
    db[0, 100:150, 180:] = -99.0
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"), nodata=-99.0)
    options = {"size": 150, "max_nodata": 0.5, "unit": "linear"}
    record = next(
        iter(records_of(build("s1_folder/x", tmp_path / "o", tmp_path, options)).values())
    )
    values = record["backscatter"]
    assert np.isnan(values[:, :20]).all()
    assert np.isnan(values[np.arange(60), 20 + np.arange(60)]).all()
    assert not (values[:100, 21:] == FLOOR_DB).any()


def test_power_next_to_nothing_is_floored_like_nothing(tmp_path, db):
    linear = power(db)
    linear[:, 30:40, 30:40] = 1e-20
    write_bands(tmp_path / "a.tif", linear, descriptions=("VH", "VV"))
    record = records_of(build_folder(tmp_path, tmp_path / "out", unit="linear"))["a_0_0"]
    assert (record["backscatter"][30:40, 30:40] == FLOOR_DB).all()


def test_scale_and_offset_of_a_file_are_applied(tmp_path, db):
    path = tmp_path / "a.tif"
    write_bands(path, db / 5 - 2, descriptions=("VH", "VV"))
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (5.0, 5.0), (10.0, 10.0)
    assert_is_scene(build_folder(tmp_path, tmp_path / "out", unit="dB"), db, rtol=1e-5)


def test_complex_data_are_refused(tmp_path, db):
    write_bands(tmp_path / "a.tif", db.astype(np.complex64), descriptions=("VH", "VV"))
    with pytest.raises(BadFilesError, match="found complex64 values, expected detected"):
        build_folder(tmp_path, tmp_path / "out", unit="dB")


def test_pixels_of_different_size_are_told(tmp_path, db):
    write_bands(tmp_path / "a.tif", db, descriptions=("VH", "VV"))
    coarse = from_origin(4e5, 5e6, 30, 30)
    write_bands(tmp_path / "b.tif", db, descriptions=("VH", "VV"), transform=coarse)
    metadata = tfds.builder_from_directory(
        build_folder(tmp_path, tmp_path / "out", unit="dB")
    ).info.metadata
    assert metadata["pixel_spacing_m"] == [[10.0, 10.0], [30.0, 30.0]]
    assert any(
        "pixels of 10, 30 m (width x height) are mixed" in note for note in metadata["notes"]
    )


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("S1A_IW_GRDH_1SDV_20200102T050000_20200102T050025", "2020-01-02T05:00:00"),
        ("s1a-iw-grd-vv-20200102t050000", "2020-01-02T05:00:00"),
        ("S1_20200102_050000", "2020-01-02T05:00:00"),
        ("scene_99999999T999999", ""),
        ("scene", ""),
    ],
)
def test_times_in_names(name, time):
    assert acquisition_time(name) == time


def mask_of(db) -> np.ndarray:
    """Classes 0, 1 and 2 of a scene, and -1."""
    return np.digitize(db[0], (-22, -20, -16)).astype(np.int16) - 1


def test_masks_beside_the_scenes_are_labels(tmp_path, db):
    root = tmp_path / "raw"
    (root / "masks").mkdir(parents=True)
    write_bands(root / "a.tif", db, descriptions=("VH", "VV"))
    write_band(root / "masks/a.tif", mask_of(db))
    labelled = {"unit": "dB", "masks": str(root / "masks"), "classes": "water,field,wood"}
    folder = build_folder(root, tmp_path, **labelled)
    assert_is_scene(folder, db)
    for record in records_of(folder).values():
        row, column = record["corner"]
        expected = mask_of(db)[row : row + 64, column : column + 64]
        np.testing.assert_array_equal(record["mask"], expected)
    split = load_patch_dataset("s1_folder/mine", tmp_path / "data", "train", ("VV",))
    assert split.masks == {"mask": ("water", "field", "wood")}


@pytest.mark.parametrize(
    ("mask", "profile", "message"),
    [
        (np.zeros((150, 200), np.uint8), {"crs": "EPSG:32634"}, "expected the grid of its scene"),
        (np.zeros((75, 200), np.uint8), {}, "expected the grid of its scene"),
        (np.zeros((150, 200), np.float32), {}, "1 bands of float32, expected one band of integers"),
        (np.full((150, 200), 255, np.uint8), {}, r"found the labels \[255\], expected 0 to 1"),
        (None, {}, "found no such file, expected the mask of the scene a"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, db, mask, profile, message):
    root, masks = tmp_path / "raw", tmp_path / "masks"
    root.mkdir()
    masks.mkdir()
    write_bands(root / "a.tif", db, descriptions=("VH", "VV"))
    if mask is not None:
        write_band(masks / "a.tif", mask, **profile)
    with pytest.raises(BadFilesError, match=message):
        build_folder(root, tmp_path, unit="dB", masks=str(masks), classes="land,water")


def test_masks_need_names_and_a_folder(tmp_path, db):
    root = tmp_path / "raw"
    root.mkdir()
    write_bands(root / "a.tif", db, descriptions=("VH", "VV"))
    with pytest.raises(InputError, match="--masks= --classes=land,water: expected a folder"):
        build_folder(root, tmp_path, unit="dB", classes="land,water")
    with pytest.raises(InputError, match="found no such folder, expected the masks"):
        build_folder(root, tmp_path, unit="dB", classes="a,b", masks=str(tmp_path / "none"))
