"""Initial parameters: the reference's distributions, by tensor."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.models.initialisers import (
    SMALLEST_DRAW,
    initial_params,
    normal,
    uniform,
    xavier_uniform,
)
from sar_mixmae_jax.models.layers import remat_block
from sar_mixmae_jax.models.mixmae import MixMAE, init_params


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    params = init_params(MixMAE(VARIANTS["tiny"]), jax.random.key(0))
    return {name: np.asarray(value) for name, value in flatten_dict(params, sep="/").items()}


def test_every_tensor(tensors):
    for name, values in tensors.items():
        last = name.split("/")[-1]
        if name.startswith("encoder/patch_embed/proj"):
            check_uniform(name, values, 1 / np.sqrt(4 * 4 * 2))
        elif last == "kernel":  # the fused qkv as one matrix of C x 3C
            check_uniform(name, values, np.sqrt(6 / sum(values.shape)))
        elif last in ("bias_table", "mask_token"):
            assert values.std() == pytest.approx(0.02, rel=0.3), name
            assert abs(values.mean()) < 0.01, name
        elif last == "bias":
            assert (values == 0).all(), name
        else:
            assert last == "scale"
            assert (values == 1).all(), name


def check_uniform(name: str, values: np.ndarray, bound: float) -> None:
    assert np.abs(values).max() <= bound, name
    assert np.abs(values).max() > 0.8 * bound, name
    assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.25), name


def test_normal_tensors_are_not_truncated_at_two_deviations(tensors):
    drawn = np.concatenate([v.ravel() for k, v in tensors.items() if k.endswith("bias_table")])
    assert np.abs(drawn).max() > 3 * 0.02


def test_draws_have_the_digits_of_jax():
    key, shape = jax.random.key(3), (80, 60)
    assert np.prod(shape) > SMALLEST_DRAW

    @jax.jit
    def expected(key: jax.Array) -> list[jax.Array]:
        within = jax.random.uniform(key, shape, minval=-0.3, maxval=0.3)
        others = (nn.initializers.xavier_uniform(), nn.initializers.normal(0.02))
        return [within, *(draw(key, shape, jnp.float32) for draw in others)]

    drawn = [
        draw(key, shape, jnp.float32) for draw in (uniform(0.3), xavier_uniform(), normal(0.02))
    ]
    for ours, theirs in zip(drawn, expected(key), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_parameters_are_those_of_flax_without_the_output(remat):
    class Block(nn.Module):
        output: bool

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.LayerNorm()(nn.Dense(3, kernel_init=xavier_uniform())(x))
            x = nn.Conv(3, (2,), bias_init=second_half)(x)
            return x if self.output else jax.pure_callback(fail, x, x)

    class Model(nn.Module):
        output: bool
        remat: str

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return remat_block(Block, self.remat)(self.output, name="block")(x)

    def second_half(key: jax.Array, shape: tuple[int, ...], dtype: type) -> jax.Array:
        first, second = jax.random.split(key)
        numbers = jax.random.normal(second, (4 * shape[0],), dtype) + jax.random.normal(first, ())
        return numbers[2 * shape[0] :: 2] * jnp.broadcast_to(jnp.arange(1.0, 4.0), (1, 3))[0]

    def fail(x: np.ndarray) -> np.ndarray:
        raise AssertionError("the output was computed")

    key = jax.random.key(0)
    expected = Model(output=True, remat=remat).init(key, jnp.zeros((2, 5)))["params"]
    found = initial_params(Model(output=False, remat=remat), key, (2, 5))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
