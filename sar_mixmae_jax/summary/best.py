"""Which checkpoint of a run is the best, and by what."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.checkpoint import choose, mode, steps
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.summary.history import History, finite


class Best(NamedTuple):
    """The checkpoint that `evaluate` takes if it is not told otherwise.

    Attributes:
      step: of it.
      metric: by which it was chosen.
      value: of the metric then.
      word: "highest" or "lowest", of the values of the checkpoints that are kept.
      kept: how many these are.
    """

    step: int
    metric: str
    value: float
    word: str
    kept: int


def best(run: History, workdir: Path) -> Best | None:
    """The best checkpoint on the disk; None where the metric says nothing of it.

    Args:
      run: so far.
      workdir: of it.
    """
    metric = run.config.get("best_metric")
    if not isinstance(metric, str) or metric not in run.metrics or not mode(metric):
        return None
    try:
        step = int(choose(workdir, "best").name)
    except InputError:
        return None
    logged = finite(run.metrics[metric])
    value = logged.values[logged.steps == step]
    if not len(value):
        return None
    word = "lowest" if mode(metric) == "min" else "highest"
    return Best(step, metric, float(value[0]), word, len(steps(workdir)))


def best_of(name: str, values: np.ndarray) -> int | None:
    """Where a metric was best; None where nobody knows whether more or less of it is better."""
    if not mode(name) or not len(values):
        return None
    return int(values.argmin() if mode(name) == "min" else values.argmax())
