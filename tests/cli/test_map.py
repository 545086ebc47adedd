"""The command `map` with a function of pixels in place of a model, called in this process."""

import dataclasses
import errno
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from rasterio.warp import transform

from sar_mixmae_jax.cli import map as command
from sar_mixmae_jax.data.metadata import DatasetDescription
from sar_mixmae_jax.inference import scene_input
from sar_mixmae_jax.inference.map_model import MapModel
from sar_mixmae_jax.inference.scene_grid import size_warnings, trained_pixel_size
from sar_mixmae_jax.inference.scene_pipeline import WindowPredictor
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.geotiff import write_band, write_bands
from tfds_builders.s1_folder.raster_files import read_file_metadata
from tfds_builders.s1_folder.scene_reader import NodataSettings

ORIGIN = (404_400.0, 5_342_400.0)


def place(row=0, column=0, spacing=10.0):
    """Transform of a grid whose corner is a pixel of the default grid of `write_bands`."""
    x, y = ORIGIN[0] + 10 * column, ORIGIN[1] - 10 * row
    return rasterio.Affine(spacing, 0, x, 0, -spacing, y)


def speckle(rows, columns, seed=0):
    """(band, row, column) VH and VV in dB."""
    return np.random.default_rng(seed).normal(-15, 2, (2, rows, columns)).astype(np.float32)


def write_scene(path, values, **profile):
    write_bands(path, values, **{"descriptions": ("VH", "VV"), **profile})


@pytest.fixture
def mapped(tmp_path, monkeypatch, capsys):
    """Run the command: (arguments, two dates) -> (exit status, output, errors)."""
    calls = []

    def dark(windows):
        """Water where VH is below -16 dB; of two dates, where it fell by more than 1 dB."""
        calls.append(len(windows[0]))
        water = windows[0][..., :1] < -16
        if len(windows) == 2:
            water = windows[1][..., :1] < windows[0][..., :1] - 1
        return water.astype(np.float32)

    def load(choice):
        predictor = WindowPredictor(32, 1, ("water",), 4, dark)
        dates = ("before", "after") if "flood" in str(choice.workdir) else ()
        tags = {"WEIGHTS_SHA256": choice.workdir.name, "MODEL": choice.which}
        return MapModel(
            "pixels",
            predictor,
            8,
            ("VH", "VV"),
            dates,
            ("land", "water"),
            tags,
            quantity="sigma0",
        )

    monkeypatch.setattr(command, "load_map_model", load)
    monkeypatch.setattr(
        "sar_mixmae_jax.inference.scene_products.draw_quicklook", lambda *_: b"picture"
    )
    monkeypatch.setattr(command.common, "configure_logging", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, workdir="water"):
        command.load_model.cache_clear()
        calls.clear()
        status = 0
        try:
            command.main(["map", f"--workdir={workdir}", "--out=maps", *map(str, arguments)])
        except SystemExit as error:
            status = error.code
        output = capsys.readouterr()
        return status, output.out, output.err, list(calls)

    return run


def classes(name):
    with warnings.catch_warnings(action="ignore"), rasterio.open(f"maps/{name}_classes.tif") as f:
        return f.read(1), f


def test_scenes_of_one_and_two_files_in_db_and_linear_power(mapped, tmp_path):
    db = speckle(40, 50)
    db[:, :3] = np.nan
    write_scene(tmp_path / "a_dB.tif", db[::-1], nodata=np.nan, descriptions=("VV", "VH"))
    power = np.nan_to_num(10 ** (db / 10)).astype(np.float32)  # nodata is 0 at the border
    for band, values in zip(("VH", "VV"), power, strict=True):
        write_band(tmp_path / f"b_{band}.tif", values)
    (tmp_path / "b_VH.tif").with_name("notes.tif").write_text("no GeoTIFF")
    status, out, _, _ = mapped("a_dB.tif", "--unit=dB")
    assert (status, out.startswith("1 of 1 scenes are mapped")) == (0, True)
    assert "a_dB_probability.tif, a_dB_classes.tif, a_dB.png" in out
    status, out, _, _ = mapped("b_VV.tif", "b_VH.tif", "--unit=linear")
    assert (status, out.startswith("1 of 1 scenes are mapped")) == (0, True)
    first, file = classes("a_dB")
    expected = (db[0] < -16).astype(np.uint8)
    expected[:3] = 255
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(classes("b")[0], expected)
    assert file.transform == place()
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == [
        f"{name}{end}"
        for name in ("a_dB", "b")
        for end in (".png", "_classes.tif", "_probability.tif")
    ]


def test_existing_maps_are_kept_unless_the_model_is_another(mapped, tmp_path):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    assert mapped("a_dB.tif")[3]
    before = (tmp_path / "maps" / "a_dB_classes.tif").stat().st_mtime_ns
    status, _, _, calls = mapped("a_dB.tif")
    assert (status, calls) == (0, [])
    (tmp_path / "maps" / "a_dB.png").unlink()  # not complete
    (tmp_path / "maps" / ".a_dB_classes.tif.1.partial").touch()
    assert mapped("a_dB.tif")[3]
    assert not (tmp_path / "maps" / ".a_dB_classes.tif.1.partial").exists()
    assert (tmp_path / "maps" / "a_dB_classes.tif").stat().st_mtime_ns > before
    status, out, err, calls = mapped("a_dB.tif", workdir="other")
    assert (status, calls) == (2, [])
    assert "WEIGHTS_SHA256 water, expected other" in out
    assert "failures.tsv" in err
    assert mapped("a_dB.tif", "--overwrite", workdir="other")[3]


def test_an_interrupted_replacement_leaves_no_map_of_two_models(mapped, tmp_path, monkeypatch):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    assert mapped("a_dB.tif")[0] == 0
    replace = Path.replace

    def end(path, target):
        if target == Path("maps/a_dB_classes.tif"):
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", end)
        assert mapped("a_dB.tif", "--overwrite", workdir="other")[0] == 130
    assert not (tmp_path / "maps" / "a_dB_classes.tif").exists()
    status, _, _, calls = mapped("a_dB.tif", workdir="other")
    assert (status, len(calls)) == (0, 1)
    assert not [path for path in (tmp_path / "maps").iterdir() if path.name.startswith(".")]


def test_a_folder_in_the_place_of_a_file_costs_no_map(mapped, tmp_path):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    assert mapped("a_dB.tif")[0] == 0
    picture = tmp_path / "maps" / "a_dB.png"
    picture.unlink()
    picture.mkdir()
    status, out, _, calls = mapped("a_dB.tif", "--overwrite")
    assert (status, calls) == (2, [])
    assert "a_dB.png: found a folder" in out
    assert classes("a_dB")[0].any()


def test_a_scene_that_another_process_maps_is_left_to_it(mapped, tmp_path):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    partial = tmp_path / "maps" / ".a_dB.12345678.partial"
    partial.mkdir(parents=True)
    with FileLock(tmp_path / "maps" / ".a_dB.lock"):
        status, out, _, calls = mapped("a_dB.tif")
    assert (status, calls) == (2, [])
    assert "another process maps this scene" in out
    assert partial.exists()
    assert mapped("a_dB.tif")[0] == 0
    assert not partial.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_no_geotiff(mapped, tmp_path):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    os.mkfifo(tmp_path / "pipe.tif")
    assert mapped("a_dB.tif")[0] == 0
    status, out, _, _ = mapped("pipe.tif")
    assert status == 2
    assert "pipe.tif found a folder, pipe or device" in " ".join(out.split())


@pytest.mark.parametrize("name", ["a_dB_probability.tif", "a_dB_classes.tif", "a_dB.png"])
def test_a_damaged_file_does_not_count_as_a_map(mapped, tmp_path, name):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    assert mapped("a_dB.tif")[0] == 0
    file = tmp_path / "maps" / name
    file.write_bytes(b"")
    status, _, _, calls = mapped("a_dB.tif")
    assert (status, len(calls)) == (0, 1)
    if file.suffix == ".tif":
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 40)
        status, out, _, calls = mapped("a_dB.tif")
        assert (status, calls) == (2, [])
        assert f"{name} cannot be read" in out


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not reserved here")
def test_a_full_disk_fails_a_scene_in_one_line(mapped, tmp_path, monkeypatch):
    db = speckle(40, 40)
    write_scene(tmp_path / "a_dB.tif", db)
    db[:, :3] = 0  # nodata of a mask that is written
    write_scene(tmp_path / "zeros_dB.tif", db)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    status, out, err, _ = mapped("zeros_dB.tif", "a_dB.tif")
    assert status == 2
    assert "1 of 2 scenes are mapped" in out
    assert "0.npy cannot be written (OSError: [Errno 28] No space left on device)" in out
    monkeypatch.setattr(command, "atomic_write", full)
    status, _, err, _ = mapped("zeros_dB.tif", "a_dB.tif")
    assert status == 2
    assert "0.npy cannot be written" in err.splitlines()[-1]


def test_a_kept_map_has_the_same_dates_files_and_settings(mapped, tmp_path):
    for seed, name in enumerate(("april", "may", "june")):
        write_scene(tmp_path / f"{name}_dB.tif", speckle(40, 40, seed))
    pair = ["--before=may_dB.tif", "--after=june_dB.tif"]
    assert mapped(*pair, workdir="flood")[3]
    assert mapped("--before=april_dB.tif", pair[1], workdir="flood")[3]
    assert mapped(*pair, workdir="flood")[3] == []
    for option, tag in (
        ("--threshold=0.7", "THRESHOLD"),
        ("--nodata=-99", "NODATA"),
        ("--erode_border=2", "ERODE_BORDER"),
    ):
        status, out, _, calls = mapped(*pair, option, workdir="flood")
        assert (status, calls) == (2, [])
        assert f"found a map with {tag} " in out
    write_scene(tmp_path / "may_dB.tif", speckle(40, 40, seed=9))
    assert "found a map with INPUT_STAMP" in mapped(*pair, workdir="flood")[1]


def test_files_of_a_folder_are_opened_once(tmp_path, monkeypatch):
    for name in "abc":
        write_scene(tmp_path / f"{name}_dB.tif", speckle(8, 8))
    opened = []

    def read(root, path, *arguments, **options):
        opened.append(path.name)
        return read_file_metadata(root, path, *arguments, **options)

    monkeypatch.setattr(scene_input, "read_file_metadata", read)
    paths = [str(tmp_path / f"{name}_dB.tif") for name in "abc"]
    scenes, wrong = scene_input.find_scenes(
        paths, scene_input.MapMetadata(model_bands=("VH", "VV"))
    )
    assert ([str(scene.path) for scene in scenes], wrong) == (paths, [])
    assert opened == ["a_dB.tif", "b_dB.tif", "c_dB.tif"]


def test_scenes_without_a_measurement_are_mapped_as_nodata_and_counted(mapped, tmp_path):
    db = speckle(40, 40)
    write_scene(tmp_path / "a_dB.tif", db)
    write_scene(tmp_path / "nothing_dB.tif", db * np.nan)
    db[0] = np.nan
    write_scene(tmp_path / "half_dB.tif", db)
    status, out, _, calls = mapped("a_dB.tif", "nothing_dB.tif", "half_dB.tif")
    assert (status, len(calls)) == (0, 1)
    assert "all nodata: 2 (nothing_dB, half_dB)" in out
    for name in ("nothing_dB", "half_dB"):
        assert (classes(name)[0] == 255).all()
    assert "all nodata" not in mapped("a_dB.tif", "nothing_dB.tif")[1]  # kept
    (tmp_path / "maps" / ".nothing_dB.empty").touch()  # by a call that was interrupted
    assert "all nodata: 1 (nothing_dB)" in mapped("a_dB.tif", "nothing_dB.tif")[1]
    assert not [path for path in (tmp_path / "maps").iterdir() if path.name.startswith(".")]


def test_failures_end_in_a_table_and_the_others_are_mapped(mapped, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    write_scene(folder / "good_dB.tif", speckle(40, 40))
    write_scene(folder / "placeless_dB.tif", speckle(40, 40), crs=None, transform=None)
    write_scene(folder / "power_dB.tif", 10 ** (speckle(40, 40) / 10))
    write_scene(folder / "integers_dB.tif", speckle(40, 40).astype(np.int16))
    write_band(folder / "single_VV_dB.tif", speckle(40, 40)[0])
    (folder / "broken_VV_dB.tif").write_bytes(b"II*\0" + bytes(20))
    status, out, err, _ = mapped("scenes")
    assert status == 2
    assert out.startswith("2 of 3 scenes are mapped")
    assert [line.split(",")[0] for line in out.splitlines()[1:3]] == [
        "  good_dB_probability.tif",
        "  placeless_dB_probability.tif",
    ]
    assert "not georeferenced (scene has no CRS): placeless_dB" in out
    table = (tmp_path / "maps" / "failures.tsv").read_text().splitlines()
    assert table[0] == "file\treason"
    reasons = {line.split("\t")[0].split("/")[-1]: line.split("\t")[1] for line in table[1:]}
    assert "linear power" in reasons["power_dB"]
    assert "int16" in reasons["integers_dB.tif"]
    assert "no VH" in reasons["single_VV_dB.tif"]
    assert "cannot be read" in reasons["broken_VV_dB.tif"]
    assert err.splitlines()[-1].startswith("error: 4 scenes or files were not mapped")
    assert {p.name for p in (tmp_path / "maps").glob("*_classes.tif")} == {
        "good_dB_classes.tif",
        "placeless_dB_classes.tif",
    }
    status, _, err, _ = mapped("scenes/single_VV_dB.tif")
    assert status == 2


def test_pairs_are_mapped_on_the_grid_of_the_first(mapped, tmp_path):
    before, after = speckle(60, 60), speckle(80, 80, seed=1)
    write_scene(tmp_path / "may_dB.tif", before)
    write_scene(tmp_path / "june_dB.tif", after, transform=place(row=-10, column=20))
    status, _, _, _ = mapped("--before=may_dB.tif", "--after=june_dB.tif", workdir="flood")
    assert status == 0
    found, file = classes("may_dB_to_june_dB")
    assert file.shape == (60, 60)
    assert file.transform == place()
    there = after[0, 10:70, :40]  # rows 0 to 60, columns 20 to 60 of the first
    np.testing.assert_array_equal(found[:, 20:], there < before[0, :, 20:] - 1)
    assert (found[:, :20] == 255).all()  # outside of the second


def test_a_pair_in_another_crs_lands_at_the_same_place(mapped, tmp_path):
    before = np.full((2, 60, 60), -10, np.float32)
    after = np.full((2, 90, 90), -10, np.float32)
    x, y = transform("EPSG:32633", "EPSG:4326", [ORIGIN[0] + 305], [ORIGIN[1] - 205])
    degrees = rasterio.Affine(1.2e-4, 0, x[0] - 45.5 * 1.2e-4, 0, -8e-5, y[0] + 45.5 * 8e-5)
    after[:, 44:47, 44:47] = -20  # around row 20, column 30 of the first
    write_scene(tmp_path / "may_dB.tif", before)
    write_scene(tmp_path / "june_dB.tif", after, crs="EPSG:4326", transform=degrees)
    assert mapped("--before=may_dB.tif", "--after=june_dB.tif", workdir="flood")[0] == 0
    rows, columns = np.nonzero(classes("may_dB_to_june_dB")[0] == 1)
    np.testing.assert_allclose([rows.mean(), columns.mean()], [20, 30], atol=0.6)
    assert 4 <= len(rows) <= 16


def second_date(tmp_path):
    """Rows of may.tif and june.tif, (row, column, band) dB, on the grid of the first."""
    metadata = scene_input.MapMetadata(model_bands=("VH", "VV"))
    paths = [str(tmp_path / f"{month}_dB.tif") for month in ("may", "june")]
    dates, _ = scene_input.find_pair(*paths, metadata)
    stem = tmp_path / "map"
    with scene_input.open_scenes(dates, ("VH", "VV"), NodataSettings(), stem) as scene:
        return scene.dates[1](0, scene.grid.shape[0]), scene.tags


def test_smaller_pixels_of_a_second_date_are_averaged_as_power(tmp_path, capsys):
    after = speckle(80, 80)
    after[:, 2:4, 4:6] = np.nan
    write_scene(tmp_path / "may_dB.tif", speckle(40, 40))
    write_scene(tmp_path / "june_dB.tif", after, transform=place(spacing=5.0))
    found, tags = second_date(tmp_path)
    power = np.mean(10 ** (after.reshape(2, 40, 2, 40, 2) / 10), axis=(2, 4))
    np.testing.assert_allclose(np.moveaxis(found, -1, 0), 10 * np.log10(power), atol=1e-3)
    assert np.isnan(found[1, 2]).all()
    assert tags["PIXEL_SIZE_M"] == "10 x 10"
    assert "repeated" not in capsys.readouterr().err
    write_scene(tmp_path / "june_dB.tif", speckle(40, 40), transform=place(spacing=20.0))
    second_date(tmp_path)
    assert "pixels of 20 x 20 m, which are repeated on the 10 x 10 m" in capsys.readouterr().err


@pytest.mark.parametrize("west", [179.99, -180.01])
def test_a_pair_across_the_antimeridian_is_one_place(tmp_path, west):
    after = np.full((2, 90, 90), -20, np.float32)
    degrees = rasterio.Affine(2e-4, 0, west, 0, -2e-4, 0.01)  # 0.02 degrees, half of it east
    write_scene(tmp_path / "may_dB.tif", speckle(100, 100), crs="EPSG:4326", transform=degrees)
    x, y = transform("EPSG:4326", "EPSG:32660", [180.0], [0.0])
    around = rasterio.Affine(30.0, 0, x[0] - 45 * 30, 0, -30.0, y[0] + 45 * 30)
    write_scene(tmp_path / "june_dB.tif", after, crs="EPSG:32660", transform=around)
    assert (second_date(tmp_path)[0] == -20).all()
    other = rasterio.Affine(2e-4, 0, west - np.sign(west) * 360, 0, -2e-4, 0.01)
    write_scene(tmp_path / "june_dB.tif", after, crs="EPSG:4326", transform=other)
    assert (second_date(tmp_path)[0][:90, :90] == -20).all()


def test_implausible_values_and_other_pixel_sizes_are_reported(mapped, tmp_path):
    values = speckle(40, 40)
    values[0] += 3
    write_scene(tmp_path / "a_dB.tif", values, transform=place(spacing=20.0))
    assert "cross-polarised brighter than co-polarised" in mapped("a_dB.tif")[2]
    metadata = scene_input.MapMetadata(model_bands=("VH", "VV"))
    scene = scene_input.find_scenes([str(tmp_path / "a_dB.tif")], metadata)[0][0].scene
    older = DatasetDescription("bigearthnet_s1/v2/train")
    (warning,) = size_warnings(scene, trained_pixel_size(older))
    assert "a_dB has pixels of 20 x 20 m, and the model was trained on 10 m" in warning
    unknown = DatasetDescription("s1_folder/own/train")
    assert size_warnings(scene, trained_pixel_size(unknown)) == []
    known = dataclasses.replace(unknown, pixel_size=18.0)
    assert size_warnings(scene, trained_pixel_size(known)) == []


def test_another_quantity_than_that_of_the_training_is_reported(mapped, tmp_path):
    for quantity in ("gamma0", "beta0"):
        write_scene(tmp_path / f"{quantity}_dB.tif", speckle(40, 40))
    status, _, err, _ = mapped("gamma0_dB.tif")
    assert status == 0
    assert "gamma0_dB is gamma0, and the model was trained on sigma0" in err
    status, out, _, _ = mapped("beta0_dB.tif")
    assert status == 2
    assert "found beta0, expected sigma0 or gamma0" in out
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    assert "trained on" not in mapped("a_dB.tif")[2]
    assert "a_dB is gamma0" in mapped("a_dB.tif", "--quantity=gamma0", "--overwrite")[2]


def test_dates_of_different_quantities_are_refused(tmp_path):
    metadata = scene_input.MapMetadata(model_bands=("VH", "VV"))
    paths = {name: tmp_path / f"{name}_dB.tif" for name in ("may", "may_sigma0", "june_gamma0")}
    for path in paths.values():
        write_scene(path, speckle(40, 40))
    before, sigma0, gamma0 = map(str, paths.values())
    assert len(scene_input.find_pair(before, gamma0, metadata)[0]) == 2  # one is not known
    with pytest.raises(InputError, match="--before of sigma0 and --after of gamma0"):
        scene_input.find_pair(sigma0, gamma0, metadata)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found no scene"),
        (["missing.tif"], "found no such file"),
        (["--before=a_dB.tif"], "found --before with 0 scenes: give both"),
        (["--before=a_dB.tif", "--after=far_dB.tif"], "no common place"),
        (["a_dB.tif", "copy"], "two scenes named a_dB"),
        (["a_dB.tif", "--out=a_dB.tif/maps"], "--out .* cannot be written"),
        (["empty"], "found no file"),
        (["a_dB.tif", "--components=2"], "--components without --features"),
        (["a_dB.tif", "--features", "--threshold=0.4"], "--threshold with --features"),
        (["--before=copy", "--after=a_dB.tif"], "found 2 scenes in --before=copy"),
        (["--before=a_dB.tif", "--after=a_dB.tif"], "expected two scenes"),
        (
            ["--before=b_20210607T050000_dB.tif", "--after=b_20210301T050000_dB.tif"],
            "found --before of 2021-06-07T05:00:00 and --after of 2021-03-01T05:00:00",
        ),
    ],
)
def test_command_lines_that_cannot_be_used(mapped, tmp_path, arguments, message):
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    write_scene(tmp_path / "far_dB.tif", speckle(40, 40), transform=place(row=500))
    for folder in ("copy", "empty"):
        (tmp_path / folder).mkdir()
    for path in ("copy/a_dB.tif", "copy/c_dB.tif"):
        write_scene(tmp_path / path, speckle(40, 40))
    for month in ("0301", "0607"):
        write_scene(tmp_path / f"b_2021{month}T050000_dB.tif", speckle(40, 40))
    workdir = "flood" if "--after=far_dB.tif" in arguments else "water"
    status, out, err, _ = mapped(*arguments, workdir=workdir)
    assert status == 2
    assert err.splitlines()[-1].startswith("error: ")
    assert all(part in out + err for part in message.split(" .* "))


def test_a_beam_runner_maps_the_same_scenes(mapped, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra tensorflow")
    write_scene(tmp_path / "a_dB.tif", speckle(40, 40))
    write_scene(tmp_path / "power_dB.tif", 10 ** (speckle(40, 40) / 10))
    status, out, _, _ = mapped("a_dB.tif", "power_dB.tif", "--runner=DirectRunner")
    assert status == 2
    assert "1 of 2 scenes are mapped" in out
    assert "linear power" in out
    np.testing.assert_array_equal(classes("a_dB")[0], speckle(40, 40)[0] < -16)
