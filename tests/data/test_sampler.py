"""The order of the records: permutations, and going on with a batch of another size."""

import grain
import numpy as np
import pytest

from sar_mixmae_jax.data.sampler import ShuffleSampler, permutation
from sar_mixmae_jax.utils.errors import InputError


def batches(order: ShuffleSampler, start: int, stop: int) -> list[list[int]]:
    return [order.batch(step).tolist() for step in range(start, stop)]


@pytest.mark.parametrize("records", [1, 2, 11, 1000, 16383, 16385, 65536, 65538, 300_001])
def test_the_permutation_is_that_of_grain(records):
    for seed, epoch in ((0, 0), (7, 3), (2**32 - 1, 1), (2**40, 2)):
        shuffled = grain.MapDataset.range(records).seed(seed).shuffle()
        order = permutation(records, seed, epoch)
        assert np.array_equal(np.sort(order), np.arange(records))
        rows = np.random.default_rng(0).integers(0, records, 20)
        assert [shuffled[int(row) + epoch * records] for row in rows] == order[rows].tolist()


def test_every_epoch_is_a_new_permutation_without_the_rest():
    order = ShuffleSampler(records=11, batch_size=2, seed=0)
    assert order.steps_per_epoch == 5
    seen = batches(order, 0, 10)
    epochs = [np.concatenate(part).tolist() for part in (seen[:5], seen[5:])]
    assert epochs[0] != epochs[1]
    assert all(len(set(epoch)) == 10 for epoch in epochs)
    assert batches(ShuffleSampler(11, 2, 0), 0, 10) == seen
    assert batches(ShuffleSampler(11, 2, 1), 0, 10) != seen


def test_the_rest_differs_from_epoch_to_epoch():
    order = ShuffleSampler(records=5, batch_size=4, seed=0)
    left_out = [set(range(5)) - set(order.batch(step)) for step in range(30)]
    assert len({rest for (rest,) in left_out}) == 5


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (6, 4)])
def test_another_batch_size_neither_repeats_nor_drops_within_the_epoch(before, after):
    order = ShuffleSampler(records=23, batch_size=before, seed=0)
    later = order.go_on(2, after)
    rest = (23 - 2 * before) // after
    used = np.concatenate([*batches(order, 0, 2), *batches(later, 2, 2 + rest)]).tolist()
    assert len(set(used)) == len(used)
    assert 23 - len(used) < after  # what is left does not fill a batch
    begun = np.concatenate(batches(order, 0, order.steps_per_epoch)).tolist()
    shared = min(len(begun), len(used))
    assert used[:shared] == begun[:shared]  # the same permutation
    fresh = ShuffleSampler(records=23, batch_size=after, seed=0)
    epoch = fresh.steps_per_epoch
    assert batches(later, 2 + rest, 2 + rest + epoch) == batches(fresh, epoch, 2 * epoch)


@pytest.mark.parametrize(
    ("before", "after", "step"), [(4, 8, 1), (10, 20, 25), (20, 10, 3), (6, 4, 5)]
)
def test_an_epoch_is_done_where_the_next_one_begins(before, after, step):
    order = ShuffleSampler(records=50 * before // 6, batch_size=before, seed=0).go_on(step, after)
    for later in range(step, step + 40):
        epoch, offset = order.place(later)
        assert int(order.progress(later) + 1e-9) == epoch or offset == 0
        if offset == 0:
            assert order.progress(later) == pytest.approx(epoch)


def test_steps_follow_the_batch_size():
    order = ShuffleSampler(records=100, batch_size=10, seed=0)
    assert order.progress(25) == 2.5
    assert order.steps(4.0) == 40
    later = order.go_on(26, 20)  # 40 records of the third epoch are left: two batches
    assert later.progress(28) == pytest.approx(3.0)
    assert later.steps(4.0) == 33
    assert later.steps(1.0) <= 26  # what is done is done
    again = later.go_on(30, 10)
    assert again.place(30) == later.place(30)
    assert order.go_on(25, 10) is order


def test_part_of_an_epoch_is_a_step_at_least():
    assert ShuffleSampler(100, 10, 0).steps(0.01) == 1


def test_too_few_patches_for_a_batch():
    with pytest.raises(InputError, match=r"found 6 records, expected at least a batch of 8"):
        ShuffleSampler(records=6, batch_size=8, seed=0)
