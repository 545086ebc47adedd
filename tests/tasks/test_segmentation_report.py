"""Pictures of a segmentation: padding, and which records are shown."""

import numpy as np

from sar_mixmae_jax.tasks.segmentation_report import (
    ChipPicture,
    choose_records,
    without_padding,
)
from sar_mixmae_jax.utils.plotting import NO_CLASS


def test_padding_of_the_maps_is_not_shown():
    backscatter = np.zeros((4, 4, 2))
    truth = np.pad(np.ones((4, 4), np.int8), 2, constant_values=-1)
    predicted = np.pad(np.eye(4, dtype=np.uint8), 2, constant_values=NO_CLASS)
    shown = without_padding(ChipPicture(backscatter, truth, predicted))
    np.testing.assert_array_equal(shown.predicted, np.eye(4))
    assert shown.truth.shape == (4, 4)
    predicted[0, 0] = 1  # resized, not padded
    resized = ChipPicture(backscatter, truth, predicted)
    assert without_padding(resized) is resized


def test_best_median_and_worst_records_are_shown_once():
    rates = {"a": 0.1, "b": 0.9, "c": None, "d": 0.5, "e": 0.0, "f": 0.7, "g": 0.6, "h": 0.3}
    metrics = {"by_record": {name: {"iou": rate} for name, rate in rates.items()}}
    names = {"best": "bf", "median": "gd", "worst": "ae"}
    expected = [(kind, name) for kind, those in names.items() for name in those]
    assert choose_records(metrics) == expected
    few = {"by_record": {name: {"iou": rates[name]} for name in "abd"}}
    assert choose_records(few) == [("best", "b"), ("median", "d"), ("worst", "a")]
    one = {"by_record": {"a": {"iou": 0.0}, "c": {"iou": None}}}
    assert choose_records(one) == [("best", "a")]
