"""Windows, merging order and relative positions, against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.models.swin import (
    PatchMerging,
    WindowAttention,
    from_windows,
    relative_position_index,
    to_windows,
)


def test_windows_are_squares_and_there_is_a_way_back():
    grid = np.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    windows = np.asarray(to_windows(grid, 4))
    np.testing.assert_array_equal(windows[0, 1], grid[0, :4, 4:].reshape(16, 3))
    np.testing.assert_array_equal(windows[1, 2], grid[1, 4:, :4].reshape(16, 3))
    np.testing.assert_array_equal(from_windows(windows), grid)


def test_merging_concatenates_down_the_column_first():
    """The order of the reference: (0,0), (1,0), (0,1), (1,1)."""
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    params = {
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "reduction": {"kernel": jnp.eye(8)[:, :4]},
    }
    merged = PatchMerging(jnp.float32).apply({"params": params}, x)
    four = np.concatenate(
        [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1
    )
    mean, var = four.mean(-1, keepdims=True), four.var(-1, keepdims=True)
    expected = ((four - mean) / np.sqrt(var + 1e-5))[..., :4]
    np.testing.assert_allclose(merged, expected, atol=1e-5)


def test_relative_positions_count_offsets():
    index = relative_position_index(3)
    places = [(row, column) for row in range(3) for column in range(3)]
    for query, (row, column) in enumerate(places):
        for key, (other_row, other_column) in enumerate(places):
            offset = (row - other_row + 2) * 5 + (column - other_column + 2)
            assert index[query, key] == offset


def test_attention_stays_within_equal_mask_values():
    layer = WindowAttention(num_heads=2, window=2, dtype=jnp.float32)
    x = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    mask = jnp.array([[0.0, 1.0, 0.0, 1.0]])
    params = layer.init(jax.random.key(0), x, mask)
    changed = x.copy()
    changed[1] += 3.0
    moved = np.abs(np.asarray(layer.apply(params, changed, mask) - layer.apply(params, x, mask)))
    assert moved[[0, 2]].max() == 0
    assert moved[[1, 3]].min(-1).max() > 0
