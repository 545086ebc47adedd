"""Which records a model has seen: hashes, small and exact."""

import base64

import pytest

from sar_mixmae_jax.checkpoint import read_metadata, steps
from sar_mixmae_jax.data import open_patches
from sar_mixmae_jax.seen import hashes, joined, overlap, pack


def test_the_overlap_is_counted_once_an_id():
    packed = pack(f"patch {number}" for number in (5, 1, 1, 3))
    assert overlap(["patch 3", "patch 3", "patch 5", "patch 2"], packed) == 2
    assert overlap(["patch 2", "patch", ""], packed) == 0
    assert overlap([], packed) == 0
    assert overlap(["patch 1"], pack([])) == 0


def test_the_order_does_not_matter_and_a_record_takes_eight_bytes():
    ids = [f"S1A_IW_GRDH_1SDV_20170613_34TCR_{row}_{row % 90}" for row in range(300)]
    assert pack(ids) == pack(ids[::-1])
    assert len(base64.b64decode(pack(ids))) == 8 * len(ids) == 8 * len(hashes(ids))


def test_hashes_are_the_same_everywhere():
    """They are compared with those of other machines and versions: this one never changes."""
    assert pack(["S1A_1"]) == "/EAjzirj+oE="


def test_what_is_damaged_is_noticed():
    with pytest.raises(ValueError, match=r"."):
        overlap(["a"], "no base64 §")


def test_a_pretraining_checkpoint_knows_all_it_was_trained_on(encoder_run, built):
    packed = read_metadata(steps(encoder_run)[-1])["seen"]
    for split, known in (("train", 8), ("validation", 2), ("test", 0)):
        patches = open_patches("bigearthnet_s1", built, split, ("VH", "VV"))
        ids = [patches.source[row]["id"].decode() for row in range(len(patches.source))]
        assert overlap(ids, packed) == known


def test_joining_knows_what_both_knew():
    both = joined(pack(["a", "b"]), ["b", "c"])
    assert both == pack(["c", "a", "b"])
    assert overlap(["a", "c", "d"], both) == 2
    assert joined("", ["x"]) == pack(["x"])
