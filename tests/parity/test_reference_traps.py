"""The numbers of the reference catch what losses alone do not: shown once, by making mistakes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sar_mixmae_jax.models import layers
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.training.optimizer import decay_mask
from tests.parity.test_golden_pretraining import LOSS_TOLERANCE, TOLERANCE, train
from tests.reference import Golden, compare_trees, nhwc, relative_error


@pytest.fixture(scope="module")
def golden() -> Golden:
    """The project's own numbers, whatever GOLDEN names."""
    return Golden(Path(__file__).parents[1] / "golden")


def token_error(golden) -> float:
    model = MixMAE(golden.architecture())
    mask = jnp.array(golden.pretrain["mask"]).reshape(model.arch.mask_grid, -1)
    images = jnp.array(nhwc(golden.pretrain["x"]))
    # A fresh function each time: a cached compilation would not see the change.
    encode = jax.jit(lambda params: model.apply(params, images, mask, method=MixMAE.encode))
    theirs = golden.pretrain["encoder_tokens"]
    return relative_error(
        np.asarray(encode({"params": golden.params()})).reshape(theirs.shape), theirs
    )


def test_tanh_gelu_is_caught(golden, monkeypatch):
    exact = layers.nn.gelu
    monkeypatch.setattr(layers.nn, "gelu", lambda x, approximate: exact(x, approximate=True))
    assert token_error(golden) > TOLERANCE


def test_epsilon_is_caught(golden, monkeypatch):
    monkeypatch.setattr(layers, "EPSILON", 1e-6)
    assert token_error(golden) > TOLERANCE


def test_missing_decay_of_the_bias_tables_is_caught_by_the_parameters_alone(golden):
    def adamw(schedule, **settings):
        def mask(params):
            return jax.tree_util.tree_map_with_path(
                lambda path, decays: decays and path[-1].key != "bias_table", decay_mask(params)
            )

        return optax.adamw(schedule, mask=mask, **settings)

    params, losses = train(golden, MixMAE(golden.architecture()), adamw)
    assert losses == pytest.approx(golden.pretrain["trajectory/losses"], rel=LOSS_TOLERANCE)
    errors = {
        name: relative_error(ours, theirs)
        for name, ours, theirs in compare_trees(
            params, golden.pretrain_arrays("trajectory/params/")
        )
    }
    caught = {name for name, error in errors.items() if error > TOLERANCE}
    assert caught
    assert all(name.endswith("relative_position_bias_table") for name in caught)
