"""Helpers of figures: averages of backscatter."""

import numpy as np

from sar_mixmae_jax.utils.plotting import block_average, legend_columns


def test_power_is_averaged_where_it_was_measured():
    db = np.array([[0.0, 10.0, np.nan], [np.nan, np.nan, np.nan]])
    expected = [[10 * np.log10(5.5), np.nan]]
    np.testing.assert_allclose(block_average(db, 2), expected)
    assert block_average(db, 1) is db


def test_long_entries_of_a_legend_have_fewer_columns():
    assert legend_columns(["short"], 9.5) == 3
    assert legend_columns(["short", "x" * 50], 9.5) == 2
    assert legend_columns(["x" * 500], 9.5) == 1
