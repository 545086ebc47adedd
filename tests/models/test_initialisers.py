"""Initial parameters: the reference's distributions, by tensor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.models.mixmae import MixMAE


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    arch = VARIANTS["tiny"]
    init = jax.jit(MixMAE(arch).init)
    params = init(jax.random.key(0), jnp.zeros((2, 128, 128, 2)), jnp.zeros((4, 4)))["params"]
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
