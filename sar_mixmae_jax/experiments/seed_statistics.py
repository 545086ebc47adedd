"""Statistics over repeated runs: mean and spread over seeds, paired differences, baselines.

An arm is a pretraining method that runs with several seeds. Runs of different arms with equal seeds
see the same data in the same order, so arms are compared seed by seed, which cancels the effect of
the seed. Baselines that are fitted to labels have seeds too, which select the labels. Intervals are
Student's t for paired values. They cover chance in training, not the choice of test images, which
all arms share.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from sar_mixmae_jax.utils.errors import InputError

CONFIDENCE = 0.95
UNRESOLVED = "unresolved"

BySeed = Mapping[int | None, float]
"""Values of a metric by seed; the seed None holds a value for all seeds."""


class Result(NamedTuple):
    """Metrics of one run in a task.

    Attributes:
      arm: name of the arm or baseline.
      seed: random seed of the run; None: the same for all seeds.
      task: name of the task.
      metrics: by name; None or not finite: missing.
    """

    arm: str
    seed: int | None
    task: str
    metrics: Mapping[str, float | None]


class Metric(NamedTuple):
    """A metric of a task.

    Attributes:
      task: as in the results.
      name: as in the results.
      title: for readers.
      form: format specification of its values.
      higher_is_better: None if no direction is better, as for a bias.
      compared: True if differences between arms are shown.
      bounded: True if its values are between 0 and 1.
    """

    task: str
    name: str
    title: str
    form: str = ".3f"
    higher_is_better: bool | None = True
    compared: bool = True
    bounded: bool = False


class Spread(NamedTuple):
    """Values over seeds.

    Attributes:
      mean: None without values.
      std: sample standard deviation; None for fewer than two values.
      low: lower end of the 95 % interval of the mean; None for fewer than two values.
      high: its upper end.
      n: number of values.
    """

    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    n: int


class Difference(NamedTuple):
    """Paired differences to the reference.

    Attributes:
      mean: None without pairs.
      low: lower end of the 95 % interval of the mean; None if it cannot be computed.
      high: its upper end.
      n: number of pairs.
      verdict: "better" or "worse"; "higher" or "lower" if no direction is better; "unresolved" if
        the interval includes 0 or cannot be computed.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str


VERDICTS = {
    "above": "an arm is resolved above the best baseline",
    "tie": "no arm is resolved from the best baseline with these seeds",
    "mixed": "no arm is resolved above the best baseline, and some are below",
    "below": "every arm is resolved below the best baseline",
    "open": "an arm is missing, or has too few seeds",
}
"""Results of the comparison of all arms with the best baseline."""


class Discrimination(NamedTuple):
    """Comparison of all arms with the best baseline in a metric.

    Attributes:
      metric: metric of the test.
      baseline: name of the best baseline.
      value: its mean over seeds.
      above: arms that are resolved above it.
      verdict: an entry of `VERDICTS`.
    """

    metric: Metric
    baseline: str
    value: float
    above: tuple[str, ...]
    verdict: str


def values_by_seed(results: Iterable[Result], metric: Metric) -> dict[str, dict[int | None, float]]:
    """Return the values of a metric by arm (or baseline) and seed, without missing ones.

    Raises:
      InputError: an arm has two values for a seed.
    """
    values: dict[str, dict[int | None, float]] = {}
    for result in results:
        value = result.metrics.get(metric.name)
        if result.task != metric.task or value is None or not np.isfinite(value):
            continue
        of_arm = values.setdefault(result.arm, {})
        if result.seed in of_arm:
            raise InputError(
                f"{metric.task} {metric.name}: two results of {result.arm} with seed "
                f"{result.seed}, expected one: remove one of them"
            )
        of_arm[result.seed] = float(value)
    return values


def spread(values: Iterable[float], confidence: float = CONFIDENCE) -> Spread:
    """Return mean, sample standard deviation and interval of the mean."""
    array = np.array([*values], np.float64)
    if not len(array):
        return Spread(None, None, None, None, 0)
    mean = float(array.mean())
    if len(array) == 1:
        return Spread(mean, None, None, None, 1)
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, len(array) - 1)) * std / len(array) ** 0.5
    return Spread(mean, std, mean - half, mean + half, len(array))


def pairs(arm: BySeed, reference: BySeed) -> np.ndarray:
    """Return the values of the seeds that both have, (n, 2).

    A value of the reference for all seeds is paired with every value of the arm.
    """
    for_all = reference.get(None)
    matched = [
        (arm[seed], reference.get(seed, for_all))
        for seed in sorted(arm, key=lambda seed: seed or 0)
    ]
    return np.array([pair for pair in matched if pair[1] is not None], np.float64).reshape(-1, 2)


def difference(
    arm: BySeed,
    reference: BySeed,
    higher_is_better: bool | None,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Return the paired difference of two arms.

    Differences that are equal for all seeds have no interval: they mean that the metric is too
    coarse for one, not that the difference is certain.

    Args:
      arm: values by seed.
      reference: values by seed; seeds that only one of them has are left out.
      higher_is_better: None if no direction is better.
      confidence: of the interval.
    """
    paired = pairs(arm, reference)
    mean, std, low, high, n = spread(paired[:, 0] - paired[:, 1], confidence)
    if low is None or high is None or std is None or std <= 1e-12 * np.abs(paired).max():
        return Difference(mean, None, None, n, UNRESOLVED)
    if low <= 0 <= high:
        return Difference(mean, low, high, n, UNRESOLVED)
    if higher_is_better is None:
        return Difference(mean, low, high, n, "higher" if low > 0 else "lower")
    return Difference(mean, low, high, n, "better" if (low > 0) == higher_is_better else "worse")


def discrimination(
    metric: Metric, arms: Mapping[str, BySeed], baselines: Mapping[str, BySeed]
) -> Discrimination | None:
    """Compare all arms with the baseline that has the best mean.

    The interval of an arm's lead is Student's t, paired by seed, at a confidence that is corrected
    for the number of arms (Bonferroni). Without the correction, one of five arms that equal the
    baseline would seem to beat it in one comparison of nine.

    Args:
      metric: metric of the test.
      arms: its values by arm and seed; {} for an arm that is missing.
      baselines: its values by baseline and seed.

    Returns:
      None without baselines or arms, or if no direction is better.
    """
    if not any(arms.values()) or not baselines or metric.higher_is_better is None:
        return None
    sign = 1 if metric.higher_is_better else -1
    means = {name: float(np.mean([*values.values()])) for name, values in baselines.items()}
    best = max(means, key=lambda name: sign * means[name])
    confidence = corrected_confidence(len(arms))
    paired = {name: pairs(values, baselines[best]) for name, values in arms.items()}
    signs = {
        name: _resolved_sign(sign * (values[:, 0] - values[:, 1]), confidence)
        for name, values in paired.items()
    }
    above = tuple(name for name, resolved in signs.items() if resolved == 1)
    distinct = {*signs.values()}
    if above:
        verdict = "above"
    elif None in distinct:
        verdict = "open"
    else:
        verdict = "below" if distinct == {-1} else "tie" if distinct == {0} else "mixed"
    return Discrimination(metric, best, means[best], above, verdict)


def corrected_confidence(comparisons: int) -> float:
    """Return the confidence of each of several intervals that are right together (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / comparisons


def _resolved_sign(leads: np.ndarray, confidence: float) -> int | None:
    """Return the sign of the mean, 0 if its interval includes 0, None for fewer than two values."""
    if len(leads) < 2:
        return None
    mean, error = float(np.mean(leads)), float(np.std(leads, ddof=1)) / len(leads) ** 0.5
    half = float(stats.t.ppf((1 + confidence) / 2, len(leads) - 1)) * error
    return 0 if abs(mean) <= max(half, 1e-12) else int(np.sign(mean))
