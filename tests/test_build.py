"""Building datasets: what the records hold, and that a failed build leaves nothing."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tensorflow_datasets as tfds
from absl import flags
from absl.testing import flagsaver

import tfds_builders
from sar_mixmae_jax.errors import InputError
from tfds_builders.bigearthnet_s1.imitation import labels, write_patch, write_patches
from tfds_builders.bigearthnet_s1.labels import CLASSES_19, to_19
from tfds_builders.build import DATA_DIR, MANUAL_DIR, build, builder_names, main, make_builder
from tfds_builders.geotiff import write_band
from tfds_builders.synthetic_s1 import synthetic_s1_dataset_builder as synthetic
from tfds_builders.synthetic_s1.simulator import simulate


def records_of(folder) -> tuple[tfds.core.DatasetInfo, dict[str, dict]]:
    builder = tfds.builder_from_directory(folder)
    source = builder.as_data_source("train")
    return builder.info, {record["id"].decode(): record for record in source}


def test_bigearthnet_records_are_the_files(raw, built):
    info, records = records_of(built / "bigearthnet_s1/v1/1.0.0")
    assert len(records) == 8
    for folder in raw.iterdir():
        record = records[folder.name]
        for band, name in enumerate(info.metadata["bands"]):
            with rasterio.open(folder / f"{folder.name}_{name}.tif") as raster:
                np.testing.assert_array_equal(record["backscatter"][..., band], raster.read(1))
        number = int(folder.name.split("_")[-2])
        names = [CLASSES_19[index] for index in np.flatnonzero(record["labels"])]
        assert names == to_19(labels(number))


def test_metadata_says_what_the_numbers_are(built):
    info, _ = records_of(built / "bigearthnet_s1/v1/1.0.0")
    metadata = info.metadata
    assert metadata["bands"] == ["VH", "VV"]
    assert (metadata["unit"], metadata["nodata"]) == ("dB", "NaN")
    assert metadata["statistics"]["std"] == [3.1672, 2.9644]
    assert "per-patch" in metadata["statistics"]["of"]
    assert metadata["classes"] == list(CLASSES_19)


def test_nodata_is_nan_in_the_record(tmp_path):
    folder = write_patch(tmp_path / "raw", 1)
    path = folder / f"{folder.name}_VH.tif"
    with rasterio.open(path) as raster:
        values = raster.read(1)
    values[:7] = -99.0
    write_band(path, values, nodata=-99.0)
    _, records = records_of(build("bigearthnet_s1", tmp_path / "data", tmp_path / "raw"))
    nodata = np.isnan(records[folder.name]["backscatter"])
    assert nodata[:7, :, 0].all()
    assert nodata.sum() == 7 * 120


def test_synthetic_records_are_the_simulation(tmp_path):
    config = synthetic.Config(name="few", patches=3, seed=4)
    builder = synthetic.Builder(data_dir=tmp_path, config=config, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    info, records = records_of(builder.data_path)
    assert sorted(records) == [f"synthetic_4_00000{i}" for i in range(3)]
    patch, record = simulate(120, (4, 2)), records["synthetic_4_000002"]
    np.testing.assert_array_equal(record["backscatter"], patch.backscatter)
    np.testing.assert_array_equal(record["noise_free"], patch.noise_free)
    classes = info.metadata["classes"]
    assert [classes[i] for i in np.flatnonzero(record["labels"])] == patch.classes


def test_every_folder_is_a_dataset():
    folders = {
        path.parent.name for path in Path(tfds_builders.__file__).parent.glob("*/*_builder.py")
    }
    assert set(builder_names()) == folders
    for name in folders:
        assert make_builder(name, "nowhere").name == name


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="did you mean 'bigearthnet_s1'"):
        make_builder("bigearthnet", tmp_path)
    with pytest.raises(InputError, match=r"unknown config of synthetic_s1 'large'.*small"):
        make_builder("synthetic_s1/large", tmp_path)


def break_band(folder):
    (folder / f"{folder.name}_VV.tif").unlink()


def break_json(folder):
    (folder / f"{folder.name}_labels_metadata.json").write_text('{"labels": ["Moon"]}')


def break_tiff(folder):
    path = folder / f"{folder.name}_VV.tif"
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.parametrize("damage", [break_band, break_json, break_tiff])
def test_a_bad_patch_stops_the_build_and_leaves_nothing(tmp_path, damage):
    raw = write_patches(tmp_path / "raw", 3)
    damage(raw / "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_1_48")
    with pytest.raises(InputError, match="33UUP_1_48"):
        build("bigearthnet_s1", tmp_path / "data", raw)
    left = [path for path in (tmp_path / "data").rglob("*") if ".config" not in path.parts]
    assert left in ([], [tmp_path / "data" / "bigearthnet_s1"])


def test_empty_and_absent_folders(tmp_path):
    empty, files = tmp_path / "empty", tmp_path / "files"
    empty.mkdir()
    files.mkdir()
    (files / "notes.txt").write_text("no patches here")
    with pytest.raises(InputError, match="or an empty one"):
        build("bigearthnet_s1", tmp_path / "data", empty)
    with pytest.raises(InputError, match="found no patch folder"):
        build("bigearthnet_s1", tmp_path / "data", files)
    with pytest.raises(InputError, match="no such folder"):
        build("bigearthnet_s1", tmp_path / "data", tmp_path / "absent")
    with pytest.raises(InputError, match="no --manual_dir"):
        build("bigearthnet_s1", tmp_path / "data")


def test_the_command_says_what_was_wrong_in_one_line(tmp_path, capsys):
    raw = write_patches(tmp_path / "raw", 2)
    break_band(next(raw.iterdir()))
    flags.FLAGS.mark_as_parsed()
    settings = (DATA_DIR, str(tmp_path / "data")), (MANUAL_DIR, str(raw))
    for arguments, message in (
        (["build"], "found 0 dataset names, expected one of bigearthnet_s1"),
        (["build", "bigearthnet"], "did you mean 'bigearthnet_s1'"),
        (["build", "bigearthnet_s1"], "found no such file, expected one for each of VH, VV"),
    ):
        with flagsaver.flagsaver(*settings), pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message in lines[0]


def test_only_what_the_build_made_is_cleaned_up(raw, tmp_path):
    """The data folder may hold other things, and empty folders of others."""
    (tmp_path / "results" / "tomorrow").mkdir(parents=True)
    build("bigearthnet_s1", tmp_path, raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bigearthnet_s1", "results"]
    assert (tmp_path / "results" / "tomorrow").is_dir()


def test_what_is_built_already_is_said_to_be(raw, built, capsys):
    build("bigearthnet_s1", built, raw)
    assert "is built already: remove it to build it again" in capsys.readouterr().out
