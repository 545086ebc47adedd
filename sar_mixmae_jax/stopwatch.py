"""Where the time of the host goes: seconds by part."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the time spent in named parts, by a clock that never jumps."""

    def __init__(self) -> None:
        """Starts."""
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._start = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time inside the `with` to a part."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._parts[name] += time.monotonic() - start

    def lap(self) -> tuple[float, dict[str, float]]:
        """Seconds in all, and by part, since the start or the last lap; starts the next."""
        now = time.monotonic()
        seconds, parts = now - self._start, dict(self._parts)
        self._parts.clear()
        self._start = now
        return seconds, parts
