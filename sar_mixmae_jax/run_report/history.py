"""What a run wrote about itself, `run.json` and `metrics.jsonl`, as plain data."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line

PARTS = {"config": dict, "dataset": dict, "starts": list}
"""Of `run.json`."""

LARGEST = float(np.finfo(np.float32).max)
"""Beyond it no metric is finite."""


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
      config: every field of the configuration.
      dataset: what it was trained on.
      model: what was trained, and where its encoder is from; empty where a run does not say.
      starts: one entry for every time the run was started or resumed.
      metrics: by name.
      problems: sentences about what could not be read.
    """

    config: dict[str, Any]
    dataset: dict[str, Any]
    model: dict[str, Any]
    starts: list[dict[str, Any]]
    metrics: dict[str, Series]
    problems: list[str]


def read_history(workdir: Path) -> History:
    """Reads what a run wrote about itself, which may go on meanwhile.

    Args:
      workdir: of the run.

    Raises:
      InputError: `run.json` is not there or is none; everything else may be missing.
    """
    path = workdir / "run.json"
    try:
        run = json.loads(path.read_text())
        for name, kind in PARTS.items():
            if not isinstance(run[name], kind):
                raise TypeError(f"{name!r} is no {kind.__name__}")
        if not all(isinstance(start, dict) for start in run["starts"]):
            raise TypeError("'starts' holds something else than objects")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}), expected what a run writes there when "
            "it starts: name the folder of a run, or restore the file"
        ) from error
    metrics, problems = read_metrics(workdir / "metrics.jsonl")
    model = run.get("model")
    model = model if isinstance(model, dict) else {}
    return History(run["config"], run["dataset"], model, run["starts"], metrics, problems)


def read_metrics(path: Path) -> tuple[dict[str, Series], list[str]]:
    """The series of all metrics by name, and sentences about what could not be read."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return {}, [f"There is no {path.name}: nothing was logged."]
    except OSError as error:
        return {}, [f"{path.name} cannot be read ({first_line(error)})."]
    logged: dict[str, dict[float, float]] = defaultdict(dict)
    unread = []
    for number, line in enumerate(lines, 1):
        scalars = _parse(line)
        if scalars is None:
            unread.append(number)
            continue
        for name, value in scalars.items():
            if name != "step":
                logged[name][scalars["step"]] = value  # of a step logged twice, the last
    series = {name: _series(values) for name, values in sorted(logged.items())}
    return series, _told(path.name, [number for number in unread if lines[number - 1].strip()])


def resumed(starts: Sequence[dict[str, Any]]) -> list[float]:
    """The steps after which the run went on, ascending, each once."""
    steps = (_number(start.get("step")) for start in starts[1:])
    return sorted({step for step in steps if step is not None and step > 0})


def finite(series: Series) -> Series:
    """A series without the values that are not finite."""
    there = np.isfinite(series.values)
    return Series(series.steps[there], series.values[there])


def values_of(metrics: Mapping[str, Series], name: str) -> Series | None:
    """The finite values of a metric, None where there are none."""
    series = finite(metrics[name]) if name in metrics else None
    return series if series is not None and len(series.values) else None


def lost(series: Series | None) -> np.ndarray:
    """The steps at which a metric was not finite."""
    return np.array([]) if series is None else series.steps[np.isnan(series.values)]


def _parse(line: str) -> dict[str, float] | None:
    """The numbers of a line with its step; None for a line that is cut off or none of ours."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    numbers = {name: _number(value) for name, value in found.items()}
    scalars = {name: value for name, value in numbers.items() if value is not None}
    step = scalars.get("step", math.nan)
    return scalars if step >= 0 else None  # not so for NaN


def _number(value: Any) -> float | None:
    """A value as it was logged, NaN where it was not finite; None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= LARGEST else math.nan  # not so for NaN


def _series(values: dict[float, float]) -> Series:
    steps = sorted(values)
    return Series(np.array(steps), np.array([values[step] for step in steps]))


def _told(name: str, lines: list[int]) -> list[str]:
    """A sentence about lines that were left out."""
    if not lines:
        return []
    shown = ", ".join(map(str, lines[:5])) + (" …" if len(lines) > 5 else "")
    if len(lines) == 1:
        return [f"Line {shown} of {name} is cut off or broken and left out."]
    return [f"{len(lines):,} lines of {name} are cut off or broken and left out: {shown}."]
