"""The model: the table of sizes, isolation of mixed images, remat and dtype, refused sizes."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.models.architecture import VARIANTS, Architecture, make_architecture
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.utils.errors import InputError

SMALL = Architecture(
    embed_dim=8,
    num_heads=(1, 2),
    depths=(1, 1),
    window_sizes=(4, 4),  # a quarter of the image, then all of it
    image_size=32,
    decoder_embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=2,
)
PARAMETERS = {  # all, and of the encoder; tiny as first counted, the others as published
    "tiny": (2_974_846, 2_280_830),
    "base": (113_547_000, 86_750_968),
    "large": (222_065_268, 195_007_092),
    "huge": (682_596_138, 654_882_602),
}
FORWARD_GFLOPS = {"tiny": 0.289, "base": 11.83, "large": 24.30, "huge": 77.06}


@pytest.fixture(scope="module")
def params():
    mask = jnp.zeros((4, 4))
    init = jax.jit(MixMAE(SMALL).init)
    return init(jax.random.key(0), jnp.zeros((2, 32, 32, 2)), mask)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 32, 32, 2)).astype(np.float32)


MASK = jnp.array(np.random.default_rng(1).permutation(16).reshape(4, 4) < 8, jnp.float32)


def test_every_variant_has_its_flops_counted():
    counted = {
        name: (architecture.encoder_flops(arch) + architecture.decoder_flops(arch)) / 1e9
        for name, arch in VARIANTS.items()
    }
    assert set(counted) == set(FORWARD_GFLOPS)
    for name, value in FORWARD_GFLOPS.items():
        assert counted[name] == pytest.approx(value, abs=0.005)


def test_every_variant_has_its_parameters_counted():
    """Those of the published variants are counted by the golden tests."""

    def count(tree) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    images, mask = jnp.zeros((2, 128, 128, 2)), jnp.zeros((4, 4))
    init = MixMAE(VARIANTS["tiny"]).init
    params = jax.eval_shape(init, jax.random.key(0), images, mask)["params"]
    counted = {"tiny": (count(params), count(params["encoder"]))}
    path = Path(__file__).parents[1] / "golden/parameters.json"
    for name, counts in json.loads(path.read_text()).items():
        counted[name.removeprefix("mixmim_")] = counts["trainable"], counts["encoder"]
    assert counted == PARAMETERS
    assert PARAMETERS.keys() == VARIANTS.keys()


def test_a_prediction_depends_on_nothing_hidden(params, images):
    """A prediction is independent of its own mask unit, in either view, and of a third image."""
    model = MixMAE(SMALL)
    predict = jax.jit(partial(model.apply, params, mask=MASK))
    before = np.asarray(predict(images))
    hidden = images.copy()
    hidden[0, :8, :8] += 5.0  # cell 0 of image 0; image 3 is its partner
    change = np.abs(np.asarray(predict(hidden)) - before).max(-1)
    assert change[0, 0] == 0  # not from itself
    assert (change[1:3] == 0).all()  # the other pair sees nothing
    assert (change[3] == 0).all()  # tokens of the partner attend to their own kind only
    shown = np.asarray(MASK).reshape(-1) != np.asarray(MASK).reshape(-1)[0]
    assert (change[0, shown] > 0).all()  # cells hidden where cell 0 was shown do see it


def test_a_mask_and_its_complement_give_the_same_predictions(params, images):
    """Mask ratios of 0.25 and 0.75 are thus one objective."""
    predict = jax.jit(partial(MixMAE(SMALL).apply, params, images))
    quarter = jnp.array(np.random.default_rng(2).permutation(16).reshape(4, 4) < 4, jnp.float32)
    np.testing.assert_allclose(predict(quarter), predict(1 - quarter), atol=1e-6)


def test_without_a_mask_images_are_encoded_alone(params, images):
    encode = jax.jit(partial(MixMAE(SMALL).apply, params, method=MixMAE.encode))
    np.testing.assert_allclose(encode(images)[:1], encode(images[:1]), atol=1e-5)


def test_remat_changes_nothing(params, images):
    def loss(variables, model):
        return jnp.square(model.apply(variables, images, MASK)).mean()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain = gradient(params, MixMAE(SMALL))
    remat = gradient(params, MixMAE(SMALL, remat="dots"))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), plain, remat)


def test_bfloat16_is_close_and_returns_float32(params, images):
    exact = jax.jit(MixMAE(SMALL).apply)(params, images, MASK)
    rough = jax.jit(MixMAE(SMALL, dtype=jnp.bfloat16).apply)(params, images, MASK)
    assert rough.dtype == jnp.float32
    assert (rough != rough.astype(jnp.bfloat16)).any()  # not rounded on the way out
    assert np.linalg.norm(rough - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 120}, "image_size is 120"),
        ({"image_size": 96}, "window of stage 2"),
        ({"embed_dim": 30}, "width of stage 1 is 30"),
        ({"depths": (1, 1)}, "one value per stage"),
        ({"decoder_embed_dim": 130}, "decoder_embed_dim is 130"),
        (
            {"window_sizes": (0, 8, 8, 4)},
            "window_sizes is .0, 8, 8, 4.: expected whole numbers from 1",
        ),
        ({"image_size": 0}, "image_size is 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_architecture("base", **changes)


def test_unknown_variant_names_the_known():
    with pytest.raises(InputError, match="did you mean 'base'"):
        make_architecture("bas")
