"""Segmenter: tiles are encoded alone, their maps are put together, dates are combined."""

from functools import partial

import jax
import numpy as np
import pytest

from sar_mixmae_jax.models.architecture import make_architecture
from sar_mixmae_jax.models.heads import spatial_tiles
from sar_mixmae_jax.models.segmenter import LinearPixelHead, Segmenter, merge_tiles
from tests.shrink import SMALL_ENCODER

SIDE = 32
ARCH = make_architecture(
    **{name.removeprefix("model."): value for name, value in SMALL_ENCODER.items()}
    | {"image_size": SIDE, "window_sizes": (4, 4)}
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Two dates of an image of one by two tiles, (2, 1, 32, 64, 2)."""
    return np.random.default_rng(0).normal(size=(2, 1, SIDE, 2 * SIDE, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def maps(images):
    """Feature maps of one date, and of two by both combinations, with the same parameters."""
    models = {
        name: Segmenter(ARCH, 3, head_init="xavier", decoder_width=8, combine=name)
        for name in ("concatenate", "difference")
    }

    @jax.jit
    def compute(images):
        params = models["concatenate"].init(jax.random.key(0), *images)
        features = partial(models["concatenate"].apply, params, method="feature_maps")
        both = {
            name: model.apply({"params": params["params"]}, list(images), method="feature_maps")
            for name, model in models.items()
        }
        tile = features([images[0, :, :, SIDE:]])
        logits = models["concatenate"].apply(params, *images)
        return features([images[0]]), features([images[1]]), tile, both, logits

    return jax.device_get(compute(images))


def test_a_tile_is_encoded_as_if_it_were_alone(maps):
    whole, _, tile, _, _ = maps
    assert [stage.shape for stage in whole] == [(1, 8, 16, 8), (1, 4, 8, 16)]
    for stage, alone in zip(whole, tile, strict=True):
        np.testing.assert_allclose(stage[:, :, stage.shape[2] // 2 :], alone, atol=1e-6)


def test_two_dates_are_concatenated_or_subtracted(maps):
    before, after, _, both, logits = maps
    for number in range(2):
        pair = [before[number], after[number]]
        np.testing.assert_allclose(
            both["concatenate"][number], np.concatenate(pair, axis=-1), atol=1e-6
        )
        np.testing.assert_allclose(both["difference"][number], pair[1] - pair[0], atol=1e-6)
    assert logits.shape == (1, SIDE, 2 * SIDE, 3)
    assert logits.dtype == np.float32


def test_maps_of_tiles_are_put_together():
    image = np.arange(2 * 4 * 6 * 1, dtype=np.float32).reshape(2, 4, 6, 1)
    tiles = np.asarray(spatial_tiles(image, 2)).reshape(-1, 2, 2, 1)
    np.testing.assert_array_equal(merge_tiles(tiles, 2, 3), image)


def test_a_linear_head_is_linear_in_the_normalised_features_of_all_stages():
    rng = np.random.default_rng(1)
    fine = rng.normal(size=(1, 4, 4, 8)).astype(np.float32)
    coarse = np.tile(rng.normal(size=(1, 1, 1, 16)).astype(np.float32), (1, 2, 2, 1))
    head = LinearPixelHead(3)
    params = head.init(jax.random.key(0), [fine, coarse])
    kernel = params["params"]["classify"]["kernel"]

    def normalised(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    features = [normalised(fine), np.broadcast_to(normalised(coarse)[:, :1, :1], (1, 4, 4, 16))]
    expected = np.concatenate(features, -1) @ kernel
    np.testing.assert_allclose(head.apply(params, [fine, coarse]), expected, atol=2e-5)
