"""Heads on the encoder: drop path, tiles, changes between two dates, flips."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.heads import TILINGS, Classifier, FloodDetector, check_tiles
from sar_mixmae_jax.models.layers import drop_path_factors, scale_branch
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    finetune_loss,
    init_model_params,
    predict_outputs,
    prepare_batch,
)
from sar_mixmae_jax.utils.errors import InputError

SIZE = Architecture(
    embed_dim=8, num_heads=(1, 2), depths=(1, 1), window_sizes=(4, 4), image_size=32
)
RATE = 0.6


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def classifier():
    model = Classifier(SIZE, 5, drop_path=RATE, head_init="xavier")
    return model, jax.jit(model.init)(jax.random.key(0), noise(1, 32, 32, 2))


def test_the_tokens_of_all_stages_are_pooled(classifier):
    model, params = classifier
    images = noise(2, 32, 32, 2)
    maps = model.apply(params, images, method=lambda m, x: m.encoder.stages(x))
    for stages, expected in (("all", maps), ("last", maps[-1:])):
        features = model.clone(stages=stages).apply(params, images, method="features")
        means = [
            stage.reshape(2, -1, stage.shape[-1]).mean(1) for stage in map(np.asarray, expected)
        ]
        np.testing.assert_allclose(features, np.concatenate(means, 1), atol=1e-5)


# ---- drop path


def test_branches_are_left_out_at_rates_that_grow_and_the_mean_stays():
    factors = np.asarray(drop_path_factors(jax.random.key(1), 0.3, 4, 20_000))
    assert factors.shape == (4, 2, 20_000)
    for block, rate in enumerate((0.0, 0.1, 0.2, 0.3)):
        for branch in factors[block]:
            np.testing.assert_allclose(np.unique(branch)[-1], 1 / (1 - rate), rtol=1e-6)
            assert abs((branch == 0).mean() - rate) < 4 * np.sqrt(0.25 / 20_000)
            assert abs(branch.mean() - 1) < 0.03
    dropped = (factors[3] == 0).astype(float)
    assert abs(np.corrcoef(dropped)[0, 1]) < 0.03  # branches are drawn on their own


def test_a_factor_is_of_its_image():
    rows, factors = noise(6, 4), jnp.array([0.0, 1.0, 2.5])
    expected = rows * np.repeat([0.0, 1.0, 2.5], 2)[:, None]
    np.testing.assert_allclose(scale_branch(jnp.asarray(rows), factors), expected, rtol=1e-6)
    assert scale_branch(jnp.ones((6, 4), jnp.bfloat16), factors).dtype == jnp.bfloat16


def test_one_block_is_never_left_out():
    np.testing.assert_array_equal(drop_path_factors(jax.random.key(0), 0.5, 1, 8), 1.0)


def test_drop_path_is_per_image_and_off_without_a_key(classifier):
    """Two copies of an image with the same draw of the last block have the same logits."""
    model, params = classifier
    images = np.repeat(noise(1, 32, 32, 2), 16, axis=0)
    key = jax.random.key(4)
    logits = np.asarray(jax.jit(model.apply)(params, images, key))
    draws = np.asarray(drop_path_factors(key, RATE, 2, 16))[1].T
    kinds = [tuple(draw) for draw in (draws > 0)]
    assert len(set(kinds)) == 4
    for row in range(1, 16):
        for other in range(row):
            same = np.allclose(logits[row], logits[other], atol=1e-6)
            assert same == (kinds[row] == kinds[other])
    without = np.asarray(jax.jit(model.apply)(params, images))
    np.testing.assert_allclose(without, without[:1].repeat(16, 0), atol=1e-6)
    never = Classifier(SIZE, 5, drop_path=0.0, head_init="xavier")
    np.testing.assert_array_equal(jax.jit(never.apply)(params, images, key), without)


# ---- tiles


def test_spatial_tiles_are_what_a_loop_cuts():
    image, side = noise(2, 12, 8, 3), 4
    tiles = np.asarray(TILINGS["spatial"](jnp.asarray(image), side))
    assert tiles.shape == (2, 6, 4, 4, 3)
    for row in range(3):
        for column in range(2):
            cut = image[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            np.testing.assert_array_equal(tiles[:, row * 2 + column], cut)


def test_released_tiles_hold_two_neighbours_of_one_band():
    """The published order: all tiles of VH in reading order, then all of VV, two at a time."""
    image, side = noise(2, 16, 16, 2), 4
    tiles = np.asarray(TILINGS["released"](jnp.asarray(image), side))
    assert tiles.shape == (2, 16, 4, 4, 2)
    queue = [
        image[:, row * side : (row + 1) * side, column * side : (column + 1) * side, band]
        for band in range(2)
        for row in range(4)
        for column in range(4)
    ]
    for number in range(16):
        for place in range(2):
            np.testing.assert_array_equal(tiles[:, number, ..., place], queue[2 * number + place])


@pytest.mark.parametrize(("size", "tile"), [(120, 128), (200, 128), (64, 128), (0, 128)])
def test_images_that_tiles_do_not_fill_are_refused(size, tile):
    with pytest.raises(InputError, match=rf"{size}x{size} px and tiles of {tile} px"):
        check_tiles(size, tile)


@pytest.mark.parametrize(("tiling", "pooling"), [("spatial", "mean"), ("released", "max")])
def test_a_change_is_the_difference_of_tiles_encoded_alone(classifier, tiling, pooling):
    """And neither its sign nor the order of the dates matters to it."""
    encoder, params = classifier
    detector = FloodDetector(SIZE, 2, head_init="xavier", tiling=tiling, pooling=pooling)
    before, after = noise(3, 64, 64, 2), noise(3, 64, 64, 2, seed=1)
    head = {"kernel": noise(16, 2), "bias": noise(2)}
    ours = {"params": {"encoder": params["params"]["encoder"], "head": head}}
    apply = jax.jit(detector.apply)
    logits = np.asarray(apply(ours, before, after))
    alone = jax.jit(lambda image: encoder.apply(params, image, method="features"))
    for row in range(3):
        changes = []
        for number in range(4):
            tiles = [
                np.asarray(TILINGS[tiling](jnp.asarray(date[row : row + 1]), 32))[:, number]
                for date in (before, after)
            ]
            changes.append(np.abs(alone(tiles[0]) - alone(tiles[1]))[0])
        pooled = {"mean": np.mean, "max": np.max}[pooling](changes, axis=0)
        expected = pooled @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(apply(ours, after, before), logits, rtol=1e-5, atol=1e-5)


# ---- what the device makes of a batch


def flood_tuning(**settings):
    preprocessing = Preprocessing(64, (-19.0, -12.0), (3.0, 2.0), **settings)
    return FinetuneObjective(
        get_task("flood"), FloodDetector(SIZE, 2, head_init="xavier"), preprocessing
    )


def test_both_dates_are_flipped_alike_and_not_at_all_in_evaluation():
    """The dates differ by a constant, before and after any flip."""
    before = (noise(64, 64, 64, 2) * 3 - 15).astype(np.float32)
    batch = {"before": before, "after": before + np.float32([3.0, 2.0])}
    first, second = prepare_batch(batch, jax.random.key(0), flood_tuning())
    np.testing.assert_allclose(second - first, 1.0, atol=1e-4)
    as_is, _ = prepare_batch(batch, None, flood_tuning())
    np.testing.assert_allclose(as_is, (before + np.array([19, 12])) / [3, 2], rtol=1e-4, atol=1e-4)
    flips = [lambda x: x, lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: x[::-1, ::-1]]
    kinds = [
        next(k for k, f in enumerate(flips) if np.array_equal(f(as_is[row]), first[row]))
        for row in range(64)
    ]
    assert all(kinds.count(kind) > 4 for kind in range(4))
    unflipped, _ = prepare_batch(batch, jax.random.key(0), flood_tuning(random_flip=False))
    np.testing.assert_array_equal(unflipped, as_is)


def test_linear_power_and_nodata_reach_the_model_as_db_and_the_mean():
    db = (noise(2, 64, 64, 2) * 3 - 15).astype(np.float32)
    power = np.float32(10) ** (db / 10)
    power[0, :8], power[1, 0, 0, 1] = np.nan, 0.0
    settings = {"unit": "linear", "random_flip": False}
    ours, _ = prepare_batch({"before": power, "after": power}, None, flood_tuning(**settings))
    theirs, _ = prepare_batch({"before": db, "after": db}, None, flood_tuning(random_flip=False))
    np.testing.assert_array_equal(ours[0, :8], 0.0)
    np.testing.assert_allclose(ours[0, 8:], theirs[0, 8:], atol=1e-4)
    assert np.isfinite(ours).all()
    assert ours[1, 0, 0, 1] < theirs.min()  # no power at all: the floor


def test_the_loss_of_a_share_is_the_sum_over_its_records(classifier):
    """With the rate at 0; labels are 0 or 1 for each of five classes."""
    model = Classifier(SIZE, 5, drop_path=0.0, head_init="xavier")
    preprocessing = Preprocessing(32, (0.0, 0.0), (1.0, 1.0), random_flip=False)
    objective = FinetuneObjective(get_task("classification"), model, preprocessing)
    images = noise(5, 32, 32, 2)
    params = classifier[1]["params"]
    labels = np.random.default_rng(0).integers(0, 2, (5, 5)).astype(np.uint8)
    batch = {"backscatter": images, "labels": labels}

    def both(params, batch):
        return finetune_loss(params, batch, key, objective), predict_outputs(
            params, batch, objective
        )

    key = jax.random.key(0)
    (loss, (count, losses)), made = jax.jit(both)(params, batch)
    logits = np.asarray(made["logits"], float)
    expected = np.log1p(np.exp(np.where(labels == 1, -logits, logits))).mean(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert float(count) == 5
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-5)


def test_what_one_date_did_not_measure_is_no_change():
    """A strip without data on one date gives what it gives on both; a tile of it does not count."""
    detector = FloodDetector(SIZE, 2, head_init="xavier")
    objective = FinetuneObjective(
        get_task("flood"),
        detector,
        Preprocessing(64, (-19.0, -12.0), (5.0, 5.0), random_flip=False),
    )
    rng = np.random.default_rng(0)
    before, after = (rng.normal(-15, 5, (1, 64, 64, 2)).astype(np.float32) for _ in range(2))
    params = jax.jit(partial(init_model_params, objective))(jax.random.key(0))
    one, both = after.copy(), before.copy()
    one[:, :40, :36] = np.nan  # the first tile, and parts of the others
    both[:, :40, :36] = np.nan
    labels = np.zeros(1, np.int32)

    @jax.jit
    def made(first, second):
        return predict_outputs(
            params, {"before": first, "after": second, "labels": labels}, objective
        )

    hidden_once = made(before, one)
    for name, value in made(both, one).items():
        np.testing.assert_array_equal(value, hidden_once[name])
    evidence = np.asarray(hidden_once["evidence"])[0]
    logits = np.asarray(hidden_once["logits"])[0]
    assert np.isnan(evidence[0, 0])
    np.testing.assert_allclose(np.nanmean(evidence), logits[1] - logits[0], rtol=1e-4)
    assert np.abs(np.asarray(made(before, after)["logits"]) - logits).max() > 0


def test_nothing_measured_is_no_evidence():
    detector = FloodDetector(SIZE, 2, pooling="max")
    empty = np.zeros((1, 64, 64, 2), np.float32)
    features, _ = jax.jit(partial(detector.init_with_output, method="features"))(
        jax.random.key(0), empty, empty
    )
    np.testing.assert_array_equal(features, np.zeros_like(features))
