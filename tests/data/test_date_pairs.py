"""Pairs of two dates: read from records that are stored once, and refused where they do not fit."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.date_pairs import PairSource, load_date_pairs
from sar_mixmae_jax.data.metadata import DatasetMetadata
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.utils.errors import InputError

NAME = "flood_pairs/own/1.1.0"


def opened(data_dir, split="train", bands=("VH", "VV")):
    return load_patch_dataset("flood_pairs/own", data_dir, split, bands)


def stored(data_dir, split):
    records = tfds.builder_from_directory(data_dir / NAME).as_data_source(split)
    return [records[row] for row in range(len(records))]


def test_a_pair_is_two_records_and_whether_there_is_a_flood(floods):
    patches, records = opened(floods), stored(floods, "train")
    source = PairSource(patches.source, patches.pairs)
    by_id = {record["id"].decode(): record for record in records}
    assert len(source) == 8
    assert len(records) == 16
    used = []
    for row in range(8):
        pair = source[row]
        assert set(pair) == {"id", "before", "after", "labels"}
        names = pair["id"].decode().split(" > ")
        used += names
        dates = [by_id[name] for name in names]
        np.testing.assert_array_equal(pair["before"], dates[0]["backscatter"])
        np.testing.assert_array_equal(pair["after"], dates[1]["backscatter"])
        assert dates[0]["sequence"] == dates[1]["sequence"]
        assert dates[0]["date"] < dates[1]["date"]
        assert pair["labels"] == dates[1]["flooded"]
    assert sorted(used) == sorted(by_id)


def test_bands_of_both_dates_go_by_name(floods):
    whole, turned = (opened(floods, bands=bands) for bands in (("VH", "VV"), ("VV", "VH")))
    one, other = (PairSource(p.source, p.pairs)[3] for p in (whole, turned))
    for date in ("before", "after"):
        np.testing.assert_array_equal(one[date], other[date][..., ::-1])


def test_splits_that_are_joined_keep_their_pairs(floods):
    together = opened(floods, "validation+test+train")
    source = PairSource(together.source, together.pairs)
    expected = []
    for split in ("validation", "test", "train"):
        alone = opened(floods, split)
        pairs = PairSource(alone.source, alone.pairs)
        expected += [(pairs[row]["id"], pairs[row]["labels"]) for row in range(len(pairs))]
    assert [(source[row]["id"], source[row]["labels"]) for row in range(14)] == expected


@pytest.fixture
def info():
    """Dataset information with 4 records in every split."""
    split = SimpleNamespace(num_examples=4)
    return SimpleNamespace(full_name="some_pairs/1.0.0", splits={"train": split, "test": split})


def table(**changes):
    columns = {
        "before": [0, 2],
        "after": [1, 3],
        "flooded": [0, 1],
        "sequence": ["a", "b"],
        "group": ["a", "a"],
        "gap_days": [12, None],
    }
    return {**columns, **changes}


def test_what_is_unknown_of_a_pair_is_nan(info):
    found = load_date_pairs({"train": table()}, "train", info)
    np.testing.assert_array_equal(found["gap_days"], [12, np.nan])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"after": [1, 4]}, r"after is not whole numbers from 0 to 3\): build it again"),
        ({"before": [-1, 2]}, r"cannot be used \(.*before.*\): build it again"),
        ({"before": [0.5, 2]}, "cannot be used"),
        ({"flooded": [0, 2]}, "cannot be used"),
        ({"flooded": [0, None]}, "cannot be used"),
        ({"group": ["a"]}, "cannot be used"),
        ({"sequence": None}, r"no sequence\): build it again"),
        ({"sequence": ["a", None]}, "sequence holds numbers and strings"),
        ({"group": [1, 2]}, "group is not strings"),
        ({"gap_days": [12, "x"]}, "gap_days holds numbers and strings"),
        ({"gap_days": [12, 10**400]}, "gap_days holds integers beyond 64 bits"),
        ({"before": []}, "differ in length"),
    ],
)
def test_pairs_that_do_not_fit_the_records_are_refused(info, changes, message):
    columns = {name: column for name, column in table(**changes).items() if column is not None}
    with pytest.raises(InputError, match=message) as refused:
        load_date_pairs({"train": columns}, "train", info)
    assert "some_pairs/1.0.0: the pairs of train" in str(refused.value)


@pytest.mark.parametrize("split", ["train[:50%]", "validation", "train+validation"])
def test_parts_of_splits_have_no_pairs(info, split):
    with pytest.raises(InputError, match=r"has no pairs: expected whole splits, train, test, or"):
        load_date_pairs({"train": table(), "test": table()}, split, info)


METADATA = {"bands": ["VH", "VV"], "unit": "dB"}


@pytest.mark.parametrize("column", [3, True, "ab", None, [[1], [2, 3]], [{}]])
def test_a_column_is_a_list_of_numbers_or_strings(column):
    pairs = {"train": table(gap_days=column)}
    with pytest.raises(ValueError, match=r"^pairs\[\.\.\.\].*: expected"):
        DatasetMetadata.from_json({**METADATA, "pairs": pairs})


@pytest.mark.parametrize("pairs", [[], "test", 3, {"train": [], "test": None}])
def test_what_is_no_table_of_pairs_is_refused(pairs):
    with pytest.raises(ValueError, match=r"^pairs.*: expected object"):
        DatasetMetadata.from_json({**METADATA, "pairs": pairs})
