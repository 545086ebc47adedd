"""Datasets in a bucket: published whole, read through a cache that is verified and limited."""

import shutil

import numpy as np
import pytest

from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.utils import dataset_cache, object_store
from sar_mixmae_jax.utils.dataset_cache import INFO, LIMIT_VARIABLE, local_data_dir
from sar_mixmae_jax.utils.errors import InputError, StorageError
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings

NAME, BANDS = "bigearthnet_s1", ("VH", "VV")
TRAIN = "bigearthnet_s1-train.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def data_dir(bucket_server, raw) -> str:
    """Address of a folder with `bigearthnet_s1`."""
    build(NAME, "gs://runs/data", raw, settings=BuildSettings(processes=1))
    return "gs://runs/data"


def load(data_dir, split="train"):
    return load_patch_dataset(NAME, data_dir, split, BANDS)


@pytest.fixture
def empty_cache(data_dir, monkeypatch, tmp_path):
    """Another cache folder for a test."""
    monkeypatch.setenv(dataset_cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(dataset_cache, "_USED", {})
    return local_data_dir(data_dir) / NAME / "v1/2.0.0"


def test_a_dataset_is_published_as_it_is_built(built, data_dir, raw, capsys):
    stored = object_store.list_objects(f"{data_dir}/{NAME}")
    local = {
        path.relative_to(built / NAME).as_posix(): path.stat().st_size
        for path in (built / NAME).rglob("*")
        if path.is_file()
    }
    assert {name: found.size for name, found in stored.items()} == local
    record = load(data_dir).source[0]
    np.testing.assert_array_equal(
        record["backscatter"],
        load_patch_dataset(NAME, built, "train", BANDS).source[0]["backscatter"],
    )
    build(NAME, data_dir, raw)
    assert "is in gs://runs/data already" in capsys.readouterr().err
    with pytest.raises(InputError, match="was built with"):
        build(NAME, data_dir, raw, settings=BuildSettings(order_seed=1))


def test_only_what_is_read_is_fetched_and_damage_is_repaired(data_dir, empty_cache):
    patches = load(data_dir)
    files = sorted(path.name for path in empty_cache.glob("*.array_record*"))
    assert files == [TRAIN]
    assert len(patches.ids()) == 8
    content = bytearray((empty_cache / TRAIN).read_bytes())
    content[1000:2000] = bytes(1000)
    (empty_cache / TRAIN).write_bytes(content)
    load(data_dir)
    assert (empty_cache / TRAIN).read_bytes() == object_store.read(
        f"{data_dir}/{NAME}/v1/2.0.0/{TRAIN}"
    )
    assert not list(empty_cache.glob("*.partial"))


def test_what_is_in_the_way_of_the_cache_is_named(data_dir, empty_cache):
    (empty_cache / TRAIN).mkdir(parents=True)
    with pytest.raises(InputError, match=f"cannot be written .*directory.*{TRAIN}.*: remove what"):
        load(data_dir)
    root = dataset_cache.cache_folder()
    shutil.rmtree(root)
    root.touch()
    with pytest.raises(InputError, match=r"cannot be written .*: remove what is in the way"):
        load(data_dir)


def test_a_fetch_goes_on_where_it_was_interrupted(data_dir, empty_cache, monkeypatch):
    load(data_dir, "validation")
    fetched = []
    download = object_store.download

    def note(url, folder, objects, *rest):
        fetched.extend(name for name in objects if "array_record" in name)
        download(url, folder, objects, *rest)

    monkeypatch.setattr(object_store, "download", note)
    load(data_dir, "train+validation")
    assert fetched == [TRAIN]


def test_records_that_are_wrong_in_the_bucket_are_refused(data_dir, empty_cache):
    source, url = f"{data_dir}/{NAME}/v1/2.0.0", "gs://runs/wrong"
    for name in object_store.list_objects(source):
        content = object_store.read(f"{source}/{name}")
        wrong = content[:-1] + b"?" if name == TRAIN else content
        object_store.write(f"{url}/{NAME}/v1/2.0.0/{name}", wrong)
    with pytest.raises(InputError, match=f"gs://runs/wrong/.*{TRAIN} does not have the checksum"):
        load(url)


def test_a_dataset_without_its_last_file_does_not_exist(data_dir, empty_cache, raw, monkeypatch):
    """A publication that is killed leaves one, and the same command completes it."""
    upload, url = object_store.upload, "gs://runs/partly"

    def fail_at_the_end(folder, url, names):
        if any(name.endswith(INFO) for name in names):
            raise StorageError("killed")
        upload(folder, url, names)

    settings = BuildSettings(processes=1)
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "upload", fail_at_the_end)
        with pytest.raises(StorageError):
            build(NAME, url, raw, settings=settings)
    assert len(object_store.list_objects(url)) > 5
    with pytest.raises(InputError, match="found no dataset 'bigearthnet_s1' in gs://runs/partly"):
        load(url)
    build(NAME, url, raw, settings=settings)
    assert len(load(url).source) == 8


def test_datasets_that_nobody_uses_make_room(data_dir, empty_cache, monkeypatch):
    load(data_dir, "validation")
    size = (empty_cache / TRAIN.replace("train", "validation")).stat().st_size
    monkeypatch.setenv(LIMIT_VARIABLE, str(1.5 * size / 1e9))
    with pytest.raises(InputError, match=f"raise {LIMIT_VARIABLE}"):
        load(data_dir)
    other = empty_cache.parents[3] / "other/dataset/1.0.0"
    shutil.copytree(empty_cache, other)
    for lock in dataset_cache._USED.values():
        lock.release()
    monkeypatch.setattr(dataset_cache, "_USED", {})
    monkeypatch.setenv(LIMIT_VARIABLE, str(2.5 * size / 1e9))
    with pytest.raises(InputError, match="has room for"):  # 4 times the size is too much anyway
        load(data_dir)
    assert not other.exists()
