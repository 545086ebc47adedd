"""Checkpoints on disk: what is kept, what comes back, and what cannot be read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.checkpoint import Checkpoints
from sar_mixmae_jax.data import RecordSource, batches
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.step import TrainState


def state_of(step: int) -> TrainState:
    params = {"encoder": {"kernel": jnp.full((64, 64), step, jnp.float32)}, "decoder": {}}
    return TrainState(jnp.int32(step), params, {"mu": jnp.ones(3)}, jax.random.key(step))


def data():
    records = [{"id": i, "backscatter": np.zeros((2, 2, 2), np.float32)} for i in range(16)]
    return batches(RecordSource(records, None), batch_size=2, seed=0)


@pytest.fixture
def workdir(tmp_path):
    """Checkpoints of steps 2, 4, 6, of which two are kept; the data is at step 6."""
    checkpoints, iterator = Checkpoints(tmp_path, keep=2), data()
    for step in (2, 4, 6):
        next(iterator), next(iterator)
        checkpoints.save(step, state_of(step), iterator, {"variant": "tiny"})
    checkpoints.close()
    return tmp_path


def test_keeps_the_latest(workdir):
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]


def test_state_and_position_come_back(workdir):
    iterator, expected = data(), data()
    for _ in range(6):
        next(expected)
    restored = Checkpoints(workdir, keep=2).restore(state_of(0), iterator)
    assert int(restored.step) == 6
    np.testing.assert_array_equal(restored.params["encoder"]["kernel"], np.full((64, 64), 6))
    np.testing.assert_array_equal(
        jax.random.key_data(restored.key), jax.random.key_data(jax.random.key(6))
    )
    assert next(iterator)["id"].tolist() == next(expected)["id"].tolist()


def test_saving_does_not_see_later_changes(tmp_path):
    """The step donates its buffers as soon as `save` returns."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = state_of(1).replace(params={"encoder": {"kernel": jnp.ones((4096, 4096))}})  # 64 MB
    bump = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    checkpoints.save(1, state, data(), {})
    params = state.params
    for _ in range(20):
        params = bump(params)
    checkpoints.close()
    like = state.replace(params=params, key=jax.random.key(0))
    restored = Checkpoints(tmp_path, keep=1).restore(like, data())
    assert (np.asarray(restored.params["encoder"]["kernel"]) == 1).all()


def test_an_unfinished_checkpoint_is_not_taken(workdir):
    (workdir / "checkpoints" / "8.orbax-checkpoint-tmp-1").mkdir()
    assert Checkpoints(workdir, keep=2).latest_step() == 6


def test_a_damaged_checkpoint_is_named(workdir):
    folder = workdir / "checkpoints" / "6"
    for path in (folder / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"checkpoints/6: the checkpoint cannot be restored"):
        Checkpoints(workdir, keep=2).restore(state_of(0), data())


def test_nothing_to_restore(tmp_path):
    with pytest.raises(InputError, match="found no checkpoint"):
        Checkpoints(tmp_path, keep=2).restore(state_of(0), data())
