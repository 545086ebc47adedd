"""Intervals of macro averages: on what they rest, and classes that a split does not hold."""

import pytest

from sar_mixmae_jax.evaluation.predictions import Predictions
from tests.evaluation.test_bootstrap import intervals, simulated


def unlabelled(held=()) -> Predictions:
    """400 records in 12 groups; only the classes of `held` have labels."""
    made = simulated()
    made.labels[:, [one for one in range(3) if one not in held]] = 0
    return made


def test_a_split_without_any_label_leaves_averages_undefined():
    found = intervals(unlabelled(), replicates=50)["values"]
    for one in (*found["macro"].values(), found["published_score"]):
        assert one["low"] is one["high"] is None
        assert one["why"] == "0 groups with the rarest class: an interval needs 5"
    assert found["micro"]["accuracy"]["low"] is not None


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_split_with_one_class(everywhere):
    made = unlabelled(held=(1,))
    if everywhere:  # F1, precision and AP cannot be asked at all; recall can
        made.labels[:, 1] = 1
    found = intervals(made, replicates=50)["values"]
    alone = found["per_class"]["b"]
    assert found["macro"]["recall"]["low"] == alone["recall"]["low"] is not None
    assert (found["macro"]["f1"]["low"] is None) == everywhere
    assert (found["published_score"]["low"] is None) == everywhere
    assert found["macro"]["average_precision"]["low"] == alone["average_precision"]["low"]


def test_averages_rest_on_their_rarest_class():
    made = simulated(groups=20, rows=800)
    made.labels[made.columns["group"] >= 6, 2] = 0
    found = intervals(made, replicates=100)["values"]
    assert found["macro"]["average_precision"]["groups"] == 6
    assert found["published_score"]["groups"] == 6
    assert found["micro"]["f1"]["groups"] == 20
    made.labels[made.columns["group"] >= 4, 2] = 0
    found = intervals(made, replicates=100)["values"]
    for one in (found["macro"]["f1"], found["published_score"]):
        assert one["low"] is None
        assert one["why"] == "4 groups with the rarest class: an interval needs 5"
        assert one["reason"] == "rests on fewer than 5 groups"
