"""Configuration, metrics and best checkpoint of a run, read from its files."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sar_mixmae_jax.run_report.formatting import as_list
from sar_mixmae_jax.training.checkpoint import checkpoint_steps, metric_direction, select_step
from sar_mixmae_jax.training.metric_logger import METRICS, parse_metrics
from sar_mixmae_jax.training.workdir import RECORD, read_run_outline
from sar_mixmae_jax.utils.errors import InputError, first_line

MAX_VALUE = float(np.finfo(np.float32).max)
"""Larger values of a metric count as not finite."""

MAX_LINES = 5
"""Numbers of invalid lines that are listed."""


class Series(NamedTuple):
    """A metric over a run.

    Attributes:
      steps: at which it was logged, ascending.
      values: NaN where a value was not finite.
    """

    steps: np.ndarray
    values: np.ndarray


class History(NamedTuple):
    """A run so far.

    Attributes:
      config: fields of the configuration, nested as in JSON.
      dataset: description of the training split.
      model: description of the model and of the checkpoint that it began with.
      starts: an entry for each start of the program: step, time, versions, devices, command.
      metrics: series by name of the metric.
      problems: sentences about files that could not be read.
    """

    config: dict[str, Any]
    dataset: dict[str, Any]
    model: dict[str, Any]
    starts: list[dict[str, Any]]
    metrics: dict[str, Series]
    problems: list[str]

    @property
    def is_pretraining(self) -> bool:
        """True for a pretraining run; configurations without a trainer are of early ones."""
        return self.config.get("trainer", "pretrain") == "pretrain"

    @property
    def caveats(self) -> list[Any]:
        """Caveats of the dataset."""
        return as_list(self.dataset.get("caveats"))

    @property
    def resumed(self) -> list[float]:
        """Steps after which the run was resumed, ascending, without duplicates."""
        steps = (_to_float(start.get("step")) for start in self.starts[1:])
        return sorted({step for step in steps if step is not None and step > 0})


def read_history(workdir: Path) -> History:
    """Read the files of a run, which may still be training.

    Args:
      workdir: working directory of the run.

    Raises:
      InputError: `run.json` is missing or invalid; all other files may be missing.
    """
    record = read_run_outline(workdir)
    if record is None:
        raise InputError(f"{workdir / RECORD} not found: give the workdir of a run")
    metrics, problems = read_series(workdir / METRICS)
    starts = list(record.starts)
    return History(record.config, record.dataset, record.model, starts, metrics, problems)


def read_series(path: Path) -> tuple[dict[str, Series], list[str]]:
    """Read a `metrics.jsonl`.

    Returns:
      The series of every metric by name, and sentences about what could not be read. Where a step
      was logged twice, the later line counts.
    """
    if not path.exists():
        return {}, [f"{path.name} is missing: no metrics were logged."]
    try:
        lines, invalid = parse_metrics(path)
    except OSError as error:
        return {}, [f"{path.name} cannot be read ({first_line(error)})."]
    logged: dict[str, dict[int, float]] = defaultdict(dict)
    for line in lines:
        for name, logged_value in line.items():
            value = _to_float(logged_value)
            if name != "step" and value is not None:
                logged[name][line["step"]] = value
    series = {}
    for name, values in sorted(logged.items()):
        steps = sorted(values)
        series[name] = Series(np.array(steps), np.array([values[step] for step in steps]))
    return series, _invalid_lines(path.name, invalid)


def finite(series: Series) -> Series:
    """Return a series without the values that are not finite."""
    valid = np.isfinite(series.values)
    return Series(series.steps[valid], series.values[valid])


def finite_series(metrics: Mapping[str, Series], name: str) -> Series | None:
    """Return the finite values of a metric; None if there are none."""
    series = finite(metrics[name]) if name in metrics else None
    return series if series is not None and len(series.values) else None


def nonfinite_steps(series: Series | None) -> np.ndarray:
    """Return the steps at which a metric was not finite."""
    return np.array([]) if series is None else series.steps[np.isnan(series.values)]


def has_curve(series: Series | None) -> bool:
    """Return True for a series with at least two finite values."""
    return series is not None and len(finite(series).values) > 1


def stem(name: str) -> str:
    """Return the name of a metric without its band or part: "bias_db" of "bias_db/VH"."""
    return name.partition("/")[0]


def missing_curves(metrics: Mapping[str, Series], names: Sequence[str]) -> str:
    """Return a sentence that lists the metrics without a curve; "" if there are none."""
    missing = [
        name
        for name in names
        if not any(stem(logged) == name and has_curve(metrics[logged]) for logged in metrics)
    ]
    return f"No curve (fewer than two finite values): {', '.join(missing)}." if missing else ""


class BestCheckpoint(NamedTuple):
    """The checkpoint that `best` selects.

    Attributes:
      step: step of the checkpoint.
      metric: by which it is selected.
      value: value of the metric at that step.
      rank: "highest" or "lowest" of the checkpoints that are kept.
      kept: number of checkpoints that are kept.
    """

    step: int
    metric: str
    value: float
    rank: str
    kept: int


def find_best_checkpoint(run: History, workdir: Path) -> BestCheckpoint | None:
    """Return the best checkpoint on the disk; None where its metric was not logged."""
    metric = run.config.get("best_metric")
    if not isinstance(metric, str) or metric not in run.metrics or not metric_direction(metric):
        return None
    try:
        step = int(select_step(workdir, "best").name)
    except InputError:
        return None
    logged = finite(run.metrics[metric])
    value = logged.values[logged.steps == step]
    if not len(value):
        return None
    rank = "lowest" if metric_direction(metric) == "min" else "highest"
    return BestCheckpoint(step, metric, float(value[0]), rank, len(checkpoint_steps(workdir)))


def best_index(name: str, values: np.ndarray) -> int | None:
    """Return the index of the best value; None if it is undefined which direction is better."""
    direction = metric_direction(name)
    if not direction or not len(values):
        return None
    return int(values.argmin() if direction == "min" else values.argmax())


def _to_float(value: Any) -> float | None:
    """Return a logged value: NaN where it is null or not finite, None if it is not a number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= MAX_VALUE else math.nan  # False for NaN


def _invalid_lines(name: str, numbers: Sequence[int]) -> list[str]:
    """Return a sentence about lines that were skipped."""
    if not numbers:
        return []
    shown = ", ".join(map(str, numbers[:MAX_LINES])) + (" …" if len(numbers) > MAX_LINES else "")
    if len(numbers) == 1:
        return [f"Line {shown} of {name} is truncated or invalid and was skipped."]
    return [f"{len(numbers):,} lines of {name} are truncated or invalid and were skipped: {shown}."]
