"""Checkpoints on disk: what is kept, what comes back, and what is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.training.checkpoint import CheckpointManager, RetentionPolicy, checkpoint_steps
from sar_mixmae_jax.training.restore import restore_newest_valid
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.utils.errors import InputError
from tests.descriptions import describe, metadata


def state_of(step: int, side: int = 64) -> TrainState:
    params = {"encoder": {"kernel": np.full((side, side), step, np.float32)}, "decoder": {}}
    moments = {"mu": np.ones(3, np.float32)}
    key = np.asarray(jax.random.key_data(jax.random.key(step)))
    return TrainState(np.int32(step), params, moments, key)


def save(workdir, keep: RetentionPolicy, explained: dict[int, float]) -> None:
    checkpoints = CheckpointManager(workdir, keep)
    for step, value in explained.items():
        metrics = {"explained_variance": value, "loss": 1 - value}
        checkpoints.save(step, replicate(state_of(step)), metadata(), metrics)
    checkpoints.close()


def kept(workdir) -> list[int]:
    return [int(path.name) for path in checkpoint_steps(workdir)]


RISE_AND_FALL = {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.3, 10: 0.2, 12: 0.1}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (RetentionPolicy(2), [10, 12]),
        (RetentionPolicy(1, every=4), [4, 8, 12]),
        (RetentionPolicy(1, best=1), [4, 12]),
        (RetentionPolicy(1, best=2), [4, 6, 12]),
        (RetentionPolicy(1, best=1, metric="loss"), [4, 12]),
        (RetentionPolicy(2, every=6, best=1), [4, 6, 10, 12]),
    ],
)
def test_which_checkpoints_stay(tmp_path, keep, expected):
    save(tmp_path, keep, RISE_AND_FALL)
    assert kept(tmp_path) == expected


def test_the_best_is_remembered_by_the_next_start(tmp_path):
    keep = RetentionPolicy(1, best=1)
    save(tmp_path, keep, {2: 0.5, 4: 0.1})
    save(tmp_path, keep, {6: 0.2, 8: 0.3})
    assert kept(tmp_path) == [2, 8]


def test_an_unknown_metric_is_refused():
    message = "best_metric is 'explaned': expected .*explained_variance, .*or validation/SCORE"
    with pytest.raises(InputError, match=message):
        RetentionPolicy(1, best=1, metric="explaned")


def test_state_and_metadata_come_back(tmp_path):
    save(tmp_path, RetentionPolicy(2), {4: 0.0, 6: 0.0})
    saved = restore_newest_valid(tmp_path, state_of(0), describe())
    assert saved.step == 6
    for found, expected in zip(
        jax.tree.leaves(saved.state), jax.tree.leaves(state_of(6)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_saving_does_not_see_later_changes(tmp_path):
    """The step donates its buffers as soon as `save` returns."""
    checkpoints = CheckpointManager(tmp_path, RetentionPolicy(1))
    state = replicate(state_of(1, side=4096))  # 64 MB
    bump = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    checkpoints.save(1, state, metadata(), {})
    params = state.params
    for _ in range(20):
        params = bump(params)
    checkpoints.close()
    saved = restore_newest_valid(tmp_path, state_of(0, side=4096), describe())
    assert (saved.state.params["encoder"]["kernel"] == 1).all()


def test_what_is_on_the_disk_is_told_once(tmp_path):
    checkpoints = CheckpointManager(tmp_path, RetentionPolicy(1))
    assert checkpoints.written() is None
    checkpoints.save(1, replicate(state_of(1)), metadata(), {})
    written = checkpoints.written(wait=True)
    assert written.step == 1
    assert written.seconds["checkpoint_seconds"] >= written.seconds["checkpoint_blocked_seconds"]
    assert kept(tmp_path) == [1]
    assert checkpoints.written(wait=True) is None
    checkpoints.close()


def test_an_unfinished_checkpoint_is_not_taken(tmp_path):
    save(tmp_path, RetentionPolicy(2), {6: 0.0})
    (tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp-1").mkdir()
    assert restore_newest_valid(tmp_path, state_of(0), describe()).step == 6


def test_nothing_to_restore(tmp_path):
    assert restore_newest_valid(tmp_path, state_of(0), describe()) is None


def test_arrays_on_several_devices_are_saved_once(tmp_path):
    assert len(jax.devices()) == 2
    save(tmp_path, RetentionPolicy(1), {1: 0.0})
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 2 * jnp.zeros((64, 64)).nbytes + 20_000


def test_metrics_are_there_when_the_best_are_asked_for_later(tmp_path):
    save(tmp_path, RetentionPolicy(3), {2: 0.5, 4: 0.6, 6: 0.1})
    save(tmp_path, RetentionPolicy(1, best=1), {8: 0.2})
    assert kept(tmp_path) == [4, 8]


def test_what_has_no_such_metric_is_none_of_the_best(tmp_path):
    checkpoints = CheckpointManager(tmp_path, RetentionPolicy(1, best=1))
    for step, metrics in {
        2: {"loss": 1.0},
        4: {"explained_variance": -0.5},
        6: {"loss": 1.0},
    }.items():
        checkpoints.save(step, replicate(state_of(step)), metadata(), metrics)
    checkpoints.close()
    assert kept(tmp_path) == [4, 6]
