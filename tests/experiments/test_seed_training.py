"""Several seeds in one program: the same steps as runs of one seed, in any grouping."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sar_mixmae_jax.data.record_cache import PackedSource
from sar_mixmae_jax.experiments import seed_training
from sar_mixmae_jax.experiments.programs import TRACING, Compilers, Program
from sar_mixmae_jax.experiments.seed_training import (
    load_records,
    predict_seeds,
    stack,
    train_seeds,
)
from sar_mixmae_jax.training.train_step import init_state

RNG = np.random.default_rng(0)
SOURCE = PackedSource(
    {
        "id": np.array([f"{n}" for n in range(10)]),
        "x": RNG.normal(size=(10, 2, 3)).astype(np.float32),
        "y": RNG.normal(size=10).astype(np.float32),
    }
)
ROWS = RNG.integers(0, 10, (5, 3, 4))  # step, seed, batch
OPTIMIZER = optax.sgd(0.1)


def loss_fn(params, batch, key):
    """Squared error of a linear model."""
    del key
    errors = (batch["x"].reshape(-1, 6) @ params["w"] - batch["y"]) ** 2
    return errors.sum(), (jnp.float32(len(errors)), errors)


def initial_states():
    def init(key):
        return {"w": jax.random.normal(key, (6,))}

    return stack([init_state(init, OPTIMIZER, jax.random.key(seed)) for seed in range(3)])


def by_hand(weights, rows):
    """Gradient descent in NumPy: (weights, losses) after all steps of a seed."""
    x, y = SOURCE.columns["x"].reshape(10, 6), SOURCE.columns["y"]
    losses = []
    for batch in rows:
        residual = x[batch] @ weights - y[batch]
        losses.append((residual**2).mean())
        weights = weights - 0.1 * 2 * (residual @ x[batch]) / len(batch)
    return weights, losses


@pytest.mark.parametrize(("together", "in_turn"), [(False, False), (True, False), (True, True)])
def test_steps_are_those_of_each_seed(together, in_turn, monkeypatch):
    monkeypatch.setattr(seed_training, "is_accelerator", lambda: together)
    monkeypatch.setattr(seed_training, "STEPS_TOGETHER", 3)
    states = initial_states()
    start = np.asarray(states.params["w"])
    records = load_records(SOURCE, np.arange(10))
    after, losses = train_seeds(states, ROWS, records, loss_fn, OPTIMIZER, in_turn=in_turn)
    assert losses.shape == (5, 3)
    assert len(seed_training.seed_groups(3)) == (1 if together else 3)
    assert after.step.tolist() == [5, 5, 5]
    for seed in range(3):
        weights, expected = by_hand(start[seed], ROWS[:, seed])
        np.testing.assert_allclose(after.params["w"][seed], weights, rtol=2e-5)
        np.testing.assert_allclose(losses[:, seed], expected, rtol=2e-5)


def test_predictions_are_of_every_record_and_seed():
    params = {"w": jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)}
    records = load_records(SOURCE, np.arange(10)[::-1])

    def predict(params, batch):
        return {"p": batch["x"].reshape(-1, 6) @ params["w"], "left": batch["y"]}

    outputs = predict_seeds(params, records, predict, 4, leave_out=("left",))
    assert set(outputs) == {"p"}
    expected = SOURCE.columns["x"].reshape(10, 6)[::-1] @ np.asarray(params["w"]).T
    np.testing.assert_allclose(outputs["p"], expected.T, rtol=1e-5)
    some = predict_seeds(params, records, predict, 2, rows=np.array([7, 1, 4]))
    np.testing.assert_allclose(some["p"], expected.T[:, [7, 1, 4]], rtol=1e-5)


def test_a_program_compiled_ahead_is_the_same():
    program = Program(partial(jnp.multiply, 2.0))
    with Compilers() as compilers:
        program.prepare(compilers, jnp.zeros(3))
    assert program(jnp.arange(3.0)).tolist() == [0, 2, 4]
    assert program(jnp.arange(2.0)).tolist() == [0, 2]  # other shapes are compiled when called


def test_a_program_that_was_given_up_is_compiled_when_called():
    program = Program(partial(jnp.multiply, 2.0))
    with TRACING, Compilers() as compilers:
        program.prepare(compilers, jnp.zeros(3))
    assert program(jnp.arange(3.0)).tolist() == [0, 2, 4]
