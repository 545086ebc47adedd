"""Mask units: layout and moments with nodata; the mask: number of ones, polarity, randomness."""

import jax
import numpy as np

from sar_mixmae_jax.models.masking import (
    mix_tokens,
    patchify,
    random_mask,
    unit_moments,
    unpatchify,
    upsample_mask,
)


def test_layout_is_row_column_band():
    images = np.arange(4 * 4 * 2).reshape(1, 4, 4, 2)
    units = np.asarray(patchify(images, 2))
    np.testing.assert_array_equal(units[0, 1], images[0, :2, 2:].reshape(-1))
    np.testing.assert_array_equal(unpatchify(units, 2, 2), images)


def test_moments_are_of_valid_values_only():
    rng = np.random.default_rng(0)
    units = rng.normal(3, 2, (2, 3, 32)).astype(np.float32)
    valid = rng.random(units.shape) < 0.6
    mean, std = jax.jit(unit_moments)(np.where(valid, units, 1e6), valid)
    for image in range(2):
        for unit in range(3):
            measured = units[image, unit][valid[image, unit]]
            np.testing.assert_allclose(mean[image, unit, 0], measured.mean(), rtol=1e-5)
            expected = np.sqrt(measured.var(ddof=1) + 1e-6)
            np.testing.assert_allclose(std[image, unit, 0], expected, rtol=1e-5)


def test_moments_of_an_empty_unit_are_finite():
    mean, std = unit_moments(np.full((1, 1, 8), np.nan), np.zeros((1, 1, 8), bool))
    assert float(mean[0, 0, 0]) == 0
    assert np.isfinite(std).all()


def test_half_of_the_units_come_from_the_partner():
    make = jax.jit(random_mask, static_argnums=(1, 2))
    masks = np.stack([make(jax.random.key(seed), 4, 0.5) for seed in range(200)])
    assert (masks.sum((1, 2)) == 8).all()
    assert len({mask.tobytes() for mask in masks}) > 190
    np.testing.assert_allclose(masks.mean(0), 0.5, atol=0.15)  # every unit is as likely


def test_other_ratios():
    assert random_mask(jax.random.key(0), 4, 0.25).sum() == 4


def test_one_means_partner_zero_means_own():
    images = np.stack([np.zeros((8, 8, 2)), np.ones((8, 8, 2)), np.full((8, 8, 2), 2.0)])
    mask = np.array([[0.0, 1.0], [0.0, 0.0]])
    mixed = np.asarray(mix_tokens(images, mask))
    assert (mixed[0, :4, 4:] == 2).all()  # the partner of the first is the last
    assert (mixed[0, 4:] == 0).all()
    assert (mixed[1] == 1).all()  # the middle one is its own partner


def test_upsampling_repeats_units():
    np.testing.assert_array_equal(
        upsample_mask(np.array([[0.0, 1.0]]).repeat(2, 0), 4), [[0, 0, 1, 1]] * 4
    )
