"""Cells: layout, the way back, moments with nodata."""

import jax
import numpy as np

from sar_mixmae_jax.models.masking import patchify, unit_moments, unpatchify


def test_layout_is_row_column_band():
    images = np.arange(4 * 4 * 2).reshape(1, 4, 4, 2)
    cells = np.asarray(patchify(images, 2))
    np.testing.assert_array_equal(cells[0, 1], images[0, :2, 2:].reshape(-1))
    np.testing.assert_array_equal(unpatchify(cells, 2, 2), images)


def test_moments_are_of_valid_values_only():
    rng = np.random.default_rng(0)
    cells = rng.normal(3, 2, (2, 3, 32)).astype(np.float32)
    valid = rng.random(cells.shape) < 0.6
    mean, std = jax.jit(unit_moments)(np.where(valid, cells, 1e6), valid)
    for image in range(2):
        for cell in range(3):
            seen = cells[image, cell][valid[image, cell]]
            np.testing.assert_allclose(mean[image, cell, 0], seen.mean(), rtol=1e-5)
            expected = np.sqrt(seen.var(ddof=1) + 1e-6)
            np.testing.assert_allclose(std[image, cell, 0], expected, rtol=1e-5)


def test_moments_of_an_empty_cell_are_finite():
    mean, std = unit_moments(np.full((1, 1, 8), np.nan), np.zeros((1, 1, 8), bool))
    assert float(mean[0, 0, 0]) == 0
    assert np.isfinite(std).all()
