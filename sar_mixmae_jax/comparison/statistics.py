"""What repeated runs say: mean and spread over seeds, differences by seed, and whether they hold.

An arm is a way of pretraining; it runs with several seeds. Runs of different arms with the same
seed saw the same data in the same order, so arms are compared seed by seed: what a seed does to
both cancels. The interval is Student's t for paired values. It covers chance in training
alone: it says nothing about other test images, which every arm shares.
"""

from collections.abc import Iterable, Mapping
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


class Discrimination(NamedTuple):
    """Whether a metric of a test tells networks from what needs no network.

    Attributes:
      metric: which.
      baseline: name of the best baseline.
      value: of that baseline.
      above: arms whose mean is better than it by more than their spread.
      verdict: True where there is such an arm; False where there is none, so the test discriminates
        nothing; None where arms of one seed leave it open.
    """

    metric: Metric
    baseline: str
    value: float
    above: tuple[str, ...]
    verdict: bool | None


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
    """Whether any arm is better than the best baseline by more than the arm's own spread.

    A test that the best baseline passes as well as the arms do measures what needs no network,
    and a difference between arms on it is no reason to prefer one. The spread is the standard
    deviation over seeds: what one run more or less may differ by.

    Args:
      metric: which.
      arms: its values by arm and seed.
      baselines: its values by baseline.

    Returns:
      None where there is no baseline or no arm, or where no direction is better.
    """
    spreads = {name: spread(values.values()) for name, values in arms.items() if values}
    if not spreads or not baselines or metric.higher_is_better is None:
        return None
    sign = 1 if metric.higher_is_better else -1
    best = max(baselines, key=lambda name: sign * baselines[name])
    above, is_open = [], False
    for name, (mean, std, _, _, _) in spreads.items():
        assert mean is not None
        lead = sign * (mean - baselines[best])
        if std is None:
            is_open |= lead > 0
        elif lead > std:
            above.append(name)
    verdict = True if above else (None if is_open else False)
    return Discrimination(metric, best, baselines[best], tuple(above), verdict)
