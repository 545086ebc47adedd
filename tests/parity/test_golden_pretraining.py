"""Every array of a golden folder: what the published PyTorch implementation computes.

`GOLDEN=DIR ./run.sh test -k golden` runs these on another folder of the same form.
"""

import json
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.models.layers import sincos_position_embedding
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.models.swin import relative_position_index
from sar_mixmae_jax.objectives.preprocess import PreparedBatch
from sar_mixmae_jax.objectives.radiometry import standardise, valid_pixels
from sar_mixmae_jax.objectives.reconstruction import reconstruct
from sar_mixmae_jax.objectives.weighting import Weighting, loss_weights
from sar_mixmae_jax.training.optimizer import adamw, decay_mask, learning_rate
from tests.reference import BUFFERS, Golden, compare_trees, nhwc, parameter_path, relative_error

LOSS_TOLERANCE = 1e-6
TOLERANCE = 1e-5
MEAN, STD = jnp.array([-19.1966, -12.5144]), jnp.array([5.4501, 5.0019])
NAMES = {"none": "none", "per_channel": "per_channel", "shared_avg": "shared_average"}


@pytest.fixture(scope="module")
def check(golden_errors):
    """Compare with the golden value, and record the error for the summary."""

    def compare(name: str, ours, theirs, tolerance: float = TOLERANCE) -> None:
        compare_all([(name, ours, theirs)], tolerance)

    def compare_all(triples, tolerance: float = TOLERANCE) -> None:
        above = []
        for name, ours, theirs in triples:
            error = relative_error(ours, theirs)
            golden_errors[name] = max(error, golden_errors.get(name, 0.0))
            if not error <= tolerance:
                above.append(f"{name}: relative error {error:.2e} above {tolerance:.0e}")
        assert not above, "\n".join(above)

    compare.all = compare_all
    return compare


@pytest.fixture(scope="module")
def model(golden: Golden) -> MixMAE:
    return MixMAE(golden.architecture())


@pytest.fixture(scope="module")
def mask(golden: Golden, model: MixMAE):
    return jnp.array(golden.pretrain["mask"]).reshape(model.arch.mask_grid, model.arch.mask_grid)


def weights_of(golden: Golden, name: str):
    if name == "none":
        return jnp.ones_like(nhwc(golden.pretrain["x"]))
    return jnp.array(nhwc(golden.pretrain[f"weights/{name}"]))


def prepared(golden: Golden, weighting: str) -> PreparedBatch:
    images = jnp.array(nhwc(golden.pretrain["x"]))
    weights = weights_of(golden, weighting)
    return PreparedBatch(images, weights, jnp.ones_like(images, bool), images)


@partial(jax.jit, static_argnums=(3, 4))
@jax.value_and_grad
def loss_and_gradient(params, batch, mask, model, norm_pix):
    """Return the loss and its gradient: one program for all tests of one `norm_pix`."""
    return reconstruct(model, params, batch, mask, norm_pix_loss=norm_pix).error.mean()


def test_golden_standardisation(golden, check):
    db = jnp.array(nhwc(golden.pretrain["db"]))
    check("x", jax.jit(standardise)(db, MEAN, STD), nhwc(golden.pretrain["x"]))


def test_golden_buffers(golden, model, check):
    arch = model.arch
    for name, width, side in (
        ("absolute_pos_embed", arch.embed_dim, arch.image_size // arch.patch_size),
        ("decoder_pos_embed", arch.decoder_embed_dim, arch.mask_grid),
    ):
        ours = sincos_position_embedding(side, width).reshape(1, -1, width)
        check(name, ours, golden.tensors[name])
    for name in golden.tensors:
        if name.endswith("relative_position_index"):
            window = round(golden.tensors[name].shape[0] ** 0.5)
            check(name, relative_position_index(window), golden.tensors[name], 0.0)


@pytest.mark.parametrize(
    ("group", "settings"),
    [
        ("weights", {"domain": "physical"}),
        ("weights_scale2", {"domain": "physical", "scale": 2.0}),
        ("weights_of_normalised", {"domain": "standardised"}),
    ],
)
@pytest.mark.parametrize("name", ["per_channel", "shared_avg"])
def test_golden_weights(golden, check, group, settings, name):
    db = jnp.array(nhwc(golden.pretrain["db"]))
    weighting = Weighting(name=NAMES[name], **settings)
    images = standardise(db, MEAN, STD)
    ours = jax.jit(loss_weights, static_argnums=3)(db, images, valid_pixels(db), weighting)
    check(f"{group}/{name}", ours, nhwc(golden.pretrain[f"{group}/{name}"]))


@pytest.fixture(scope="module")
def computed(golden, model, mask):
    """Tokens of the encoder and the reconstruction, from one program."""

    @jax.jit
    def both(params, images):
        tokens = model.apply(params, images, mask, method=MixMAE.encode)
        return tokens, model.apply(params, tokens, mask, method=MixMAE.decode)

    return both({"params": golden.params()}, jnp.array(nhwc(golden.pretrain["x"])))


def test_golden_encoder_tokens(golden, computed, check):
    theirs = golden.pretrain["encoder_tokens"]
    check("encoder_tokens", np.asarray(computed[0]).reshape(theirs.shape), theirs)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_golden_reconstruction(golden, computed, check, norm_pix):
    name = f"norm_pix={norm_pix}/weighting=none/reconstruction"
    check(name, computed[1], golden.pretrain[name])


@pytest.mark.parametrize("norm_pix", [0, 1])
@pytest.mark.parametrize("weighting", list(NAMES))
def test_golden_loss(golden, model, mask, check, norm_pix, weighting):
    batch = prepared(golden, weighting)
    ours, _ = loss_and_gradient(golden.params(), batch, mask, model, bool(norm_pix))
    name = f"norm_pix={norm_pix}/weighting={weighting}/loss"
    check(name, ours, golden.pretrain[name], LOSS_TOLERANCE)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_golden_gradients(golden, model, mask, check, norm_pix):
    prefix = f"norm_pix={norm_pix}/weighting=per_channel/grad/"
    batch = prepared(golden, "per_channel")
    _, ours = loss_and_gradient(golden.params(), batch, mask, model, bool(norm_pix))
    check.all(
        (prefix + name, *pair)
        for name, *pair in compare_trees(ours, golden.pretrain_arrays(prefix))
    )


def test_golden_decayed_names(golden):
    theirs = {parameter_path(name) for name in golden.pretrain["weight_decay/decayed_names"]}
    decayed = jax.tree_util.tree_leaves_with_path(decay_mask(golden.params()))
    ours = {"/".join(key.key for key in path) for path, decays in decayed if decays}
    assert ours == theirs


def train(golden: Golden, model: MixMAE, make_optimizer=adamw):
    """The golden trajectory: AdamW steps on one batch, each with its own mask and rate."""
    rates = jnp.array(golden.pretrain["trajectory/lr"], jnp.float32)
    optimizer = make_optimizer(lambda count: rates[count], b1=0.9, b2=0.95, weight_decay=0.05)
    batch = prepared(golden, "per_channel")

    @jax.jit
    def update(params, opt_state, gradient):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = jax.tree.map(jnp.asarray, golden.params())
    opt_state, losses = optimizer.init(params), []
    for mask in golden.pretrain["trajectory/masks"]:
        grid = jnp.array(mask).reshape(model.arch.mask_grid, model.arch.mask_grid)
        loss, gradient = loss_and_gradient(params, batch, grid, model, True)
        params, opt_state = update(params, opt_state, gradient)
        losses.append(float(loss))
    return params, np.array(losses)


def test_golden_trajectory(golden, model, check):
    params, losses = train(golden, model)
    prefix = "trajectory/params/"
    check.all(
        (prefix + name, *pair)
        for name, *pair in compare_trees(params, golden.pretrain_arrays(prefix))
    )
    check("trajectory/losses", losses, golden.pretrain["trajectory/losses"], LOSS_TOLERANCE)


def test_golden_schedule(golden, check):
    values = golden.finetune
    epochs = values["schedule/epoch"]
    steps = 100_000
    schedule = learning_rate(
        peak=1.2e-3,
        end_learning_rate=1e-6,
        warmup_epochs=40,
        schedule_epochs=1024,
        sampler=ShuffleSampler(records=steps, batch_size=1, seed=0),
    )
    ours = [schedule(epoch * steps) for epoch in epochs]
    check("schedule/lr", ours, values["schedule/lr"])


def test_golden_arrays_all_compared(golden, golden_errors):
    """Nothing in the golden folder is left out: this must run after the tests above."""
    compared = set(golden_errors)
    inputs = {"db", "mask", "weight_decay/decayed_names", "trajectory/masks", "trajectory/lr"}
    assert {name for name in golden.tensors if name.endswith(BUFFERS)} <= compared
    rest = sorted(set(golden.pretrain) - inputs - compared)
    if rest and "GOLDEN" in os.environ:
        pytest.skip(f"{golden.folder / 'pretrain.npz'} has arrays without a test: {rest}")
    assert not rest


@pytest.mark.parametrize("variant", ["base", "large", "huge"])
def test_golden_parameter_counts(golden, variant):
    path = golden.path("parameters.json")
    published = json.loads(path.read_text())[f"mixmim_{variant}"]
    arch = VARIANTS[variant]
    images = jax.ShapeDtypeStruct((2, arch.image_size, arch.image_size, arch.bands), jnp.float32)
    mask = jax.ShapeDtypeStruct((arch.mask_grid, arch.mask_grid), jnp.float32)
    params = jax.eval_shape(MixMAE(arch).init, jax.random.key(0), images, mask)["params"]

    def count(tree) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    assert count(params) == published["trainable"]
    assert count(params["encoder"]) == published["encoder"]
