"""The bootstrap: fast metrics equal those of scikit-learn; coverage and reasons of intervals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sar_mixmae_jax.evaluation.bootstrap import (
    Sampled,
    interval,
    make_binary_problem,
    replicate_average_precision,
    replicate_rates,
    replicates_for,
    tail_probability,
)
from sar_mixmae_jax.evaluation.metrics import RATES, binary_metrics, multilabel_metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks import flood_metrics
from sar_mixmae_jax.tasks.registry import get_task


def intervals(predictions: Predictions, **settings) -> dict:
    return get_task(predictions.task).intervals(predictions, **settings)


def simulated(rows=400, groups=12, classes=3, seed=0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.random((rows, classes)) < 0.3
    group = rng.integers(groups, size=rows)
    logits = rng.normal(size=(rows, classes)) + 1.5 * labels + rng.normal(size=groups)[group, None]
    return Predictions(
        "classification", tuple("abcdefg"[:classes]), np.arange(rows).astype(str), logits, labels,
        {"group": group}, {},
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_sklearn(weighted, ties):
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows, groups = 120, 9
        scores = rng.integers(0, 12, rows) / 12 if ties else rng.random(rows)
        labels, group = rng.integers(0, 2, rows), rng.integers(groups, size=rows)
        weights = rng.uniform(0.1, 2, rows) if weighted else None
        problem = make_binary_problem(scores, labels, group, groups, weights)
        drawn = rng.multinomial(groups, [1 / groups] * groups).astype(np.int32)
        assert (drawn == 0).any() or (drawn == 1).all()
        sample_weight = drawn[group] * (1 if weights is None else weights)
        expected = average_precision_score(labels, scores, sample_weight=sample_weight)
        assert replicate_average_precision(problem, drawn) == pytest.approx(expected, rel=1e-12)


def test_all_rates_of_a_resample_are_those_of_the_metrics():
    rng = np.random.default_rng(2)
    seen_undefined = 0
    for _ in range(60):
        rows, groups = 6, 5
        scores, labels = rng.random(rows), rng.integers(0, 2, rows)
        group, weights = rng.integers(groups, size=rows), rng.uniform(0.5, 1, rows)
        problem = make_binary_problem(scores, labels, group, groups, weights)
        drawn = rng.multinomial(groups, [1 / groups] * groups).astype(np.int32)
        result = replicate_rates(
            (drawn @ problem.counts)[None], np.array([replicate_average_precision(problem, drawn)])
        )
        expected = binary_metrics(scores, labels, weights * drawn[group])
        for name in RATES:
            value = result[name][0]
            seen_undefined += expected[name] is None
            assert (None if np.isnan(value) else value) == pytest.approx(expected[name]), name
    assert seen_undefined > 30


def test_nothing_to_find():
    problem = make_binary_problem(np.array([0.2, 0.7]), np.array([0, 0]), np.array([0, 1]), 2)
    assert np.isnan(replicate_average_precision(problem, np.array([1, 1], np.int32)))
    problem = make_binary_problem(np.zeros(0), np.zeros(0), np.zeros(0, int), 2)
    assert np.isnan(replicate_average_precision(problem, np.array([1, 1], np.int32)))


def test_intervals_by_resampling_the_rows_themselves():
    simulation = simulated()
    result = intervals(simulation, replicates=300, seed=5)
    rng, group = np.random.default_rng(5), simulation.columns["group"]
    micro, macro = [], []
    for _ in range(300):
        rows = np.concatenate(
            [np.flatnonzero(group == one) for one in rng.integers(12, size=12)]
        )  # copied as often as drawn
        scores, labels = simulation.probabilities[rows], simulation.labels[rows]
        micro.append(average_precision_score(labels, scores, average="micro"))
        macro.append(average_precision_score(labels, scores, average="macro"))
    tail = tail_probability(12)
    for values, one in ((micro, "micro"), (macro, "macro")):
        low, high = np.quantile(values, (tail, 1 - tail))
        range_ = result["values"][one]["average_precision"]
        assert (range_["low"], range_["high"]) == pytest.approx((low, high), rel=1e-9)
        assert range_["undefined"] == 0
    assert result["groups"] == 12
    assert intervals(simulation, replicates=300, seed=5) == result
    assert intervals(simulation, replicates=300, seed=6) != result


def test_groups_widen_intervals():
    """Identical rows of one group count as one row."""
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, (60, 1)), rng.normal(size=(60, 1))

    def width(copies: int, group: np.ndarray) -> float:
        rows = np.repeat(np.arange(60), copies)
        simulation = Predictions(
            "classification", ("a",), np.arange(len(rows)).astype(str), logits[rows], labels[rows],
            {"group": group}, {},
        )  # fmt: skip
        one = intervals(simulation, replicates=400)["values"]["per_class"]["a"]["recall"]
        return one["high"] - one["low"]

    alone = width(1, np.arange(60))
    assert width(5, np.repeat(np.arange(60), 5)) == pytest.approx(alone, rel=1e-9)
    assert width(5, np.arange(300)) < 0.6 * alone


def test_tails():
    assert tail_probability(100_000) == pytest.approx(0.025, abs=1e-5)
    assert tail_probability(6) < tail_probability(20) < tail_probability(100) < 0.025
    # t(.975, 5) = 2.5706, times sqrt(6 / 5): 2.8159; the normal distribution beyond it: .00243
    assert tail_probability(6) == pytest.approx(0.00243, abs=2e-5)


def test_reasons_for_no_interval():
    few = intervals(simulated(groups=3), replicates=50)
    one = few["values"]["macro"]["f1"]
    assert one["low"] is one["high"] is None
    assert one["why"] == "3 groups with the rarest class: an interval needs 5"
    assert "3 groups with positives" in few["values"]["per_class"]["a"]["recall"]["why"]
    alone = simulated(groups=1)
    assert intervals(alone)["values"]["micro"]["accuracy"]["why"].startswith("1 group:")
    values = np.array([0.5, np.nan, np.nan, 0.6, np.nan])
    assert interval(Sampled(values, 9, "rows"))["why"] == "undefined in 3 of 5 replicates"
    assert interval(Sampled(np.ones(9), 9, "rows"))["why"].startswith("the same in all")
    left_out = interval(Sampled(np.array([0.5, np.nan, 0.7]), 9, "rows"))
    assert left_out["undefined"] == 1
    assert 0.5 <= left_out["low"] < left_out["high"] <= 0.7


def test_a_rare_class_leaves_replicates_of_the_macro_mean_out():
    simulation = simulated(groups=8)
    simulation.labels[:, 2] = 0
    simulation.labels[simulation.columns["group"] == 4, 2] = 1  # in one group of eight
    result = intervals(simulation, replicates=400)["values"]
    missing = result["macro"]["f1"]["undefined"] / 400
    assert missing == pytest.approx((7 / 8) ** 8, abs=0.08)
    assert result["per_class"]["c"]["f1"]["why"].startswith("1 group with positives")
    simulation.labels[:, 2] = 0  # a class that is not there at all is no part of the mean
    assert intervals(simulation, replicates=50)["values"]["macro"]["f1"]["undefined"] == 0


def test_a_class_that_is_never_said_counts_as_precision_0():
    simulation = simulated()
    simulation.logits[:, 1] = -9
    result = intervals(simulation, replicates=300)["values"]
    assert result["per_class"]["b"]["precision"]["undefined"] == 300
    assert result["macro"]["precision"]["undefined"] == 0
    point = multilabel_metrics(simulation.probabilities, simulation.labels, simulation.classes)[
        "macro"
    ]["precision"]
    assert result["macro"]["precision"]["low"] < point < result["macro"]["precision"]["high"] < 0.67


def test_floods_have_an_interval_beside_every_rate():
    rng = np.random.default_rng(0)
    rows = [(s, b, a) for s in range(9) for b in range(3) for a in range(b + 1, 5)]
    sequence, before, after = (np.array(column) for column in zip(*rows, strict=True))
    wet = (sequence % 3 > 0) & (after >= 3)
    simulation = Predictions(
        "flood", ("dry", "flood"), np.arange(len(rows)).astype(str),
        rng.normal(size=(len(rows), 2)) + np.stack([~wet, wet], 1), wet,
        {
            "group": sequence, "sequence": sequence, "before": 10 * sequence + before,
            "after": 10 * sequence + after, "onset": wet & (after == 3),
            "flooded_fraction": np.where(wet, 0.1, np.nan),
            "hard_case": np.where(sequence == 1, "snow", ""),
        }, {},
    )  # fmt: skip
    metrics = flood_metrics.compute_flood_metrics(
        simulation.probabilities, simulation.labels, simulation.columns
    )["evaluations"]
    result = intervals(simulation, replicates=200)["values"]
    compared = 0
    for path in (view.path for view in flood_metrics.views(simulation.labels, simulation.columns)):
        value, ranges = metrics, result
        for name in path:
            value, ranges = value[name], ranges[name]
        for name in RATES:
            if ranges[name]["low"] is not None and value[name] is not None:
                assert ranges[name]["low"] <= value[name] <= ranges[name]["high"], (path, name)
                compared += 1
    assert compared > 40
    assert result["all"]["by_hard_case"]["snow"]["recall"]["why"].startswith("1 group")


def test_fewer_replicates_where_there_is_much():
    assert replicates_for(120_000 * 19 * 2) == 1000
    assert replicates_for(10_000_000) == 500
    assert replicates_for(10**12) == 200
    assert replicates_for(1) == 1000
