"""The mask: how many ones, their polarity, and that it follows the key."""

import jax
import numpy as np

from sar_mixmae_jax.models.masking import mix_tokens, random_mask, upsample_mask


def test_half_of_the_cells_come_from_the_partner():
    make = jax.jit(random_mask, static_argnums=(1, 2))
    masks = np.stack([make(jax.random.key(seed), 4, 0.5) for seed in range(200)])
    assert (masks.sum((1, 2)) == 8).all()
    assert len({mask.tobytes() for mask in masks}) > 190
    np.testing.assert_allclose(masks.mean(0), 0.5, atol=0.15)  # every cell is as likely


def test_other_ratios():
    assert random_mask(jax.random.key(0), 4, 0.25).sum() == 4


def test_one_means_partner_zero_means_own():
    images = np.stack([np.zeros((8, 8, 2)), np.ones((8, 8, 2)), np.full((8, 8, 2), 2.0)])
    mask = np.array([[0.0, 1.0], [0.0, 0.0]])
    mixed = np.asarray(mix_tokens(images, mask))
    assert (mixed[0, :4, 4:] == 2).all()  # the partner of the first is the last
    assert (mixed[0, 4:] == 0).all()
    assert (mixed[1] == 1).all()  # the middle one is its own partner


def test_enlarge_repeats_cells():
    np.testing.assert_array_equal(
        upsample_mask(np.array([[0.0, 1.0]]).repeat(2, 0), 4), [[0, 0, 1, 1]] * 4
    )
