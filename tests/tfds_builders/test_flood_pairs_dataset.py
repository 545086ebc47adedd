"""Simulated pairs as a dataset: records, pairs in the metadata, options, splits."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.build import build, make_builder
from tfds_builders.flood_pairs.cases import case_of
from tfds_builders.flood_pairs.flood_simulator import DATES, pair_dates, simulate_date

SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(
        "flood_pairs/few", tmp_path_factory.mktemp("data"), options={"pairs": 6, "size": SIZE}
    )


def test_records_are_the_simulation(folder):
    builder = tfds.builder_from_directory(folder)
    records = {record["id"].decode(): record for record in builder.as_data_source("test")}
    assert len(records) == 8  # half of 6 pairs, and an even number
    number = 1
    case = case_of(number)
    for date, name in enumerate(DATES):
        record = records[f"flood_0_test_000001_{name}"]
        image = simulate_date(SIZE, (0, 2, number), case, name)
        np.testing.assert_array_equal(record["backscatter"], image.patch.backscatter)
        np.testing.assert_allclose(record["noise_free"], image.patch.noise_free, atol=0.02)
        np.testing.assert_array_equal(record["land_cover"], image.patch.land_cover)
        np.testing.assert_array_equal(record["water"], image.water)
        assert record["flooded_fraction"] == np.float32(image.flooded_fraction)
        assert record["flooded"] == date
        assert record["hard_case"].decode() == case.hard_case
        assert record["date"].decode() == image.day.isoformat()


def test_the_metadata_says_which_records_are_pairs(folder):
    pairs = json.loads((folder / "metadata.json").read_text())["pairs"]
    builder = tfds.builder_from_directory(folder)
    for split, count in (("train", 6), ("validation", 2), ("test", 4)):
        columns, source = pairs[split], builder.as_data_source(split)
        assert {len(values) for values in columns.values()} == {count}
        assert sum(columns["flooded"]) == count / 2
        assert sorted(columns["before"] + columns["after"]) == list(range(2 * count))
        assert columns["onset"] == [bool(flooded) for flooded in columns["flooded"]]
        assert columns["group"] == columns["sequence"]
        for before, after, sequence, gap, fraction in zip(
            *(columns[name] for name in ("before", "after", "sequence", "gap_days")),
            columns["flooded_fraction"],
            strict=True,
        ):
            first, second = source[before], source[after]
            assert first["id"].decode() == f"{sequence}_before"
            assert second["id"].decode() == f"{sequence}_after"
            days = np.datetime64(second["date"].decode()) - np.datetime64(first["date"].decode())
            assert days.astype(int) == gap > 0
            new = (second["water"] > first["water"]).mean()
            assert fraction == pytest.approx(new, abs=1e-6)


def test_pairs_do_not_depend_on_the_order_of_the_records():
    records = {
        "sequence": ["a", "b", "b", "a"],
        "date": ["2020-03-01", "2020-01-01", "2020-01-13", "2020-02-28"],
        "flooded": [1, 0, 0, 0],
        "flooded_fraction": [0.25, 0.0, 0.0, 0.0],
        "hard_case": ["wind", "", "", "wind"],
    }
    columns = pair_dates("train", records).columns
    assert dict(columns) == {
        "before": [3, 1],
        "after": [0, 2],
        "flooded": [1, 0],
        "sequence": ["a", "b"],
        "group": ["a", "b"],
        "onset": [True, False],
        "gap_days": [2, 12],
        "flooded_fraction": [0.25, 0.0],
        "hard_case": ["wind", ""],
    }


@pytest.mark.parametrize(
    ("option", "value"), [("pairs", 15), ("pairs", 0), ("size", 200), ("seed", -1)]
)
def test_options_out_of_range_are_refused(option, value, tmp_path):
    builder = make_builder("flood_pairs", tmp_path, {option: value})
    with pytest.raises(InputError, match=rf"--{option}={value}: expected from \d+ to \d+"):
        builder.plan(tmp_path, tmp_path, 1)


def test_splits_have_other_scenes(tmp_path):
    plan = make_builder("flood_pairs", tmp_path).plan(tmp_path, tmp_path, 1)
    assert {split: len(items) for split, items in plan.items.items()} == {
        "train": 1024,
        "validation": 256,
        "test": 512,
    }
    every = np.concatenate(list(plan.items.values()))
    assert len(np.unique(every)) == len(every)
