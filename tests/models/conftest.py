"""Fixture for kernels of GPUs."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


@pytest.fixture(scope="module")
def lower_for_cuda():
    """Lower a function of arrays for CUDA; skip where this jaxlib cannot do it without a GPU."""

    def lower(function, *shapes):
        return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()

    def double(x_ref, out_ref):
        out_ref[...] = 2 * x_ref[...]

    shape = jax.ShapeDtypeStruct((16,), jnp.float32)
    call = pl.pallas_call(double, shape, compiler_params=triton.CompilerParams(num_warps=1))
    try:
        lower(call, shape)
    except Exception as error:
        pytest.skip(f"no kernel can be lowered for CUDA here: {type(error).__name__}: {error}")
    return lower
