"""SimMIM: hidden units do not enter, hidden units alone count, and the encoder is MixMAE's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.models.simmim import SimMIM
from sar_mixmae_jax.objectives.preprocess import PreparedBatch
from sar_mixmae_jax.objectives.reconstruction import reconstruct
from tests.models.test_mixmae import MASK, SMALL

MODEL = SimMIM(SMALL)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 32, 32, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def params(images):
    return jax.jit(MODEL.init)(jax.random.key(0), images, MASK)["params"]


@pytest.fixture(scope="module")
def predict(params):
    return jax.jit(lambda images: MODEL.apply({"params": params}, images, MASK))


def test_the_encoder_is_that_of_mixmae(params, images):
    shapes = jax.eval_shape(MixMAE(SMALL).init, jax.random.key(0), images[:2], MASK)["params"]
    assert jax.tree.map(jnp.shape, params["encoder"]) == jax.tree.map(jnp.shape, shapes["encoder"])
    assert {
        name: np.shape(value) for name, value in params["decoder"].items() if name != "pred"
    } == {"mask_token": (1, 1, 1, 8)}


def test_values_of_hidden_units_do_not_enter_and_others_do(predict, images):
    hidden = np.asarray(MODEL.masked_input(jnp.asarray(images), MASK))
    assert np.isnan(hidden).mean() == 0.5
    before = predict(images)
    assert before.shape == (3, 16, 8 * 8 * 2)
    np.testing.assert_array_equal(predict(np.where(np.isnan(hidden), 9.0, images)), before)
    changed = predict(np.where(np.isnan(hidden), images, images + 1.0))
    assert (np.abs(changed - before).max((1, 2)) > 1e-3).all()


def test_images_are_not_mixed(predict, images):
    """Neither order nor number of the others matters."""
    np.testing.assert_allclose(predict(images)[0], predict(images[::-1])[2], atol=1e-5)


def test_only_hidden_units_count(params, images):
    ones = jnp.ones_like(images)
    batch = PreparedBatch(jnp.asarray(images), ones, ones > 0, jnp.asarray(images))
    result = jax.jit(lambda params: reconstruct(MODEL, params, batch, MASK, norm_pix_loss=True))(
        params
    )
    seen = np.asarray(MASK).reshape(-1) == 0
    assert not np.asarray(result.error)[:, seen].any()
    assert not np.asarray(result.valid)[:, seen].any()
    assert (np.asarray(result.error)[:, ~seen].sum(-1) > 0).all()
    assert np.asarray(result.valid)[:, ~seen].all()
