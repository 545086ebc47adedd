"""What repeated runs say: mean and spread over seeds, differences by seed, and whether they hold.

An arm is a way of pretraining; it runs with several seeds. Runs of different arms with the same
seed saw the same data in the same order, so arms are compared seed by seed: what a seed does to
both cancels. The interval is Student's t for paired values. It covers chance in training
alone: it says nothing about other test images, which every arm shares.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from sar_mixmae_jax.errors import InputError

CONFIDENCE = 0.95
UNRESOLVED = "unresolved"


class Result(NamedTuple):
    """What one run of an arm measured in a task; a value of None, or not finite, is missing."""

    arm: str
    seed: int
    task: str
    metrics: Mapping[str, float | None]


class Baseline(NamedTuple):
    """What something without seeds measured in a task."""

    name: str
    task: str
    metrics: Mapping[str, float | None]


class Metric(NamedTuple):
    """A metric of a task.

    Attributes:
      task: as in the results.
      name: as in the results.
      title: for readers.
      form: of its values, as `format` takes it.
      higher_is_better: None where neither is, as for a bias.
      compared: whether differences between arms are shown.
    """

    task: str
    name: str
    title: str
    form: str = ".3f"
    higher_is_better: bool | None = True
    compared: bool = True


class Spread(NamedTuple):
    """Values over seeds.

    Attributes:
      mean: None without a value.
      std: sample standard deviation, None below two values.
      low: of the 95 % interval of the mean, None where there is none.
      high: the other end.
      n: number of seeds.
    """

    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    n: int


class Difference(NamedTuple):
    """Values minus those of the reference, by seed.

    Attributes:
      mean: None without a pair.
      low: of the 95 % interval of the mean, None where there is none.
      high: the other end.
      n: number of seeds that both have.
      verdict: "better", "worse", or "higher", "lower" where neither is better; "unresolved" where
        the interval includes 0 or there is none.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str


VERDICTS = {
    "above": "an arm is resolved above the best baseline: the test tells what needs a network",
    "tie": "none is, and not all are resolved below it: the test discriminates nothing",
    "below": "every arm is resolved below it: none of them is worth its network here",
    "open": "an arm is missing, or has too few seeds to say",
}
"""What a metric's baselines say of a test."""


class Discrimination(NamedTuple):
    """Whether a metric of a test tells networks from what needs no network.

    Attributes:
      metric: which.
      baseline: name of the best baseline.
      value: of that baseline.
      above: arms that are resolved above it.
      verdict: an entry of `VERDICTS`.
    """

    metric: Metric
    baseline: str
    value: float
    above: tuple[str, ...]
    verdict: str


def by_seed(results: Iterable[Result], metric: Metric) -> dict[str, dict[int, float]]:
    """The values of a metric by arm and seed, without those that are missing.

    Raises:
      InputError: an arm has two values for a seed.
    """
    found: dict[str, dict[int, float]] = {}
    for result in results:
        value = result.metrics.get(metric.name)
        if result.task != metric.task or value is None or not np.isfinite(value):
            continue
        seeds = found.setdefault(result.arm, {})
        if result.seed in seeds:
            raise InputError(
                f"{metric.task} {metric.name}: two results of {result.arm} with seed "
                f"{result.seed}, expected one: remove the one that does not belong"
            )
        seeds[result.seed] = float(value)
    return found


def baselines_of(baselines: Iterable[Baseline], metric: Metric) -> dict[str, float]:
    """The values of a metric by baseline, without those that are missing."""
    values = (
        (one.name, one.metrics.get(metric.name)) for one in baselines if one.task == metric.task
    )
    return {
        name: float(value) for name, value in values if value is not None and np.isfinite(value)
    }


def spread(values: Iterable[float]) -> Spread:
    """Mean, sample standard deviation and interval of the mean."""
    array = np.array([*values], np.float64)
    if not len(array):
        return Spread(None, None, None, None, 0)
    mean = float(array.mean())
    if len(array) == 1:
        return Spread(mean, None, None, None, 1)
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(array) - 1)) * std / len(array) ** 0.5
    return Spread(mean, std, mean - half, mean + half, len(array))


def difference(
    arm: Mapping[int, float], reference: Mapping[int, float], higher_is_better: bool | None
) -> Difference:
    """The paired difference of two arms.

    Differences that are equal for all seeds leave no interval: they show that the metric is too
    coarse for one, not that it is certain.

    Args:
      arm: values by seed.
      reference: values by seed; seeds that only one of them has are left out.
      higher_is_better: None where neither is.
    """
    shared = sorted(arm.keys() & reference.keys())
    pairs = np.array([(arm[seed], reference[seed]) for seed in shared]).reshape(-1, 2)
    mean, std, low, high, n = spread(pairs[:, 0] - pairs[:, 1])
    if low is None or high is None or std is None or std <= 1e-12 * np.abs(pairs).max():
        return Difference(mean, None, None, n, UNRESOLVED)
    if low <= 0 <= high:
        return Difference(mean, low, high, n, UNRESOLVED)
    if higher_is_better is None:
        return Difference(mean, low, high, n, "higher" if low > 0 else "lower")
    return Difference(mean, low, high, n, "better" if (low > 0) == higher_is_better else "worse")


def discrimination(
    metric: Metric, arms: Mapping[str, Mapping[int, float]], baselines: Mapping[str, float]
) -> Discrimination | None:
    """Whether any arm is resolved above the best baseline.

    By Student's interval of the arm's mean over its seeds, at a confidence that is corrected for
    the number of arms (Bonferroni): else one of five arms that equal the baseline would seem to
    beat it in one comparison of nine.

    Args:
      metric: which.
      arms: its values by arm and seed; none where an arm is missing.
      baselines: its values by baseline.

    Returns:
      None where there is no baseline or no arm, or where no direction is better.
    """
    if not any(arms.values()) or not baselines or metric.higher_is_better is None:
        return None
    sign = 1 if metric.higher_is_better else -1
    best = max(baselines, key=lambda name: sign * baselines[name])
    level = 1 - (1 - CONFIDENCE) / len(arms)
    leads = {
        name: _resolved([sign * (value - baselines[best]) for value in values.values()], level)
        for name, values in arms.items()
    }
    above = tuple(name for name, lead in leads.items() if lead == 1)
    if above:
        verdict = "above"
    elif None in leads.values():
        verdict = "open"
    else:
        verdict = "below" if set(leads.values()) == {-1} else "tie"
    return Discrimination(metric, best, baselines[best], above, verdict)


def _resolved(leads: Sequence[float], level: float) -> int | None:
    """1 or -1 where the mean is resolved from 0, else 0; None where there are too few values."""
    if len(leads) < 2:
        return None
    mean, error = float(np.mean(leads)), float(np.std(leads, ddof=1)) / len(leads) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(leads) - 1)) * error
    return 0 if abs(mean) <= max(half, 1e-12) else int(np.sign(mean))
