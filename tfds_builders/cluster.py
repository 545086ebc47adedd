"""Runs tasks with Apache Beam: how a cluster prepares an archive.

What a task leaves on the disk that all see is its result; so nothing depends on the order or the
form in which a runner hands results back.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tfds_builders.workers import Tick


def run(
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
            | apache_beam.Map(partial(_call, function))
        )


def _call(function: Callable[[Any, Tick], Any], task: Any) -> None:
    function(task, _no_tick)


def _no_tick() -> None:
    pass
