"""Building: records, bad files, interruptions, verification, order; nothing half-made stays."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core import shuffle

import tfds_builders
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import build as command
from tfds_builders import patch_builder, plan, shards, staging
from tfds_builders.bad_files import BadFilesError
from tfds_builders.bigearthnet_s1.fake_patches import patch_name, write_patch, write_patches
from tfds_builders.build import build, builder_names, make_builder
from tfds_builders.geotiff import write_band
from tfds_builders.plan import BuildSettings
from tfds_builders.synthetic_s1 import synthetic_s1_dataset_builder as synthetic
from tfds_builders.synthetic_s1.simulator import labels, simulate

ROOT = Path(tfds_builders.__file__).parents[1]
UNSPLIT = "bigearthnet_s1/v1_unsplit"
FEW = {"patches": 30, "size": 32}


def records_of(folder, split="train") -> tuple[tfds.core.DatasetInfo, dict[str, dict]]:
    builder = tfds.builder_from_directory(folder)
    source = builder.as_data_source(split)
    return builder.info, {record["id"].decode(): record for record in source}


def content(folder) -> dict[str, bytes]:
    """All files of a dataset by name."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def left(data_dir) -> list[str]:
    """Return the files that a failed build left, without TFDS's note on configs."""
    paths = [path for path in Path(data_dir).rglob("*") if ".config" not in path.parts]
    return sorted(path.name for path in paths if path.is_file())


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of three patches, so that few patches make many."""
    monkeypatch.setattr(plan, "PATCHES_PER_SHARD", 3)


# ---- what is built


def test_metadata_says_what_the_numbers_are(built):
    info, _ = records_of(built / "bigearthnet_s1/v1/2.0.0")
    metadata = info.metadata
    assert metadata["bands"] == ["VH", "VV"]
    assert (metadata["unit"], metadata["nodata"]) == ("dB", "NaN")
    assert metadata["statistics"]["std"] == [3.1672, 2.9644]
    assert "per-patch" in metadata["statistics"]["of"]
    assert metadata["left_out"] == {"patches": 0, "bad_files": 0}
    assert len(metadata["checksum"]) == 64


def test_what_was_measured_while_building_is_in_the_metadata(built):
    for split in ("train", "test"):
        info, records = records_of(built / "bigearthnet_s1/v1/2.0.0", split)
        values = np.stack([record["backscatter"] for record in records.values()])
        values = values.reshape(-1, 2).astype(float)
        measured = info.metadata["measured"][split]
        np.testing.assert_allclose(measured["mean"], np.nanmean(values, 0))
        np.testing.assert_allclose(measured["global_deviation"], np.nanstd(values, 0))
        np.testing.assert_allclose(measured["nodata_share"], np.isnan(values).mean(0))


def test_nodata_is_nan_in_the_record(tmp_path):
    folder = write_patch(tmp_path / "raw", 1)
    path = folder / f"{folder.name}_VH.tif"
    values = simulate(120, (7, 1)).backscatter[..., 0]
    values[:7] = -99.0
    write_band(path, values, nodata=-99.0)
    _, records = records_of(build(UNSPLIT, tmp_path / "data", tmp_path / "raw"))
    assert np.isnan(records[folder.name]["backscatter"][:7, :, 0]).all()


def test_synthetic_records_are_the_simulation(tmp_path):
    folder = build("synthetic_s1/few", tmp_path, options={**FEW, "patches": 3, "seed": 4})
    info, records = records_of(folder)
    assert sorted(records) == [f"synthetic_4_train_00000{i}" for i in range(3)]
    patch, record = simulate(32, (4, 0, 2)), records["synthetic_4_train_000002"]
    np.testing.assert_array_equal(record["backscatter"], patch.backscatter)
    np.testing.assert_array_equal(record["noise_free"], patch.noise_free)
    np.testing.assert_array_equal(record["land_cover"], patch.land_cover)
    assert record["incidence_angle"] == pytest.approx(patch.incidence_angle)
    classes = info.metadata["classes"]
    assert [classes[i] for i in np.flatnonzero(record["labels"])] == labels(patch)
    held_out = set(records_of(folder, "validation")[1]) | set(records_of(folder, "test")[1])
    assert held_out == {"synthetic_4_validation_000000", "synthetic_4_test_000000"}


def test_synthetic_records_have_the_bands_that_are_asked_for(tmp_path):
    options = {**FEW, "patches": 1, "bands": "HH,HV"}
    info, records = records_of(build("synthetic_s1/few", tmp_path, options=options))
    patch = simulate(32, (0, 0, 0), ("HV", "HH"))
    record = records["synthetic_0_train_000000"]
    assert info.metadata["bands"] == ["HV", "HH"]
    np.testing.assert_array_equal(record["backscatter"], patch.backscatter)
    np.testing.assert_array_equal(record["noise_free"], patch.noise_free)
    for bands in ("VV,HH", "VV,VX", "VV,VV", ""):
        with pytest.raises(InputError, match="expected VH,VV or HV,HH, or one band"):
            build("synthetic_s1/few", tmp_path / "no", options={**FEW, "bands": bands})


def test_half_precision_loses_less_than_a_sixtyfourth_of_a_db(raw, built, tmp_path):
    folder = build("bigearthnet_s1/v1_float16", tmp_path, raw)
    _, full = records_of(built / "bigearthnet_s1/v1/2.0.0")
    _, half = records_of(folder)
    assert next(iter(half.values()))["backscatter"].dtype == np.float16
    for name, record in full.items():
        error = half[name]["backscatter"].astype(np.float32) - record["backscatter"]
        assert 0 < np.nanmax(np.abs(error)) <= 1 / 64
    size, full_size = (
        sum(split.num_bytes for split in tfds.builder_from_directory(f).info.splits.values())
        for f in (folder, built / "bigearthnet_s1/v1/2.0.0")
    )
    assert size < 0.6 * full_size


# ---- order and shards


def test_the_order_comes_from_a_seed_and_not_from_the_processes(tmp_path, small_shards):
    """With more than ten shards of unequal length, read back whole."""
    folders = [
        build(
            "synthetic_s1/few",
            tmp_path / str(number),
            options={**FEW, "patches": 35},
            settings=BuildSettings(processes=processes, order_seed=seed),
        )
        for number, (processes, seed) in enumerate(((1, 0), (2, 0), (1, 1)))
    ]
    info, records = records_of(folders[0])
    lengths = info.splits["train"].shard_lengths
    assert len(lengths) == 12
    assert set(lengths) == {2, 3}
    assert set(records) == {f"synthetic_0_train_{number:06d}" for number in range(35)}
    assert content(folders[0]) == content(folders[1])
    _, other = records_of(folders[2])
    assert set(other) == set(records)
    assert list(other) != list(records)
    assert info.metadata["checksum"] != records_of(folders[2])[0].metadata["checksum"]


def test_a_split_beyond_the_buffer_of_the_library_works(tmp_path, monkeypatch):
    """TFDS shuffles through TensorFlow's files once a split passes its buffer, of a gigabyte."""
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    assert len(records_of(build("synthetic_s1/few", tmp_path, options=FEW))[1]) == 30


def test_array_record_is_the_format_even_if_nobody_says_so(tmp_path):
    """TFDS's own default needs TensorFlow, and cannot be read at random."""
    builder = synthetic.Builder(data_dir=tmp_path, config=synthetic.Config(name="few", **FEW))
    builder.download_and_prepare()
    assert builder.info.file_format.value == "array_record"
    assert len(builder.as_data_source("train")) == 30


# ---- names


def test_every_folder_is_a_dataset():
    assert {"bigearthnet_s1", "s1_folder", "synthetic_s1"} <= set(builder_names())
    for name in builder_names():
        assert make_builder(name, "nowhere").name == name


def test_every_config_can_be_described(tmp_path):
    for name in builder_names():
        for config in command.builder_class(name).builder_configs:
            info = make_builder(f"{name}/{config}", tmp_path).info
            assert info.metadata["bands"] == ["VH", "VV"]


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="did you mean 'bigearthnet_s1'"):
        make_builder("bigearthnet", tmp_path)
    with pytest.raises(InputError, match=r"unknown config of synthetic_s1 'large'.*small"):
        make_builder("synthetic_s1/large", tmp_path)


def test_options_make_a_config_with_a_name_of_its_own(tmp_path):
    with pytest.raises(InputError, match="--patches would change the config small"):
        make_builder("synthetic_s1/small", tmp_path, {"patches": 3})
    assert make_builder("synthetic_s1", tmp_path, {"patches": 3}).builder_config.name == "own"
    builder = make_builder("synthetic_s1/three", tmp_path, {"patches": 3})
    assert (builder.builder_config.name, builder.builder_config.patches) == ("three", 3)
    assert make_builder("synthetic_s1", tmp_path).builder_config.patches == 512


def test_what_is_built_already_is_said_to_be(raw, built, tmp_path, capsys):
    build("bigearthnet_s1", built, raw)
    assert "is built already: remove it to build it again" in capsys.readouterr().err
    build("synthetic_s1/few", tmp_path, options=FEW)
    with pytest.raises(InputError, match=r"was built with .*order_seed': 0.*order_seed': 1"):
        build("synthetic_s1/few", tmp_path, options=FEW, settings=BuildSettings(order_seed=1))
    with pytest.raises(InputError, match=r"was built with .*: 30.*expected .*: 31"):
        build("synthetic_s1/few", tmp_path, options={**FEW, "patches": 31})


def test_empty_and_absent_folders(tmp_path):
    empty, files = tmp_path / "empty", tmp_path / "files"
    empty.mkdir()
    files.mkdir()
    (files / "notes.txt").write_text("no patches here")
    with pytest.raises(InputError, match="or an empty one"):
        build(UNSPLIT, tmp_path / "data", empty)
    with pytest.raises(InputError, match="found no patch folder"):
        build(UNSPLIT, tmp_path / "data", files)
    with pytest.raises(InputError, match="no such folder"):
        build(UNSPLIT, tmp_path / "data", tmp_path / "absent")
    with pytest.raises(InputError, match="no --manual_dir"):
        build(UNSPLIT, tmp_path / "data")
    with pytest.raises(InputError, match="found no file"):
        build("s1_folder", tmp_path / "data", files)
    assert left(tmp_path / "data") == []


def test_a_file_where_a_folder_is_needed(tmp_path):
    """Also where TFDS, which knows folders only, would take the file's own."""
    raw = write_patches(tmp_path / "raw", 1)
    file = tmp_path / "raw.zip"
    file.write_bytes(b"PK")
    for name in (UNSPLIT, "bigearthnet_s1/v2", "s1_folder"):
        with pytest.raises(InputError, match=r"raw\.zip is a file, and .* is built from a folder"):
            build(name, tmp_path / "data", file)
    assert left(tmp_path / "data") == []
    assert len(records_of(build(UNSPLIT, tmp_path / "data", raw))[1]) == 1


def test_a_file_is_no_harm_where_no_raw_data_are_needed(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    build("synthetic_s1/few", tmp_path / "data", tmp_path / "notes.txt", FEW)


# ---- bad files


def band(folder, name="VV"):
    return folder / f"{folder.name}_{name}.tif"


def json_of(folder):
    return folder / f"{folder.name}_labels_metadata.json"


def rewrite(path, change, **profile):
    values = simulate(120, (7, 1)).backscatter[..., 1]
    write_band(path, change(values), **profile)


def spoil(values, value):
    values[5, 5] = value
    return values


DAMAGES = {
    "missing band": (lambda f: band(f).unlink(), "found no such file"),
    "truncated": (lambda f: os.truncate(band(f), 20_000), "cannot be read as a GeoTIFF"),
    "empty": (lambda f: os.truncate(band(f), 0), "cannot be read as a GeoTIFF"),
    "shape": (lambda f: rewrite(band(f), lambda v: v[:90]), "expected (1, 120, 120)"),
    "integers": (lambda f: rewrite(band(f), lambda v: v.astype(np.int16)), "found int16"),
    "nodata": (lambda f: rewrite(band(f), lambda v: v * np.nan), "nodata only"),
    "infinite": (lambda f: rewrite(band(f), lambda v: spoil(v, np.inf)), "infinite"),
    "implausible": (lambda f: rewrite(band(f), lambda v: spoil(v, -95)), "between -90 and 50"),
    "linear": (lambda f: rewrite(band(f), lambda v: 10 ** (v / 10)), "linear power, expected dB"),
    "place": (lambda f: rewrite(band(f), lambda v: v, crs="EPSG:32634"), "expected one grid"),
    "missing JSON": (lambda f: json_of(f).unlink(), "found no usable labels"),
    "no JSON": (lambda f: json_of(f).write_text("{"), "found no usable labels"),
    "label": (lambda f: json_of(f).write_text('{"labels": ["Moon"]}'), "unknown CORINE label"),
    "folder": (lambda f: (band(f).unlink(), band(f).mkdir()), "found no such file"),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A good patch, and one for each kind of damage."""
    raw = write_patches(tmp_path_factory.mktemp("bad"), len(DAMAGES) + 1)
    for number, (damage, _) in enumerate(DAMAGES.values(), start=1):
        damage(raw / patch_name(number))
    return raw


def test_all_bad_files_are_collected_and_nothing_is_left(damaged, tmp_path, capsys):
    with pytest.raises(BadFilesError) as raised:
        build(UNSPLIT, tmp_path, damaged)
    told = {
        next(part for part in Path(problem.file).parts if part.startswith("S1A")): problem.reason
        for problem in raised.value.bad_files
    }
    assert set(told) == {patch_name(number) for number in range(1, len(DAMAGES) + 1)}
    for number, (_, message) in enumerate(DAMAGES.values(), start=1):
        assert message in told[patch_name(number)]
    table = capsys.readouterr().err
    assert all(name in table for name in told)
    assert left(tmp_path) == []


def test_both_files_of_a_patch_are_named(tmp_path):
    folder = write_patch(tmp_path / "raw", 1)
    for path in (band(folder, "VV"), band(folder, "VH"), json_of(folder)):
        os.truncate(path, 10)
    with pytest.raises(BadFilesError) as raised:
        build(UNSPLIT, tmp_path / "data", tmp_path / "raw")
    assert len(raised.value.bad_files) == 3


def test_bad_files_are_left_out_and_counted(damaged, tmp_path, small_shards):
    folder = build(UNSPLIT, tmp_path, damaged, settings=BuildSettings(skip_bad=True))
    info, records = records_of(folder)
    assert set(records) == {patch_name(0)}
    bad = len(DAMAGES)
    assert info.metadata["left_out"] == {"patches": bad, "bad_files": bad}
    assert len((folder / "bad_files.tsv").read_text().splitlines()) == bad + 1
    assert f"left out: {bad} patches" in command.build_summary(folder)


def test_a_long_table_is_written_to_a_file(damaged, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(patch_builder, "TABLE_ROWS", 5)
    with pytest.raises(BadFilesError):
        build(UNSPLIT, tmp_path, damaged)
    told = capsys.readouterr().err
    assert f"… and {len(DAMAGES) - 5} more" in told
    path = Path(told.splitlines()[-1].removeprefix("all of them: "))
    assert len(path.read_text().splitlines()) == len(DAMAGES) + 1


def test_a_split_of_which_nothing_can_be_used(tmp_path):
    folder = write_patch(tmp_path / "raw", 1)
    os.truncate(band(folder), 10)
    with pytest.raises(InputError, match="split train has no patch that can be used"):
        build(UNSPLIT, tmp_path / "data", tmp_path / "raw", settings=BuildSettings(skip_bad=True))
    assert left(tmp_path / "data") == []


def test_mended_files_are_read_again_and_good_shards_are_not(tmp_path, small_shards, monkeypatch):
    raw = write_patches(tmp_path / "raw", 9)
    kept = band(raw / patch_name(4)).read_bytes()
    os.truncate(band(raw / patch_name(4)), 10)
    with pytest.raises(BadFilesError, match=patch_name(4)):
        build(UNSPLIT, tmp_path / "data", raw)
    assert len([name for name in left(tmp_path / "data") if name.endswith(".json")]) == 2
    band(raw / patch_name(4)).write_bytes(kept)
    written = []
    write = shards.write_shard

    def counting(task, tick):
        written.append(task)
        return write(task, tick)

    monkeypatch.setattr(shards, "write_shard", counting)
    folder = build(UNSPLIT, tmp_path / "data", raw, settings=BuildSettings(processes=1))
    assert len(written) == 1
    assert len(records_of(folder)[1]) == 9
    assert content(folder) == content(
        build(UNSPLIT, tmp_path / "again", raw, settings=BuildSettings(processes=1))
    )


# ---- interruptions, disks, processes


PROGRAM = """
import sys
from tfds_builders import build, plan
plan.PATCHES_PER_SHARD = 100  # many shards of few patches
build.main(sys.argv)
"""
COMMAND = [sys.executable, "-c", PROGRAM, "synthetic_s1/many", "--size=32"]


def start(data_dir, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, "--patches=3000", f"--data_dir={data_dir}", "--processes=2", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_a_shard(data_dir, process):
    deadline = time.monotonic() + 100
    while not list(Path(data_dir).rglob("train-*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_dataset_and_goes_on_where_it_was(tmp_path, sent):
    process = start(tmp_path)
    wait_for_a_shard(tmp_path, process)
    others = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    expected = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    assert process.returncode == expected, errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(others, timeout=20)
    assert not alive  # processes of the pool end with their parent, however it ends
    if sent != signal.SIGKILL:
        assert not any(name.endswith(".partial") for name in left(tmp_path))
    assert not (tmp_path / "synthetic_s1/many/1.1.0").exists()
    with pytest.raises(InputError, match="found no dataset"):
        load_patch_dataset("synthetic_s1/many", tmp_path, "train", ("VH", "VV"))
    shards_there = [path.with_suffix("") for path in tmp_path.rglob("train-*.json")]
    stamps = {path.name: path.stat().st_mtime_ns for path in shards_there}
    assert 0 < len(stamps) < 30
    if sent == signal.SIGKILL:  # one of the three is finished, and must have kept its shards
        output, errors = start(tmp_path).communicate(timeout=100)
        assert "train, 3000 patches" in output, errors
        folder = tmp_path / "synthetic_s1/many/1.1.0"
        kept = {path.stat().st_mtime_ns for path in folder.glob("*train.array_record*")}
        assert set(stamps.values()) <= kept


def test_a_second_call_makes_only_what_is_missing(tmp_path, small_shards, monkeypatch):
    options = {**FEW, "patches": 20}
    whole = build("synthetic_s1/few", tmp_path / "whole", options=options)

    calls = []

    def failing(task, tick, write=shards.write_shard):
        calls.append(task.path.name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return write(task, tick)

    monkeypatch.setattr(shards, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        build(
            "synthetic_s1/few",
            tmp_path / "data",
            options=options,
            settings=BuildSettings(processes=1),
        )
    assert len([name for name in left(tmp_path / "data") if name.endswith(".json")]) == 4
    folder = build(
        "synthetic_s1/few", tmp_path / "data", options=options, settings=BuildSettings(processes=1)
    )
    assert len(calls) == 5 + 9 - 4
    assert content(folder) == content(whole)
    assert not any("incomplete" in str(path) for path in (tmp_path / "data").rglob("*"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in whole.iterdir()
    )


@contextmanager
def interrupted_after_a_shard(monkeypatch):
    """Inside, a build in one process is to write one shard, and to be interrupted then."""

    def once(task, tick, write=shards.write_shard):
        write(task, tick)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", once)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_another_plan_does_not_take_over_shards(tmp_path, small_shards, monkeypatch):
    with interrupted_after_a_shard(monkeypatch):
        build(
            "synthetic_s1/few",
            tmp_path,
            options={**FEW, "seed": 1},
            settings=BuildSettings(processes=1),
        )
    folder = build("synthetic_s1/few", tmp_path, options={**FEW, "seed": 2})
    assert all(name.startswith("synthetic_2") for name in records_of(folder)[1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def exchange(path):
    """Another record instead of the last, in a file that is sound and as long as before."""
    reader = ArrayRecordReader(str(path))
    records = [reader.read([index])[0] for index in range(reader.num_records())]
    reader.close()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in [*records[:-1], records[0]]:
        writer.write(record)
    writer.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "cannot be read"),
        (lambda path: os.truncate(path, path.stat().st_size - 1000), "after it was written"),
        (exchange, "found other records than were written"),
        (lambda path: path.unlink(), "after it was written"),
    ],
)
def test_a_shard_that_is_not_what_was_written_is_found_and_made_again(
    tmp_path, monkeypatch, damage, message
):
    write = shards.write_shard

    def damaged(task, tick):
        write(task, tick)
        damage(task.path)
        if damage is exchange:
            report = json.loads(task.report_path.read_text())
            report["size"] = task.path.stat().st_size
            task.report_path.write_text(json.dumps(report))

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_shard", damaged)
        with pytest.raises(InputError, match=message):
            build("synthetic_s1/few", tmp_path, options=FEW, settings=BuildSettings(processes=1))
    assert not (tmp_path / "synthetic_s1/few/1.1.0").exists()
    assert len(records_of(build("synthetic_s1/few", tmp_path, options=FEW))[1]) == 30


def test_other_raw_data_do_not_take_over_shards(tmp_path, small_shards, monkeypatch):
    """Folders of the same names at another place."""
    first, second = (write_patches(tmp_path / name, 6) for name in ("first", "second"))
    path = band(second / patch_name(3))
    write_band(path, simulate(120, (8, 8)).backscatter[..., 1])

    with interrupted_after_a_shard(monkeypatch):
        build(UNSPLIT, tmp_path / "data", first, settings=BuildSettings(processes=1))
    built = build(UNSPLIT, tmp_path / "data", second, settings=BuildSettings(processes=1))
    again = build(UNSPLIT, tmp_path / "alone", second, settings=BuildSettings(processes=1))
    assert content(built) == content(again)


def test_what_a_killed_build_left_while_publishing_goes(tmp_path):
    old = tmp_path / "synthetic_s1/few/incomplete.ABCDEF_1.1.0"
    old.mkdir(parents=True)
    (old / "train.array_record").write_text("half")
    folder = build("synthetic_s1/few", tmp_path, options=FEW)
    assert [path.name for path in folder.parent.iterdir()] == ["1.1.0"]


def test_a_bug_is_no_full_disk(tmp_path, monkeypatch):
    def bug(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(synthetic, "read_record", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        build("synthetic_s1/few", tmp_path, options=FEW, settings=BuildSettings(processes=1))
    assert left(tmp_path) == []


def test_processes_share_what_they_import_and_have_no_jax(tmp_path):
    """Before a process does anything of its own, in a program that imports none of it."""
    (tmp_path / "looking.py").write_text(
        "import sys\n"
        "def look(names, tick):\n"
        "    tick()\n"
        "    return [name in sys.modules for name in names]\n"
    )
    names = ["rasterio", "scipy.ndimage", "scipy.special", "tree", "jax"]
    program = tmp_path / "program.py"
    program.write_text(
        "from looking import look\n"
        "from tfds_builders.process_pool import run_tasks\n"
        "if __name__ == '__main__':\n"
        f"    tasks = [{names}, {names}]\n"
        "    print(*run_tasks(look, tasks, processes=2, total=2, description='looking'))\n"
    )
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [True, True, True, True, False]
    assert done.stdout.strip() == f"{found} {found}"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path, processes):
    arguments = ["--patches=1200", f"--data_dir={tmp_path}", f"--processes={processes}"]
    failed = subprocess.run(
        ["bash", "-c", 'ulimit -f 400 && exec "$@"', "bash", *COMMAND, *arguments],  # in KiB
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2, failed.stderr
    assert "check that the folder can be written and has room" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert left(tmp_path) == []


def test_two_builds_of_one_dataset_do_not_meet(tmp_path):
    builder = make_builder("synthetic_s1/few", tmp_path, FEW)
    folder = Path(builder.data_path).parent
    scratch = staging.staging_dir(folder, "1.1.0") / staging.SCRATCH  # empty at first
    scratch.mkdir(parents=True)
    with staging.lock_staging(folder), pytest.raises(InputError, match="another process builds"):
        build("synthetic_s1/few", tmp_path, options=FEW)
    assert scratch.exists()
    assert len(records_of(build("synthetic_s1/few", tmp_path, options=FEW))[1]) == 30


def test_only_what_the_build_made_is_cleaned_up(raw, tmp_path):
    """The data folder may hold other things, and empty folders of others."""
    (tmp_path / "results" / "tomorrow").mkdir(parents=True)
    build("bigearthnet_s1", tmp_path, raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bigearthnet_s1", "results"]
    assert (tmp_path / "results" / "tomorrow").is_dir()


# ---- the command


def test_the_command_says_what_was_wrong_in_one_line(tmp_path, capsys):
    for arguments, message in (
        ([], "found 0 dataset names, expected one of bigearthnet_s1"),
        (["bigearthnet"], "did you mean 'bigearthnet_s1'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command.main(["build", f"--data_dir={tmp_path}", *arguments])
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message in lines[0]


def test_flags_of_a_dataset_reach_its_config(tmp_path):
    command = COMMAND[:-2]
    done = subprocess.run(
        [*command, "--data_dir", tmp_path, "--dtype=float16", *COMMAND[-2:], "--patches=8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "synthetic_s1/many/1.1.0: train, 8 patches" in done.stdout
    metadata = json.loads((tmp_path / "synthetic_s1/many/1.1.0/metadata.json").read_text())
    options = metadata["options"]
    expected = {"dtype": "float16", "patches": 8, "size": 32, "seed": 0, "bands": "VH,VV"}
    assert options == expected
    shutil.rmtree(tmp_path / "synthetic_s1")


# ---- what files may not do


def test_files_beside_a_geotiff_are_not_opened(tmp_path):
    """A mask file may name any other file, or an address."""
    folder = write_patch(tmp_path / "raw", 1)
    outside = tmp_path / "outside.tif"
    write_band(outside, np.zeros((120, 120), np.uint8))
    name = f'<SourceFilename relativeToVRT="0">{outside}</SourceFilename>'
    source = f"<SimpleSource>{name}</SimpleSource>"
    text = (
        '<VRTDataset rasterXSize="120" rasterYSize="120">'
        '<Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'
        f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand></VRTDataset>'
    )
    band(folder).with_name(band(folder).name + ".msk").write_text(text)
    with pytest.raises(BadFilesError, match=r"\.msk: cannot be read as a GeoTIFF"):
        build(UNSPLIT, tmp_path / "data", tmp_path / "raw")


def test_names_command_no_terminal_and_are_text(tmp_path, capsys):
    raw = write_patches(tmp_path / "raw", 1)
    (raw / "S1A\x1b[2J_a\nerror: all is well").mkdir()
    with pytest.raises(BadFilesError):
        build(UNSPLIT, tmp_path / "data", raw)
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert r"\x1b[2J_a\nerror" in told
    (raw / os.fsdecode(b"S1A_\xff_1")).mkdir()
    with pytest.raises(BadFilesError, match="not UTF-8"):
        build(UNSPLIT, tmp_path / "data", raw)


@pytest.mark.parametrize(
    "change", [{"scene_source": "\ud800x"}, {"scene_source": {"a": 1}}, {"labels": 5}]
)
def test_metadata_that_cannot_be_stored(tmp_path, change):
    folder = write_patch(tmp_path / "raw", 1)
    values = json.loads(json_of(folder).read_text())
    json_of(folder).write_text(json.dumps({**values, **change}))
    with pytest.raises(BadFilesError, match="found no usable labels"):
        build(UNSPLIT, tmp_path / "data", tmp_path / "raw")


def test_a_byte_order_mark_does_no_harm(tmp_path):
    folder = write_patch(tmp_path / "raw", 1)
    json_of(folder).write_text(json_of(folder).read_text(), encoding="utf-8-sig")
    assert len(records_of(build(UNSPLIT, tmp_path / "data", tmp_path / "raw"))[1]) == 1


@pytest.mark.parametrize("name", ["synthetic_s1/../../x", "synthetic_s1/a/b", "synthetic_s1/.x"])
def test_a_config_does_not_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="is not a valid config name"):
        build(name, tmp_path / "data", options=FEW)
    assert not (tmp_path / "x").exists()


def test_a_dataset_names_no_code(tmp_path):
    folder = build("synthetic_s1/few", tmp_path, options=FEW)
    path = folder / "features.json"
    path.write_text(path.read_text().replace("tensorflow_datasets.core.features.text", "this", 1))
    with pytest.raises(InputError, match=r"names the code this_feature\.Text"):
        load_patch_dataset("synthetic_s1/few", tmp_path, "train", ("VH", "VV"))
    with pytest.raises(InputError, match="names the code"):
        build("synthetic_s1/few", tmp_path, options=FEW)


@pytest.mark.parametrize("damage", ["truncate", "remove", "info"])
def test_a_dataset_that_was_damaged_is_not_said_to_be_built(tmp_path, damage):
    folder = build("synthetic_s1/few", tmp_path, options=FEW)
    shard = next(folder.glob("*train.array_record*"))
    if damage == "truncate":
        os.truncate(shard, 1000)
    elif damage == "remove":
        shard.unlink()
    else:
        (folder / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="it is damaged, remove it to build it again"):
        build("synthetic_s1/few", tmp_path, options=FEW)


def test_raw_files_that_change_between_two_calls_are_read_again(tmp_path, small_shards, capsys):
    raw = write_patches(tmp_path / "raw", 9)
    os.truncate(band(raw / patch_name(4)), 10)
    with pytest.raises(BadFilesError):
        build(UNSPLIT, tmp_path / "data", raw, settings=BuildSettings(processes=1))
    for number in (0, 4):
        values = simulate(120, (9, number)).backscatter
        for index, name in enumerate(("VH", "VV")):
            band(raw / patch_name(number), name).unlink()
            write_band(band(raw / patch_name(number), name), values[..., index])
    folder = build(UNSPLIT, tmp_path / "data", raw, settings=BuildSettings(processes=1))
    assert "of 3 shards are complete already" in capsys.readouterr().err
    again = build(UNSPLIT, tmp_path / "again", raw, settings=BuildSettings(processes=1))
    assert content(folder) == content(again)


def test_two_signals_at_once_end_it_too(tmp_path):
    """`timeout` and batch systems signal the program and its process group."""
    for pause in (0.0, 0.005, 0.05):
        process = start(tmp_path, "--order_seed=1")
        wait_for_a_shard(tmp_path, process)
        others = psutil.Process(process.pid).children(recursive=True)
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(pause)
        process.communicate(timeout=30)
        _, alive = psutil.wait_procs(others, timeout=20)
        assert not alive
        shutil.rmtree(tmp_path / "synthetic_s1")
