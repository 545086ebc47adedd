"""Fractions of the labels: stratified, seeded, nested; classes left out are reported."""

import logging
from itertools import pairwise

import numpy as np
import pytest

from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.task_dataset import (
    choose_fraction,
    load_task_dataset,
    missing_classes,
    take_label_fraction,
)
from sar_mixmae_jax.utils.errors import InputError
from tests.rewrite import rewrite

SHARES = (0.01, 0.1, 0.35, 0.5, 0.99)


@pytest.fixture(scope="module")
def labels():
    """Labels of 2,000 units: seven classes from common to rare, none to several a unit."""
    rng = np.random.default_rng(0)
    return (rng.random((2000, 7)) < (0.6, 0.4, 0.3, 0.1, 0.05, 0.02, 0.01)).astype(np.uint8)


def strata(labels) -> np.ndarray:
    """The rarest class of every unit; 7 where it has none."""
    count = labels.sum(0)
    rarest = [min(np.flatnonzero(row), key=lambda c: count[c], default=7) for row in labels]
    return np.array(rarest)


def test_smaller_parts_are_parts_of_larger_ones(labels):
    parts = [choose_fraction(labels, share, seed=3) for share in SHARES]
    for small, large in pairwise(parts):
        assert not (small & ~large).any()
        assert small.sum() < large.sum()


@pytest.mark.parametrize("share", SHARES)
def test_every_stratum_gives_its_share(labels, share):
    chosen, of = choose_fraction(labels, share, seed=0), strata(labels)
    for stratum in range(8):
        members = of == stratum
        assert members.any()
        assert abs((chosen & members).sum() - share * members.sum()) <= 0.5 + 1e-9
    assert abs(chosen.mean() - share) < 0.002


def test_the_seed_decides(labels):
    first, again, other = (choose_fraction(labels, 0.1, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first & other).sum() < 0.3 * first.sum()
    assert first.sum() == other.sum()


def test_all_of_them_are_all(labels):
    assert choose_fraction(labels, 1, seed=0).all()


def test_classes_that_are_left_without_a_unit_are_named():
    labels = np.zeros((20, 4), np.uint8)
    labels[:, 0] = 1
    labels[3, 1] = 1
    chosen = np.arange(20) > 4
    assert missing_classes(labels, chosen, ("fields", "coast", "never", "rare")) == ["coast"]


# ---- of a dataset


def open_floods(data_dir, split="train"):
    return load_task_dataset(
        get_task("flood"), "flood_pairs/own", str(data_dir), split, ("VH", "VV")
    )


def test_a_part_of_a_split_keeps_ids_columns_and_records_together(floods):
    whole = open_floods(floods)
    half = take_label_fraction(whole, 0.5, seed=0, all_classes=True)
    assert (len(whole), len(half), len(half.patches.source)) == (8, 4, 4)
    for row in range(4):
        record = half.patches.source[row]
        assert record["id"].decode() == half.ids[row]
        assert half.ids[row] == f"{half.columns['before'][row]} > {half.columns['after'][row]}"
        there = int(np.flatnonzero(whole.ids == half.ids[row])[0])
        np.testing.assert_array_equal(record["after"], whole.patches.source[there]["after"])
        assert all(half.columns[name][row] == whole.columns[name][there] for name in whole.columns)
    assert sorted(half.patches.source[row]["labels"] for row in range(4)) == [0, 0, 1, 1]
    assert half.patches.describe().records == 4


@pytest.mark.parametrize(("name", "count"), [("segmentation", 16), ("pair_segmentation", 8)])
def test_a_part_of_the_masks_of_pairs_keeps_records_and_masks_together(floods, name, count):
    """With single dates as records, a dataset of pairs has twice as many of them as pairs."""
    whole = load_task_dataset(get_task(name), "flood_pairs/own", str(floods), "train", ("VH", "VV"))
    half = take_label_fraction(whole, 0.5, seed=0, all_classes=True)
    assert len(whole) == count
    assert 0 < len(half) == len(half.patches.source) < count
    for row in range(len(half)):
        record = half.patches.source[row]
        there = whole.patches.source[whole.ids.tolist().index(half.ids[row])]
        assert record["id"].decode() == half.ids[row]
        field = half.task.label_field
        np.testing.assert_array_equal(record[field], there[field])


def test_a_sequence_is_labelled_whole_or_not_at_all(floods, tmp_path):
    """Eight pairs of four sequences, two of each: half of the labels are two sequences."""
    name = "flood_pairs/own/1.1.0"
    pairs = {split: dict(open_floods(floods, split).patches.pairs) for split in ("train",)}
    pairs = {name: column.tolist() for name, column in pairs["train"].items()}
    pairs["sequence"] = [f"s{row // 2}" for row in range(8)]
    pairs["flooded"] = [0, 0, 0, 1, 0, 0, 0, 1]
    data = rewrite(floods, name, tmp_path, {"pairs": {"train": pairs}})
    whole = open_floods(data)
    half = take_label_fraction(whole, 0.5, seed=0, all_classes=True)
    kept = half.columns["sequence"]
    assert len(kept) == 4
    assert len(set(kept)) == 2
    assert {"s1", "s3"} & set(kept)
    assert {"s0", "s2"} & set(kept)


def test_flooded_sequences_have_dry_pairs_too(floods, tmp_path):
    """The only sequence that was never flooded is not chosen, and dry pairs are."""
    pairs = {name: col.tolist() for name, col in open_floods(floods).patches.pairs.items()}
    pairs["sequence"] = [f"s{row // 2}" for row in range(8)]
    pairs["flooded"] = [0, 0, 0, 1, 0, 1, 0, 1]
    data = rewrite(floods, "flood_pairs/own/1.1.0", tmp_path, {"pairs": {"train": pairs}})
    half = take_label_fraction(open_floods(data), 0.5, seed=0, all_classes=True)
    assert "s0" not in half.columns["sequence"]
    assert sorted(half.patches.source[row]["labels"] for row in range(len(half))) == [0, 1]


def test_a_part_that_leaves_out_a_class_is_refused_where_it_is_trained_on(built, tmp_path, caplog):
    """All patches are fields, one of them a beach as well."""

    def relabelled(record):
        labels = np.zeros(19, np.uint8)
        labels[2], labels[15] = 1, record["id"].endswith(b"_0_48")
        return {**record, "labels": labels}

    data = rewrite(built, "bigearthnet_s1/v1/2.0.0", tmp_path, {}, relabelled)
    whole = load_task_dataset(
        get_task("classification"), "bigearthnet_s1", str(data), "train", ("VH", "VV")
    )
    (beach,) = (row for row in range(8) if whole.patches.source[row]["labels"][15])
    fields, name = whole.classes[2], whole.classes[15]
    with pytest.raises(InputError) as refused:
        take_label_fraction(whole, 0.5, seed=0, all_classes=True)
    message = f"label_fraction=0.5 leaves no record of {name} in bigearthnet_s1/v1/2.0.0/train"
    assert str(refused.value) == f"{message}: choose a larger one"
    with caplog.at_level(logging.WARNING):
        half = take_label_fraction(whole, 0.5, seed=0, all_classes=False)
    assert f"{message}: their metrics are undefined" in caplog.text
    assert fields not in caplog.text
    assert len(half) == 3  # of the seven that are only fields
    assert whole.ids[beach] not in half.ids
    assert whole.ids[beach] in take_label_fraction(whole, 0.51, seed=0, all_classes=True).ids


def test_a_part_without_anything_is_refused_everywhere(floods):
    with pytest.raises(InputError, match=r"leaves no record of dry, flood in flood_pairs/own"):
        take_label_fraction(open_floods(floods), 0.01, seed=0, all_classes=False)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_what_is_no_share_is_refused(floods, share):
    with pytest.raises(InputError, match="expected above 0 and at most 1"):
        take_label_fraction(open_floods(floods), share, seed=0, all_classes=True)
