"""Runs tasks on all cores, with one progress bar, and stops all of them when one is to stop."""

import contextlib
import multiprocessing
import os
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

Tick = Callable[[], None]
"""Called by a task for every piece of work; raises where the task is to stop."""

REFRESH_SECONDS = 0.3
PRELOADED = (
    "tfds_builders.patch_builder",
    "tfds_builders.geotiff",
    "tfds_builders.geotiff",
    "scipy.special",
    "tree",
)
"""What the fork server imports for all processes: 20 MB less in each. None of it loads JAX."""


class StoppedError(Exception):
    """Raised inside a task that is to stop, because the build as a whole ends."""


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(
    function: Callable[[Any, Tick], Any],
    tasks: Sequence[Any],
    *,
    processes: int,
    total: int,
    description: str,
    unit: str = "patches",
) -> Iterator[Any]:
    """Yields `function(task, tick)` of every task, in the order in which they end.

    Args:
      function: of a module, so that other processes find it.
      tasks: plain data.
      processes: how many may run at once; a single task or process runs in this one.
      total: pieces of work in all tasks, for the progress bar.
      description: for the progress bar.
      unit: what the pieces of work are, for the progress bar.

    Raises:
      InputError: a process was killed.
    """
    pause = 0.1 if sys.stderr.isatty() else 60.0  # seconds between lines of a log
    with tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        leave=False,
        mininterval=pause,
        delay=pause,
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
    # neither inherits threads nor starts from nothing: what is imported once is shared
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    done, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(processes, context, _enter, (done, stop))
    try:
        left, waiting = iter(tasks), set[Future]()
        while True:
            for task in islice(left, 2 * processes - len(waiting)):  # no more than needed at once
                waiting.add(pool.submit(_call, function, task))
            if not waiting:
                break
            ended, waiting = wait(waiting, REFRESH_SECONDS, FIRST_COMPLETED)
            bar.update(done.value - bar.n)
            for future in ended:
                yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the build was killed, perhaps for want of memory (or could not start: a "
            "program that builds needs `if __name__ == '__main__'`); the same command goes on "
            "where it was, and --processes=1 needs least"
        ) from error
    finally:
        with _undisturbed():
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Lets no further Ctrl-C or SIGTERM break off what ends a moment later anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_done: Synchronized | None = None
_stop: Event | None = None


def _enter(done: Synchronized, stop: Event) -> None:
    """Prepares a process of the pool: Ctrl-C is the parent's to answer, and its death is ours."""
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
    """Calls `function(task, tick)` for every task.

    Args:
      function: of a module that the workers have installed.
      tasks: plain data.
      runner: of Beam, or None for that of the options.
      options: of the pipeline, or None.
    """
    import apache_beam  # large, and needed nowhere else

    with apache_beam.Pipeline(runner=runner, options=options) as pipeline:
        _ = (
            pipeline
            | apache_beam.Create(list(tasks))
            | apache_beam.Reshuffle()  # else one worker takes all
            | apache_beam.Map(partial(_call_in_beam, function))
        )


def _call_in_beam(function: Callable[[Any, Tick], Any], task: Any) -> None:
    function(task, _no_tick)


def _no_tick() -> None:
    pass
