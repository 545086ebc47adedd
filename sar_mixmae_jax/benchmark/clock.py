"""Measuring time, so that what is compared sees the same moods of the machine."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

Results = dict[str, Any]
"""What was measured, by name, as JSON has it."""


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(
    parts: Mapping[str, Callable[[], Any]], turns: int, description: str
) -> dict[str, float]:
    """The median seconds of each part; in every turn each of them is called once.

    Args:
      parts: what to measure, by name; each waits until its work is done.
      turns: how many.
      description: for the progress bar.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in tqdm(range(turns), desc=description, unit="turn"):
        for name, part in parts.items():
            times[name].append(seconds(part))
    return {name: float(np.median(found)) for name, found in times.items()}


def turns_of(steps: int) -> tuple[int, int]:
    """How many turns of how many steps make up so many steps, nearly."""
    each = max(1, min(5, steps // 2))
    return max(1, steps // each), each
