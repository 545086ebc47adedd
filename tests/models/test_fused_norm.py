"""The kernel of residual sum and LayerNorm, interpreted on CPU, against the plain form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.models import fused_norm as fused_norm_module
from sar_mixmae_jax.models.fused_norm import TILE, fused_norm
from sar_mixmae_jax.models.layers import EPSILON, add_norm
from sar_mixmae_jax.training.kernel_choice import measure_deviation, norm_trial
from tests.models.test_fused_attention import INTERPRETED

interpreted = INTERPRETED.norm


@pytest.mark.parametrize(
    ("rows", "width"),
    [
        (64, 128),
        (37, 48),  # neither is a power of two
        (3, 2 * TILE),  # a row is larger than a tile
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(rows, width):
    assert measure_deviation(interpreted, add_norm, norm_trial(jnp.float32, rows, width)) < 1e-6


def test_a_single_value_is_normalised_to_the_bias():
    total, out = interpreted(jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones(1), jnp.full(1, 3.0))
    assert (float(total[0, 0]), float(out[0, 0])) == (2.0, 3.0)


def test_a_program_with_several_tiles_of_which_the_last_are_short(monkeypatch):
    monkeypatch.setattr(fused_norm_module, "TILE", 64)
    monkeypatch.setattr(fused_norm_module, "PROGRAMS", 2)
    trial = norm_trial(jnp.float32, 37, 16)  # three programs of four tiles of four rows
    assert measure_deviation(interpreted, add_norm, trial) < 1e-6


def test_the_plain_form_is_layer_norm_of_the_sum():
    random = np.random.default_rng(0)
    x, change = random.normal(size=(2, 5, 8)).astype(np.float32)
    scale, bias = random.normal(size=(2, 8)).astype(np.float32)
    total = x.astype(np.float64) + change
    deviation = np.sqrt(total.var(-1, keepdims=True) + EPSILON)
    expected = (total - total.mean(-1, keepdims=True)) / deviation * scale + bias
    for norm in (add_norm, interpreted):
        found = norm(jnp.array(x), jnp.array(change), jnp.array(scale), jnp.array(bias))
        np.testing.assert_allclose(found[0], total, rtol=1e-6)
        np.testing.assert_allclose(found[1], expected, atol=2e-6)


def test_bfloat16_is_as_close_to_float32_as_the_plain_form():
    trial = norm_trial(jnp.bfloat16, 300, 48)
    fused, plain = (
        measure_deviation(norm, add_norm, trial, jnp.float32) for norm in (interpreted, add_norm)
    )
    assert 1e-4 < fused < 1.2 * plain


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("rows", "width"), [(1024, 512), (100, 192), (5, 4096), (2**18, 512), (2**18 + 5, 128)]
)
def test_triton_accepts_both_kernels(lower_for_cuda, rows, width, dtype):
    def gradient(x, change, scale, bias):
        def total(*arrays):
            return sum(out.astype(jnp.float32).sum() for out in fused_norm(*arrays))

        return jax.grad(total, (0, 1, 2, 3))(x, change, scale, bias)

    row = jax.ShapeDtypeStruct((rows, width), dtype)
    channel = jax.ShapeDtypeStruct((width,), jnp.float32)
    program = lower_for_cuda(gradient, row, row, channel, channel)
    assert program.count("xla.gpu.triton") == 2
