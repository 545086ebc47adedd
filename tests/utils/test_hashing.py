"""Hashes of the ids of training records: small and exact."""

import base64

import pytest

from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.training.checkpoint import checkpoint_steps, read_metadata
from sar_mixmae_jax.utils.hashing import count_overlap, hash_ids, merge_packed_ids, pack_ids


def test_the_overlap_is_counted_once_an_id():
    packed = pack_ids(f"patch {number}" for number in (5, 1, 1, 3))
    assert count_overlap(["patch 3", "patch 3", "patch 5", "patch 2"], packed) == 2
    assert count_overlap(["patch 2", "patch", ""], packed) == 0
    assert count_overlap([], packed) == 0
    assert count_overlap(["patch 1"], pack_ids([])) == 0


def test_the_order_does_not_matter_and_a_record_takes_eight_bytes():
    ids = [f"S1A_IW_GRDH_1SDV_20170613_34TCR_{row}_{row % 90}" for row in range(300)]
    assert pack_ids(ids) == pack_ids(ids[::-1])
    assert len(base64.b64decode(pack_ids(ids))) == 8 * len(ids) == 8 * len(hash_ids(ids))


def test_hashes_are_the_same_everywhere():
    """They are compared with those of other machines and versions: this one never changes."""
    assert pack_ids(["S1A_1"]) == "/EAjzirj+oE="


def test_what_is_damaged_is_noticed():
    with pytest.raises(ValueError, match=r"."):
        count_overlap(["a"], "no base64 §")


def test_a_pretraining_checkpoint_knows_all_it_was_trained_on(encoder_run, built):
    packed = read_metadata(checkpoint_steps(encoder_run)[-1]).train_ids
    for split, known in (("train", 8), ("validation", 2), ("test", 0)):
        patches = load_patch_dataset("bigearthnet_s1", built, split, ("VH", "VV"))
        ids = [patches.source[row]["id"].decode() for row in range(len(patches.source))]
        assert count_overlap(ids, packed) == known


def test_joining_knows_what_both_knew():
    both = merge_packed_ids(pack_ids(["a", "b"]), ["b", "c"])
    assert both == pack_ids(["c", "a", "b"])
    assert count_overlap(["a", "c", "d"], both) == 2
    assert merge_packed_ids("", ["x"]) == pack_ids(["x"])
