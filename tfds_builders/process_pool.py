"""Run tasks in processes with one progress bar; a failure or a signal stops all of them."""

import contextlib
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

from tqdm import tqdm

from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.processes import end_with_parent

Tick = Callable[[], None]
"""Called by a task once per unit of work; raises `StoppedError` if the task has to stop."""

REFRESH_SECONDS = 0.3
PRELOADED = (
    "tfds_builders.patch_builder",
    "tfds_builders.geotiff",
    "tfds_builders.zero_regions",
    "scipy.special",
    "tree",
)
"""Modules that the fork server imports: saves 20 MB in every process. None imports JAX."""


class StoppedError(Exception):
    """Raised inside a task because the build ends."""


def run_tasks(
    function: Callable[[Any, Tick], Any],
    tasks: Sequence[Any],
    *,
    processes: int,
    total: int,
    description: str,
    unit: str = "patches",
) -> Iterator[Any]:
    """Yield `function(task, tick)` of every task, in the order in which they end.

    Args:
      function: a function of a module, so that it can be pickled.
      tasks: picklable arguments.
      processes: number of processes; with a single process or task, this process runs all.
      total: number of units of work in all tasks, for the progress bar.
      description: label of the progress bar.
      unit: name of the units of work.

    Raises:
      InputError: a process was killed.
    """
    interval = 0.1 if sys.stderr.isatty() else 60.0  # seconds between lines of a log
    with tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        leave=False,
        mininterval=interval,
        delay=interval,
    ) as bar:
        if min(processes, len(tasks)) <= 1:
            for task in tasks:
                yield function(task, partial(_advance, bar))
        else:
            yield from _run_in_pool(function, tasks, min(processes, len(tasks)), bar)


def _advance(bar: tqdm) -> None:
    bar.update()


def _run_in_pool(
    function: Callable[[Any, Tick], Any], tasks: Sequence[Any], processes: int, bar: tqdm
) -> Iterator[Any]:
    # inherits no threads, unlike fork, and shares imported modules, unlike spawn
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    done, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(processes, context, _initialise_process, (done, stop))
    try:
        remaining, pending = iter(tasks), set[Future]()
        while True:
            for task in islice(remaining, 2 * processes - len(pending)):  # bounds the memory
                pending.add(pool.submit(_call, function, task))
            if not pending:
                break
            finished, pending = wait(pending, REFRESH_SECONDS, FIRST_COMPLETED)
            bar.update(done.value - bar.n)
            for future in finished:
                yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the build was killed, perhaps for lack of memory (or could not start: a "
            "program that builds needs `if __name__ == '__main__'`); the same command continues "
            "the build, and --processes=1 needs the least memory"
        ) from error
    finally:
        with _ignore_signals():
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _ignore_signals() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM during the shutdown, which would otherwise be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


_done: Synchronized | None = None
_stop: Event | None = None


def _initialise_process(done: Synchronized, stop: Event) -> None:
    """Let the parent handle SIGINT, and end this process when the parent ends."""
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def _call(function: Callable[[Any, Tick], Any], task: Any) -> Any:
    return function(task, _tick)


def _tick() -> None:
    if _done is not None:
        with _done.get_lock():
            _done.value += 1
    if _stop is not None and _stop.is_set():
        raise StoppedError


def run_with_beam(
    function: Callable[[Any, Tick], Any], tasks: Sequence[Any], *, runner: Any, options: Any
) -> None:
    """Call `function(task, tick)` for every task in a Beam pipeline.

    Args:
      function: a function of a module that is installed on the workers.
      tasks: picklable arguments.
      runner: Beam runner; None: the runner of the options.
      options: pipeline options, or None.
    """
    import apache_beam  # large, optional, and used nowhere else

    with apache_beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = (
            pipeline
            | apache_beam.Create(list(tasks))
            | apache_beam.Reshuffle()  # without it one worker gets all tasks
            | apache_beam.Map(partial(_call_in_beam, function))
        )


def _call_in_beam(function: Callable[[Any, Tick], Any], task: Any) -> None:
    function(task, _no_tick)


def _no_tick() -> None:
    pass
