"""The data pipeline: bands by name, batches in the order of the run, shared by processes."""

import json
import shutil

import numpy as np
import pytest

from sar_mixmae_jax.data.metadata import DatasetMetadata, Statistics
from sar_mixmae_jax.data.patch_dataset import batches, load_patch_dataset
from sar_mixmae_jax.data.record_source import RecordSource
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.utils.errors import InputError


def open_v1(built, bands=("VH", "VV")):
    return load_patch_dataset("bigearthnet_s1", built, "train", bands)


def test_metadata_comes_with_the_data(built):
    patches = open_v1(built)
    assert patches.name == "bigearthnet_s1/v1/2.0.0/train"
    assert patches.unit == "dB"
    assert patches.statistics.mean == (-19.2309, -12.5951)
    assert patches.statistics.std == (3.1672, 2.9644)


@pytest.mark.parametrize(
    ("facts", "quantity", "pixel_size"),
    [
        ({"quantity": "gamma0", "pixel_spacing_m": [[20.0, 5.0], [10.0, 10.5]]}, "gamma0", 10.1),
        ({"quantity": "not stated", "pixel_spacing_m": [[10.0, 10.0], [20.0, 20.0]]}, "", None),
        ({"pixel_spacing_m": []}, "", None),
        ({"quantity": ["sigma0"], "pixel_spacing_m": "10"}, "", None),
    ],
)
def test_quantity_and_pixel_size_are_known_where_all_records_share_them(
    facts, quantity, pixel_size
):
    metadata = DatasetMetadata(("VH",), "dB", facts=facts)
    assert (metadata.quantity, metadata.pixel_size) == (quantity, pixel_size)


def test_bands_go_by_name(built):
    as_stored, turned = open_v1(built), open_v1(built, ("VV", "VH"))
    assert turned.statistics.mean == as_stored.statistics.mean[::-1]
    one, other = as_stored.source[0]["backscatter"], turned.source[0]["backscatter"]
    np.testing.assert_array_equal(one, other[..., ::-1])
    single = open_v1(built, ("VV",))
    np.testing.assert_array_equal(single.source[0]["backscatter"], one[..., 1:])


def numbered(count: int) -> RecordSource:
    records = [{"id": i, "backscatter": np.full((2, 2, 2), i, np.float32)} for i in range(count)]
    return RecordSource(records, None)


def test_batches_follow_the_order_and_end(built):
    order = ShuffleSampler(records=11, batch_size=4, seed=0)
    found = [batch["id"].tolist() for batch in batches(numbered(11), order, 1, 7)]
    assert found == [order.batch(step).tolist() for step in range(1, 7)]


def test_processes_share_every_batch():
    order = ShuffleSampler(records=11, batch_size=4, seed=0)
    parts = [list(batches(numbered(11), order, 0, 5, share=(part, 2))) for part in (0, 1)]
    for step, halves in enumerate(zip(*parts, strict=True)):
        together = np.concatenate([half["id"] for half in halves])
        assert together.tolist() == order.batch(step).tolist()


@pytest.mark.parametrize(
    ("name", "split", "bands", "message"),
    [
        ("bigearthnet", "train", ("VH",), "build it with `sar-mixmae build"),
        ("bigearthnet_s1", "trian", ("VH",), "unknown split.*did you mean 'train'"),
        ("bigearthnet_s1", "train[:0]", ("VH",), "holds no patches"),
        ("bigearthnet_s1", "train", ("HH",), "unknown band.*known are VH, VV"),
    ],
)
def test_what_is_not_there_is_named(built, name, split, bands, message):
    with pytest.raises(InputError, match=message):
        load_patch_dataset(name, built, split, bands)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "linear"}, "holds linear, expected dB"),
        ({"statistics": {"mean": [0.0, 0.0], "std": [1.0, 0.0], "of": ""}}, "cannot be used"),
        ({"statistics": {"mean": [0.0], "std": [1.0], "of": ""}}, "cannot be used"),
        ({"statistics": None}, "cannot be used"),
        ({"bands": None}, "cannot be used"),
        ({"caveats": 5}, "cannot be used"),
        ({"bands": [1, 2]}, r"bands\[0\]: expected str, got int"),
        ({"bands": ["VH"], "statistics": {"mean": [0], "std": [1], "of": ""}}, "of the shape"),
        ({"classes": ["a"]}, r"classes has 1 names, and labels are of the shape \(19,\)"),
        ({"classes": None}, "classes: expected array, got null"),
        ({"classes": 1}, "classes: expected array, got int"),
        ({"classes": float("nan")}, "classes: expected array, got float"),
        ({"checksum": 5}, r"checksum: expected str \| null, got int"),
        ({"place_fields": "2"}, "location_fields: expected int, got str"),
        ({"unit": ["dB"]}, "unit: expected str, got array"),
        (
            {"statistics": {"mean": [0, 0], "std": [1, 1], "of": None}},
            r"statistics\.of: expected str, got null",
        ),
        ({"pairs": {"train": {"before": [[1]]}}}, r"pairs\[...\]\[...\]\[0\]: expected"),
        ({"pairs": "train"}, r"pairs: expected object \| null, got str"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(built, tmp_path, change, message):
    shutil.copytree(built, tmp_path / "data")
    path = tmp_path / "data/bigearthnet_s1/v1/2.0.0/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        open_v1(tmp_path / "data")


def test_records_that_cannot_be_read_are_named(damaged):
    source = open_v1(damaged).source
    for read in (lambda: [source[row] for row in range(8)], lambda: read_all(source)):
        with pytest.raises(InputError, match=r"train: record \d cannot be read .*build the data"):
            read()


def read_all(source) -> list[dict]:
    return list(batches(source, ShuffleSampler(8, 4, seed=0), 0, 2))


def test_metadata_without_end_are_named(built, tmp_path):
    shutil.copytree(built, tmp_path / "data")
    path = tmp_path / "data/bigearthnet_s1/v1/2.0.0/metadata.json"
    path.write_text('{"bands": ' + "[" * 100_000)
    with pytest.raises(InputError, match=r"metadata\.json: cannot be used .RecursionError"):
        open_v1(tmp_path / "data")


@pytest.mark.parametrize("damage", ["no text", "folder"])
def test_a_list_of_ids_that_cannot_be_read_is_named(built, tmp_path, damage):
    shutil.copytree(built, tmp_path / "data")
    patches = open_v1(tmp_path / "data")
    assert len(patches.ids()) == 8
    (path,) = (tmp_path / "data").rglob("ids-train.txt")
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"a\xff\n")
    with pytest.raises(InputError, match=r"ids-train\.txt: cannot be read as a list of ids"):
        patches.ids()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [(0.0, 1e300, "std is"), (0.0, 1e-30, "std is"), (1e38, 1.0, "mean is")],
)
def test_statistics_that_float32_cannot_compute_with_are_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Statistics((mean,), (std,), "all patches")
