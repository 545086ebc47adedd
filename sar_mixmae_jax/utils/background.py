"""Work in threads beside the caller's own, whose errors are raised in the caller."""

import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any


class BackgroundTasks(AbstractContextManager["BackgroundTasks"]):
    """Function calls in threads, as many at a time as there are cores.

    Leaving the context waits for all calls; after an error for those that have begun.
    """

    def __init__(self) -> None:
        """Begin without calls."""
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._pending: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Start a call, or queue it; raise the error of an earlier one that has failed."""
        self._raise(wait(self._pending, timeout=0).done)
        self._pending.add(self._pool.submit(function, *arguments))

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._raise(wait(self._pending, return_when=FIRST_EXCEPTION).done)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _raise(self, done: set[Future[Any]]) -> None:
        self._pending -= done
        for task in done:
            task.result()
