"""Packed records: the same records, and cache folders that are damaged, foreign or full."""

import errno
import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from sar_mixmae_jax.data import record_cache
from sar_mixmae_jax.data.date_pairs import PairSource
from sar_mixmae_jax.data.patch_dataset import ReadOptions, load_patch_dataset
from sar_mixmae_jax.data.record_cache import PackedSource, available_memory, pack, packed_size
from sar_mixmae_jax.data.record_source import RecordSource, Subset, read_rows, replace_records
from sar_mixmae_jax.utils.errors import InputError

OPTIONS = ReadOptions()
ROWS = np.array([5, 0, 7, 5])


def records(data_dir: Path, bands=("VV", "VH"), fields=("id", "backscatter", "labels")):
    return load_patch_dataset("bigearthnet_s1", data_dir, "train", bands, fields).source


def assert_same(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for name, column in ours.items():
        assert column.tolist() == theirs[name].tolist() or name == "backscatter"
        assert column.dtype.kind == "S" or column.dtype == theirs[name].dtype
        assert column.dtype.kind == "S" or column.tobytes() == theirs[name].tobytes()


@pytest.fixture(params=["memory", "folder"])
def folder(request, tmp_path):
    return tmp_path / "cache" if request.param == "folder" else None


def test_packed_records_are_the_records(built, folder, monkeypatch):
    monkeypatch.setattr(record_cache, "FILL_TOGETHER", 3)  # the last chunk is filled up
    source = records(built)
    packed = pack(source, OPTIONS, folder)
    assert len(packed) == 8
    assert_same(read_rows(packed, ROWS), read_rows(source, ROWS))
    assert np.isnan(packed.columns["backscatter"]).any()
    assert packed[3]["id"] == source[3]["id"]
    assert sum(column.nbytes for column in packed.columns.values()) >= packed_size(source)


def test_pairs_and_subsets_share_the_packed_records(floods):
    dataset = load_patch_dataset("flood_pairs/own", floods, "train", ("VH", "VV"))
    pairs = Subset(PairSource(dataset.source, dataset.pairs), np.array([4, 1, 2]))
    packed = []

    def keep(source):
        packed.append(pack(source, OPTIONS))
        return packed[-1]

    replaced = replace_records(pairs, keep)
    assert [len(source) for source in packed] == [len(dataset.source)]
    assert_same(read_rows(replaced, np.array([2, 0])), read_rows(pairs, np.array([2, 0])))


def never_read(monkeypatch) -> None:
    def read(*_):
        raise AssertionError("the records are read again")

    monkeypatch.setattr(record_cache, "_fill", read)


def test_a_cache_is_filled_once_for_each_choice_of_bands(built, tmp_path, monkeypatch):
    for bands in (("VV", "VH"), ("VH",)):
        pack(records(built, bands), OPTIONS, tmp_path)
    never_read(monkeypatch)
    for bands in (("VV", "VH"), ("VH",)):
        source = records(built, bands)
        again = pack(source, OPTIONS, tmp_path)
        assert isinstance(again.columns["backscatter"].base, np.memmap)
        assert_same(read_rows(again, ROWS), read_rows(source, ROWS))
    with pytest.raises(AssertionError):
        pack(records(built, ("VH", "VV")), OPTIONS, tmp_path)
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def entry(folder: Path) -> Path:
    (path,) = (path for path in folder.iterdir() if path.is_dir())
    return path


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: flip_byte(path / "backscatter.npy"), "backscatter.npy is damaged"),
        (lambda path: (path / "id.npy").write_bytes(b""), "id.npy is damaged"),
        (lambda path: (path / "labels.npy").unlink(), "FileNotFoundError"),
        (lambda path: flip_byte(path / "cache.json"), "cannot be used"),
        (lambda path: (path / "cache.json").write_text("{}"), "checksum"),
        (lambda path: (path / "cache.json").write_text("null"), "expected an object"),
        (lambda path: (path / "cache.json").write_text(10**5 * "["), "nested too deeply"),
    ],
)
def test_a_damaged_cache_is_named_and_filled_again(built, tmp_path, caplog, damage, message):
    source = records(built)
    pack(source, OPTIONS, tmp_path)
    damage(entry(tmp_path))
    packed = pack(source, OPTIONS, tmp_path)
    assert_same(read_rows(packed, ROWS), read_rows(source, ROWS))
    assert "cannot be used" in caplog.text
    assert message in caplog.text
    assert "it is filled again" in caplog.text


def test_a_cache_of_another_build_is_filled_again(built, tmp_path, caplog, monkeypatch):
    """The same names, other records: the checksum of the dataset tells them apart."""
    shutil.copytree(built, tmp_path / "data")
    path = tmp_path / "data/bigearthnet_s1/v1/2.0.0/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checksum": "0" * 64}))
    pack(records(tmp_path / "data"), OPTIONS, tmp_path / "cache")
    pack(records(built), OPTIONS, tmp_path / "cache")
    assert f"found checksum {'0' * 64}, expected" in caplog.text
    never_read(monkeypatch)
    pack(records(built), OPTIONS, tmp_path / "cache")


def test_records_without_a_checksum_are_kept_in_memory(built, tmp_path, caplog):
    source = RecordSource([{"id": b"a", "backscatter": np.zeros((2, 2, 1))}], None)
    packed = pack(source, OPTIONS, tmp_path / "cache")
    assert packed.columns["id"].tolist() == [b"a"]
    assert "no checksum" in caplog.text
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_named(built, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cache_dir .*file cannot be written .*choose another"):
        pack(records(built), OPTIONS, tmp_path / "file")


def test_a_folder_of_something_else_is_left_alone(built, tmp_path, caplog):
    source = records(built)
    pack(source, OPTIONS, tmp_path)
    (entry(tmp_path) / "cache.json").rename(entry(tmp_path) / "other.json")
    with pytest.raises(InputError, match=r"is not empty and holds no cache\.json"):
        pack(source, OPTIONS, tmp_path)
    assert "filled again" not in caplog.text
    assert (entry(tmp_path) / "other.json").exists()


def test_a_full_disk_is_named_before_and_while_writing(built, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(record_cache.shutil, "disk_usage", lambda _: usage(1000))
        with pytest.raises(InputError, match=r"has [\w. ]+ left, and the records take [\w. ]+:"):
            pack(records(built), OPTIONS, tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
        pack(records(built), OPTIONS, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_damaged_records_leave_no_cache(damaged, tmp_path):
    with pytest.raises(InputError, match=r"train: record \d cannot be read"):
        pack(records(damaged), OPTIONS, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_too_little_memory_is_named(built, monkeypatch):
    def refuse(*_):
        raise MemoryError("Unable to allocate 14 GiB")

    source = PackedSource(read_rows(records(built), ROWS))
    monkeypatch.setattr(record_cache.np, "empty", refuse)
    with pytest.raises(InputError, match=r"4 records do not fit into memory .*cache=none"):
        pack(source, OPTIONS)


def test_available_memory_is_less_than_there_is():
    pages = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available_memory() < pages
