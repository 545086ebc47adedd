"""Progress of a loop: a bar over its steps, and the time that its sections take."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


def progress_bar(step: int, steps: int, *, shown: bool, description: str | None = None) -> tqdm:
    """Return a bar over steps with the time left; it is seldom redrawn in a log file."""
    return tqdm(
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        total=steps,
        disable=not shown,
        initial=step,
        desc=description,
        unit="step",
        dynamic_ncols=True,
        bar_format="{l_bar}{bar}| step {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    )


class StepTimer:
    """Time spent in named sections, by a monotonic clock."""

    def __init__(self) -> None:
        """Start the timer."""
        self._sections: defaultdict[str, float] = defaultdict(float)
        self._start = time.monotonic()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Add the time inside the `with` to a section."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._sections[name] += time.monotonic() - start

    def flush(self) -> tuple[float, dict[str, float]]:
        """Return the seconds since the start or the last flush, in all and by section."""
        now = time.monotonic()
        seconds, sections = now - self._start, dict(self._sections)
        self._sections.clear()
        self._start = now
        return seconds, sections
