"""Spreads, paired differences and discrimination of a test, against SciPy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from sar_mixmae_jax.experiments.seed_statistics import (
    Metric,
    Result,
    difference,
    discrimination,
    spread,
    values_by_seed,
)
from sar_mixmae_jax.utils.errors import InputError

AP = Metric("land_cover", "ap", "AP macro")
RMSE = AP._replace(name="rmse", higher_is_better=False)


def test_spread_is_the_sample_deviation():
    found = spread([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3.0
    assert found.std == pytest.approx(math.sqrt(14 / 3))
    low, high = stats.t.interval(0.95, 3, loc=3.0, scale=math.sqrt(14 / 3) / 2)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert spread([2.5]) == (2.5, None, None, None, 1)
    assert spread([]) == (None, None, None, None, 0)


def test_worked_example_of_a_paired_difference():
    """Differences 1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5), t(4) = 2.776."""
    reference = {seed: 10.0 * seed for seed in range(5)}
    arm = {seed: reference[seed] + seed + 1 for seed in range(5)}
    found = difference(arm, reference, True)
    half = 2.7764451 * math.sqrt(2.5 / 5)
    assert found.mean == 3.0
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert (found.n, found.verdict) == (5, "better")
    assert difference(arm, reference, False).verdict == "worse"
    assert difference(reference, arm, True).verdict == "worse"
    assert difference(arm, reference, None).verdict == "higher"
    assert difference(reference, arm, None).verdict == "lower"


def test_resolved_is_what_a_paired_t_test_rejects():
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(100):
        n = rng.integers(2, 7)
        arm, reference = rng.normal(0, 1, (2, n)) + np.array([[1.5], [0.0]])
        found = difference(dict(enumerate(arm)), dict(enumerate(reference)), True)
        rejected = stats.ttest_rel(arm, reference).pvalue < 0.05
        assert (found.verdict != "unresolved") == rejected
        verdicts.add(found.verdict)
    assert verdicts == {"better", "unresolved"}


def test_only_seeds_of_both_are_paired():
    found = difference({0: 1.0, 1: 2.0, 7: 100.0}, {1: 1.5, 0: 0.75, 3: -100.0}, True)
    assert found.n == 2
    assert found.mean == pytest.approx(0.375)
    assert found.verdict == "unresolved"


@pytest.mark.parametrize(
    ("arm", "reference", "mean", "n"),
    [
        ({0: 0.7}, {0: 0.5}, pytest.approx(0.2), 1),
        ({0: 0.7}, {1: 0.5}, None, 0),
        ({}, {}, None, 0),
        ({0: 0.3, 1: 0.4, 2: 0.8}, {0: 0.2, 1: 0.3, 2: 0.7}, pytest.approx(0.1), 3),
        ({0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}, 0.0, 2),
    ],
    ids=["one pair", "no pair", "nothing", "equal differences", "zeros"],
)
def test_without_an_interval_nothing_is_resolved(arm, reference, mean, n):
    found = difference(arm, reference, True)
    assert found == (mean, None, None, n, "unresolved")


def test_values_by_seed_leave_out_what_is_missing():
    results = [
        Result("none", 0, "land_cover", {"ap": 0.5}),
        Result("none", 1, "land_cover", {"ap": None}),
        Result("none", 2, "land_cover", {"ap": float("nan")}),
        Result("none", 3, "land_cover", {}),
        Result("none", 0, "flood", {"ap": 0.9}),
        Result("random", 4, "land_cover", {"ap": 0.25}),
    ]
    assert values_by_seed(results, AP) == {"none": {0: 0.5}, "random": {4: 0.25}}
    with pytest.raises(InputError, match="two results of none with seed 0"):
        values_by_seed([*results, results[0]], AP)


def test_baselines_with_seeds_are_paired_with_arms():
    """A lead of 0.01 with every seed is resolved, however much the seeds differ."""
    baseline = {seed: value - 0.01 * (1 + 0.1 * seed) for seed, value in ARMS["none"].items()}
    arms = {"none": {**ARMS["none"], 9: 0.1}}  # a seed that the baseline has not
    found = discrimination(AP, arms, {"fitted": baseline})
    assert (found.verdict, found.above) == ("above", ("none",))
    assert found.value == pytest.approx(np.mean([*baseline.values()]))
    constant = {"fitted": {None: found.value}}
    assert discrimination(AP, {"none": ARMS["none"]}, constant).verdict == "tie"


ARMS = {
    "none": {0: 0.70, 1: 0.74, 2: 0.72, 3: 0.71},
    "better": {0: 0.85, 1: 0.86, 2: 0.84, 3: 0.85},
}


@pytest.mark.parametrize("baseline", [0.60, 0.70, 0.72, 0.83, 0.8445, 0.85, 0.90])
def test_arms_are_judged_by_a_corrected_test_against_the_best_baseline(baseline):
    """The same by scipy's t-test: half of 0.05 each for two arms."""
    found = discrimination(AP, ARMS, {"weak": {None: 0.1}, "strong": {None: baseline}})
    assert (found.baseline, found.value) == ("strong", baseline)
    tests = {name: stats.ttest_1samp([*arm.values()], baseline) for name, arm in ARMS.items()}
    sure = {name: test for name, test in tests.items() if test.pvalue < 0.05 / 2}
    above = tuple(name for name, test in sure.items() if test.statistic > 0)
    assert found.above == above
    below = [name for name, test in sure.items() if test.statistic < 0]
    worst = "below" if len(below) == 2 else "mixed" if below else "tie"
    assert found.verdict == ("above" if above else worst)


def test_all_verdicts_occur():
    verdicts = {
        discrimination(AP, ARMS, {"a": {None: value}}).verdict for value in (0.6, 0.85, 0.95)
    }
    assert verdicts == {"above", "mixed", "below"}


def test_lower_errors_are_better():
    assert discrimination(RMSE, ARMS, {"mean": {None: 0.80}, "worse": {None: 3.0}}).above == (
        "none",
    )
    assert discrimination(RMSE, ARMS, {"mean": {None: 0.60}}).verdict == "below"


def test_missing_arms_and_single_seeds_leave_it_open():
    assert discrimination(AP, {"none": {0: 0.8}}, {"a": {None: 0.7}}).verdict == "open"
    assert discrimination(AP, {"missing": {}, **ARMS}, {"a": {None: 0.95}}).verdict == "open"
    assert discrimination(AP, {"missing": {}, **ARMS}, {"a": {None: 0.6}}).verdict == "above"


def test_values_that_are_all_equal_are_resolved_but_not_from_themselves():
    same = {"none": {0: 0.5, 1: 0.5}}
    assert discrimination(AP, same, {"a": {None: 0.5}}).verdict == "tie"


def test_nothing_is_judged_without_a_baseline_a_run_or_a_direction():
    assert discrimination(AP, ARMS, {}) is None
    assert discrimination(AP, {"none": {}}, {"a": {None: 0.7}}) is None
    assert discrimination(AP._replace(higher_is_better=None), ARMS, {"a": {None: 0.7}}) is None
