"""Work in threads beside the caller's own, whose errors are raised in the caller."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any

from sar_mixmae_jax.utils.processes import available_cores


class BackgroundTasks(AbstractContextManager["BackgroundTasks"]):
    """Function calls in threads, as many at a time as there are cores.

    Leaving the context waits for all calls; after an error for those that have begun.
    """

    def __init__(self) -> None:
        """Begin without calls."""
        self._threads = available_cores()
        self._pool = ThreadPoolExecutor(self._threads)
        self._pending: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Start a call, or queue it; wait while twice as many as there are threads are pending.

        Raises the error of an earlier call that has failed.
        """
        self.check()
        while len(self._pending) >= 2 * self._threads:
            self._raise(wait(self._pending, return_when=FIRST_COMPLETED).done)
        self._pending.add(self._pool.submit(function, *arguments))

    def check(self) -> None:
        """Raise the error of a call that has failed."""
        self._raise(wait(self._pending, timeout=0).done)

    def cancel(self) -> None:
        """Leave out the calls that have not begun."""
        self._pending -= {task for task in self._pending if task.cancel()}

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
