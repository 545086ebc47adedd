"""GELU with a gradient of its own below float32, against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from sar_mixmae_jax.models.layers import gelu


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2**-8)])
def test_value_and_gradient(dtype, tolerance):
    x = jnp.linspace(-8, 8, 801).astype(dtype)
    gradient_out = jnp.linspace(1, 2, 801).astype(dtype)
    value, gradient = jax.vjp(gelu, x)[0], jax.vjp(gelu, x)[1](gradient_out)[0]
    assert value.dtype == gradient.dtype == dtype
    exact, weights = np.asarray(x, np.float64), np.asarray(gradient_out, np.float64)
    np.testing.assert_allclose(
        np.float64(value), exact * norm.cdf(exact), rtol=tolerance, atol=1e-6
    )
    slope = norm.cdf(exact) + exact * norm.pdf(exact)
    np.testing.assert_allclose(np.float64(gradient), weights * slope, rtol=tolerance, atol=1e-6)


def test_large_arguments_are_finite():
    x = jnp.array([-1e30, -50.0, 50.0, 1e30], jnp.bfloat16)
    value, gradient = jax.vjp(gelu, x)[0], jax.vjp(gelu, x)[1](jnp.ones_like(x))[0]
    np.testing.assert_array_equal(value, jnp.array([0, 0, 50, 1e30], jnp.bfloat16))
    np.testing.assert_array_equal(gradient, jnp.array([0, 0, 1, 1], jnp.bfloat16))


def test_bfloat16_keeps_its_argument_alone():
    """The gradient is computed from the argument: no other array is kept for it."""
    x = jnp.zeros((64, 32), jnp.bfloat16)
    kept = jax.tree.leaves(jax.vjp(gelu, x)[1])
    assert [(array.shape, array.dtype) for array in kept] == [(x.shape, x.dtype)]
