"""Helpers of figures: averages of backscatter."""

import numpy as np
from matplotlib.figure import Figure

from sar_mixmae_jax.utils.plotting import block_average, legend_columns, set_panel_title


def test_power_is_averaged_where_it_was_measured():
    db = np.array([[0.0, 10.0, np.nan], [np.nan, np.nan, np.nan]])
    expected = [[10 * np.log10(5.5), np.nan]]
    np.testing.assert_allclose(block_average(db, 2), expected)
    assert block_average(db, 1) is db


def test_a_title_of_a_panel_is_broken_at_its_parts_and_where_a_line_is_full():
    axis = Figure(figsize=(3.0, 2.0)).subplots()
    set_panel_title(axis, "land cover, 10% of the labels, fine-tuned: AP macro")
    assert axis.get_title().split("\n") == [
        "land cover, 10% of the labels,",
        "fine-tuned",
        "AP macro",
    ]


def test_long_entries_of_a_legend_have_fewer_columns():
    assert legend_columns(["short"], 9.5) == 3
    assert legend_columns(["short", "x" * 50], 9.5) == 2
    assert legend_columns(["x" * 500], 9.5) == 1
