"""The data pipeline: bands by name, a permutation an epoch, one order for all processes."""

import json
import shutil

import numpy as np
import pytest

from sar_mixmae_jax.data import RecordSource, batches, open_patches
from sar_mixmae_jax.errors import InputError


def open_v1(built, bands=("VH", "VV")):
    return open_patches("bigearthnet_s1", built, "train", bands)


def test_metadata_comes_with_the_data(built):
    patches = open_v1(built)
    assert patches.name == "bigearthnet_s1/v1/2.0.0/train"
    assert patches.unit == "dB"
    assert patches.mean == (-19.2309, -12.5951)
    assert patches.std == (3.1672, 2.9644)


def test_bands_go_by_name(built):
    as_stored, turned = open_v1(built), open_v1(built, ("VV", "VH"))
    assert turned.mean == as_stored.mean[::-1]
    one, other = as_stored.source[0]["backscatter"], turned.source[0]["backscatter"]
    np.testing.assert_array_equal(one, other[..., ::-1])
    single = open_v1(built, ("VV",))
    np.testing.assert_array_equal(single.source[0]["backscatter"], one[..., 1:])


def numbered(count: int) -> RecordSource:
    records = [{"id": i, "backscatter": np.full((2, 2, 2), i, np.float32)} for i in range(count)]
    return RecordSource(records, None)


def ids(iterator, count: int) -> list[list[int]]:
    return [next(iterator)["id"].tolist() for _ in range(count)]


def test_every_epoch_is_a_new_permutation_without_the_rest():
    seen = ids(batches(numbered(11), batch_size=2, seed=0), 10)
    epochs = [[i for batch in part for i in batch] for part in (seen[:5], seen[5:])]
    assert epochs[0] != epochs[1]
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert ids(batches(numbered(11), batch_size=2, seed=0), 10) == seen
    assert ids(batches(numbered(11), batch_size=2, seed=1), 10) != seen


def test_a_restored_position_goes_on_where_it_was():
    iterator = batches(numbered(16), batch_size=2, seed=0)
    ids(iterator, 5)
    state = iterator.get_state()
    expected = ids(iterator, 12)
    again = batches(numbered(16), batch_size=2, seed=0)
    again.set_state(state)
    assert ids(again, 12) == expected


def test_too_few_patches_for_a_batch():
    with pytest.raises(InputError, match=r"found 6 patches, expected at least a batch of 8"):
        batches(numbered(6), batch_size=8, seed=0)


@pytest.mark.parametrize(
    ("name", "split", "bands", "message"),
    [
        ("bigearthnet", "train", ("VH",), "build it with `python -m tfds_builders.build"),
        ("bigearthnet_s1", "trian", ("VH",), "unknown split.*did you mean 'train'"),
        ("bigearthnet_s1", "train", ("HH",), "unknown band.*known are VH, VV"),
    ],
)
def test_what_is_not_there_is_named(built, name, split, bands, message):
    with pytest.raises(InputError, match=message):
        open_patches(name, built, split, bands)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "linear"}, "holds linear, expected dB"),
        ({"statistics": {"mean": [0.0, 0.0], "std": [1.0, 0.0], "of": ""}}, "cannot be used"),
        ({"statistics": {"mean": [0.0], "std": [1.0], "of": ""}}, "cannot be used"),
        ({"statistics": None}, "cannot be used"),
        ({"bands": None}, "cannot be used"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(built, tmp_path, change, message):
    shutil.copytree(built, tmp_path / "data")
    path = tmp_path / "data/bigearthnet_s1/v1/2.0.0/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        open_v1(tmp_path / "data")


def test_records_that_cannot_be_read_are_named(built, tmp_path):
    shutil.copytree(built, tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.array_record*"):
        content = bytearray(path.read_bytes())
        content[1000:200_000] = bytes(199_000)
        path.write_bytes(content)
    source = open_v1(tmp_path / "data").source
    with pytest.raises(InputError, match=r"train: record \d cannot be read .*build the dataset"):
        [source[index] for index in range(len(source))]
