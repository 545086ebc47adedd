"""The train step on two devices: a real mean over both, own randomness, donated buffers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.masking import random_mask
from sar_mixmae_jax.models.mixmae import MixMAE, init_params
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss, reconstruct
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.sharding import replicate, shard_batch
from sar_mixmae_jax.training.train_step import (
    CacheablePartial,
    by_pmap,
    by_shard_map,
    init_state,
    map_over_devices,
    train_step,
)

SIZE = Architecture(
    embed_dim=8,
    num_heads=(1,),
    depths=(1,),
    window_sizes=(4,),
    image_size=32,
    decoder_embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=2,
)
OBJECTIVE = PretrainObjective(
    MixMAE(SIZE),
    Preprocessing(32, mean=(-19.0, -12.0), std=(5.0, 5.0), weighting=Weighting()),
    mask_ratio=0.5,
    norm_pix_loss=True,
)
OPTIMIZER = optax.sgd(1.0)  # the update is the gradient


def loss_of(objective: PretrainObjective):
    return CacheablePartial(pretrain_loss, objective)


def start(optimizer):
    init = partial(init_params, OBJECTIVE.model)
    return replicate(init_state(init, optimizer, jax.random.key(3)))


def fields(backscatter):
    return {"backscatter": backscatter}


@pytest.fixture(scope="module")
def backscatter() -> np.ndarray:
    batch = np.random.default_rng(0).normal(-15, 5, (2, 2, 30, 30, 2)).astype(np.float32)
    batch[0, 0, :20] = np.nan  # devices have different numbers of valid pixels
    return batch


@pytest.fixture(scope="module")
def stepped(backscatter):
    """The state before (a copy), after one step, and what the step returned."""
    state = start(OPTIMIZER)
    copied = jax.tree.map(jnp.copy, state)  # an array that NumPy has read keeps its buffers
    before = jax.tree.map(np.asarray, copied.params)
    key = jax.random.wrap_key_data(copied.key)
    step = map_over_devices(loss_of(OBJECTIVE), OPTIMIZER)
    after, metrics, errors = step(state, fields(backscatter))
    return before, key, state, after, metrics, errors, step


@jax.jit
def sums_of_microbatch(params, patches, key):
    """Return ((summed error, gradient), number of valid pixels) of (2, 30, 30, 2) patches."""
    flip_key, mask_key = jax.random.split(key)
    batch = preprocess(patches, flip_key, OBJECTIVE.preprocessing)
    mask = random_mask(mask_key, SIZE.mask_grid, 0.5)

    def loss(params):
        return reconstruct(OBJECTIVE.model, params, batch, mask, norm_pix_loss=True).error.sum()

    return jax.value_and_grad(loss)(params), batch.valid.sum()


def expected_update(params, key, microbatches):
    """Return loss and gradient of the first step: own key, mask and partners per microbatch."""
    key = jax.random.fold_in(key, 0)
    sums = [
        sums_of_microbatch(params, patches, jax.random.fold_in(key, number))
        for number, patches in enumerate(microbatches)
    ]
    count = sum(float(valid) for _, valid in sums)
    gradients = [flat(gradient) for (_, gradient), _ in sums]
    gradient = [sum(leaves) / count for leaves in zip(*gradients, strict=True)]
    return sum(float(loss) for (loss, _), _ in sums) / count, gradient


def test_the_update_is_the_gradient_over_all_valid_pixels(stepped, backscatter):
    before, key, _, after, metrics, errors, _ = stepped

    value, gradient = expected_update(before, key, backscatter)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["gradient_norm"]) == pytest.approx(
        float(optax.global_norm(gradient)), rel=1e-4
    )
    assert errors.shape == (2, 2)
    moved = [old - new for old, new in zip(flat(before), flat(after.params), strict=True)]
    difference = optax.global_norm([a - b for a, b in zip(moved, gradient, strict=True)])
    assert float(difference) < 1e-4 * float(optax.global_norm(gradient))


def test_devices_draw_different_masks(backscatter):
    """The same patches on both devices, unchanged by flips: equal errors would mean equal masks."""
    half = backscatter[1:, :, :15]
    half = np.concatenate([half, half[:, :, ::-1]], axis=2)[:, :, :, :15]
    twice = np.repeat(np.concatenate([half, half[:, :, :, ::-1]], axis=3), 2, axis=0)
    step = map_over_devices(loss_of(OBJECTIVE), OPTIMIZER)
    errors = np.asarray(step(start(OPTIMIZER), fields(twice))[2])
    assert (np.abs(errors[0] - errors[1]) > 1e-4 * errors[0]).all()  # flips change last digits only


def test_buffers_are_donated_and_nothing_compiles_twice(stepped, backscatter):
    _, _, state, after, _, _, step = stepped
    assert jax.tree.leaves(state.params)[0].is_deleted()
    compilations = []

    def count(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        later = step(after, fields(backscatter))[0]
        jax.block_until_ready(step(later, fields(backscatter)))
        assert not compilations
        jax.jit(lambda x: x * 3 + 1)(1.0)  # the listener does count
        assert compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def test_a_nodata_patch_does_not_spoil_the_step(backscatter):
    batch = backscatter.copy()
    batch[0, 0] = np.nan
    state = start(OPTIMIZER)
    state, metrics, errors = map_over_devices(loss_of(OBJECTIVE), OPTIMIZER)(state, fields(batch))
    assert np.isfinite(metrics["loss"])
    assert float(errors[0, 0]) == 0
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_values_under_nodata_do_not_exist(backscatter):
    """The step is bitwise the same for NaN and for infinite nodata."""
    other = np.where(np.isnan(backscatter), np.inf, backscatter)
    results = []
    for batch in (backscatter, other):
        state = start(OPTIMIZER)
        results.append(
            map_over_devices(loss_of(OBJECTIVE), OPTIMIZER)(state, fields(batch))[1]["loss"]
        )
    assert float(results[0]) == float(results[1])


def flat(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


ADAMW = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def test_shard_map_is_bitwise_pmap(backscatter):
    """The mapping of several processes computes what that of one process computes."""

    def step(state, batch):
        return train_step(state, batch, loss_of(OBJECTIVE), ADAMW)

    results = []
    for mapped in (by_pmap(step), by_shard_map(step)):
        state = start(ADAMW)
        for _ in range(3):
            state, metrics, errors = mapped(
                state, fields(shard_batch(backscatter.reshape(-1, 30, 30, 2)))
            )
        results.append(flat((state, metrics, errors)))
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_accumulating_is_having_more_devices(backscatter):
    """Two devices of two microbatches each are four devices."""
    batch = np.concatenate([backscatter, backscatter[::-1] + 1], axis=1)  # 2 devices, 4 patches
    state = start(OPTIMIZER)
    before = jax.tree.map(np.array, state.params)
    key = jax.random.wrap_key_data(np.array(state.key))

    value, gradient = expected_update(before, key, batch.reshape(4, 2, 30, 30, 2))
    after, metrics, errors = map_over_devices(loss_of(OBJECTIVE), OPTIMIZER, grad_accum_steps=2)(
        state, fields(shard_batch(batch.reshape(-1, 30, 30, 2)))
    )
    assert errors.shape == (2, 4)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-6)
    for old, new, expected in zip(flat(before), flat(after.params), gradient, strict=True):
        np.testing.assert_allclose(old - new, expected, atol=1e-5 * np.abs(expected).max() + 1e-7)
