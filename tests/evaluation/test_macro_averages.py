"""Intervals of macro averages: their number of groups, and classes absent from a split."""

import pytest

from sar_mixmae_jax.evaluation.predictions import Predictions
from tests.evaluation.test_bootstrap import intervals, simulated


def unlabelled(held=()) -> Predictions:
    """400 records in 12 groups; only the classes of `held` have labels."""
    simulation = simulated()
    simulation.labels[:, [interval for interval in range(3) if interval not in held]] = 0
    return simulation


def test_a_split_without_any_label_leaves_averages_undefined():
    values = intervals(unlabelled(), replicates=50)["values"]
    for interval in (*values["macro"].values(), values["published_score"]):
        assert interval["low"] is interval["high"] is None
        assert interval["why"] == "0 groups with the rarest class: an interval needs 5"
    assert values["micro"]["accuracy"]["low"] is not None


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_split_with_one_class(everywhere):
    simulation = unlabelled(held=(1,))
    if everywhere:  # F1, precision and AP cannot be asked at all; recall can
        simulation.labels[:, 1] = 1
    values = intervals(simulation, replicates=50)["values"]
    alone = values["per_class"]["b"]
    assert values["macro"]["recall"]["low"] == alone["recall"]["low"] is not None
    assert (values["macro"]["f1"]["low"] is None) == everywhere
    assert (values["published_score"]["low"] is None) == everywhere
    assert values["macro"]["average_precision"]["low"] == alone["average_precision"]["low"]


def test_averages_rest_on_their_rarest_class():
    simulation = simulated(groups=20, rows=800)
    simulation.labels[simulation.columns["group"] >= 6, 2] = 0
    values = intervals(simulation, replicates=100)["values"]
    assert values["macro"]["average_precision"]["groups"] == 6
    assert values["published_score"]["groups"] == 6
    assert values["micro"]["f1"]["groups"] == 20
    simulation.labels[simulation.columns["group"] >= 4, 2] = 0
    values = intervals(simulation, replicates=100)["values"]
    for interval in (values["macro"]["f1"], values["published_score"]):
        assert interval["low"] is None
        assert interval["why"] == "4 groups with the rarest class: an interval needs 5"
        assert interval["reason"] == "rests on fewer than 5 groups"
