"""What repeated runs say: mean and spread over seeds, differences by seed, and whether they hold.

An arm is a way of pretraining; it runs with several seeds. Runs of different arms with the same
seed saw the same data in the same order, so arms are compared seed by seed: what a seed does to
both cancels. Baselines that learn from labels have seeds too, which choose these. The interval is
Student's t for paired values. It covers chance in training alone: it says nothing about other test
images, which every arm shares.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from sar_mixmae_jax.utils.errors import InputError

CONFIDENCE = 0.95
UNRESOLVED = "unresolved"


class Result(NamedTuple):
    """What one run measured in a task.

    Attributes:
      arm: or the name of a baseline.
      seed: of the run; None: the same for all seeds.
      task: in which.
      metrics: by name; a value of None, or not finite, is missing.
    """

    arm: str
    seed: int | None
    task: str
    metrics: Mapping[str, float | None]


BySeed = Mapping[int | None, float]
"""The values of a metric; that of None is for all seeds."""


class Metric(NamedTuple):
    """A metric of a task.

    Attributes:
      task: as in the results.
      name: as in the results.
      title: for readers.
      form: of its values, as `format` takes it.
      higher_is_better: None where neither is, as for a bias.
      compared: whether differences between arms are shown.
      bounded: whether its values are between 0 and 1.
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
    "tie": "none is resolved from it: the test discriminates nothing",
    "mixed": "none is resolved above it, and some are below",
    "below": "every arm is resolved below it: none of them is worth its network here",
    "open": "an arm is missing, or has too few seeds to say",
}
"""What a metric's baselines say of a test."""


class Discrimination(NamedTuple):
    """Whether a metric of a test tells networks from what needs no network.

    Attributes:
      metric: which.
      baseline: name of the best baseline.
      value: of that baseline, its mean over seeds.
      above: arms that are resolved above it.
      verdict: an entry of `VERDICTS`.
    """

    metric: Metric
    baseline: str
    value: float
    above: tuple[str, ...]
    verdict: str


def by_seed(results: Iterable[Result], metric: Metric) -> dict[str, dict[int | None, float]]:
    """The values of a metric by arm (or baseline) and seed, without those that are missing.

    Raises:
      InputError: an arm has two values for a seed.
    """
    found: dict[str, dict[int | None, float]] = {}
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


def pairs(arm: BySeed, other: BySeed) -> np.ndarray:
    """(n, 2) values of the seeds that both have; a value for all seeds is paired with every one."""
    anyway = other.get(None)
    theirs = {seed: other.get(seed, anyway) for seed in sorted(arm, key=lambda seed: seed or 0)}
    both = [(arm[seed], value) for seed, value in theirs.items() if value is not None]
    return np.array(both, np.float64).reshape(-1, 2)


def difference(arm: BySeed, reference: BySeed, higher_is_better: bool | None) -> Difference:
    """The paired difference of two arms.

    Differences that are equal for all seeds leave no interval: they show that the metric is too
    coarse for one, not that it is certain.

    Args:
      arm: values by seed.
      reference: values by seed; seeds that only one of them has are left out.
      higher_is_better: None where neither is.
    """
    paired = pairs(arm, reference)
    mean, std, low, high, n = spread(paired[:, 0] - paired[:, 1])
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
    """Whether any arm is resolved above the best baseline, which is the best in the mean.

    By Student's interval of the arm's lead, paired by seed, at a confidence that is corrected for
    the number of arms (Bonferroni): else one of five arms that equal the baseline would seem to
    beat it in one comparison of nine.

    Args:
      metric: which.
      arms: its values by arm and seed; none where an arm is missing.
      baselines: its values by baseline and seed.

    Returns:
      None where there is no baseline or no arm, or where no direction is better.
    """
    if not any(arms.values()) or not baselines or metric.higher_is_better is None:
        return None
    sign = 1 if metric.higher_is_better else -1
    means = {name: float(np.mean([*values.values()])) for name, values in baselines.items()}
    best = max(means, key=lambda name: sign * means[name])
    level = 1 - (1 - CONFIDENCE) / len(arms)
    paired = {name: pairs(values, baselines[best]) for name, values in arms.items()}
    leads = {
        name: _resolved(sign * (both[:, 0] - both[:, 1]), level) for name, both in paired.items()
    }
    above = tuple(name for name, lead in leads.items() if lead == 1)
    if above:
        verdict = "above"
    elif None in leads.values():
        verdict = "open"
    else:
        found = {*leads.values()}
        verdict = "below" if found == {-1} else "tie" if found == {0} else "mixed"
    return Discrimination(metric, best, means[best], above, verdict)


def _resolved(leads: np.ndarray, level: float) -> int | None:
    """1 or -1 where the mean is resolved from 0, else 0; None where there are too few values."""
    if len(leads) < 2:
        return None
    mean, error = float(np.mean(leads)), float(np.std(leads, ddof=1)) / len(leads) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, len(leads) - 1)) * error
    return 0 if abs(mean) <= max(half, 1e-12) else int(np.sign(mean))
