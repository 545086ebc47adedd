"""What a run tells while it goes: numbers, pictures, progress. Only the first process tells."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.metric_logger import MetricWriter, progress_bar


class EvalResult(NamedTuple):
    """What was seen of a model.

    Attributes:
      scalars: numbers by name.
      headline: the most important of them, for the title of the picture.
      draw: writes the picture to a path under a title; None where there is none.
    """

    scalars: dict[str, float]
    headline: str
    draw: Callable[[Path, str], None] | None


class Evaluator(Protocol):
    """Looks at a model from outside the train step.

    Attributes:
      picture: its file in the workdir.
    """

    picture: str

    def look(self, params: Any) -> EvalResult:
        """Looks at a model with replicated parameters; every process calls it."""
        ...

    def warn(self, scalars: dict[str, float]) -> None:
        """Warns of what was seen before the first step."""
        ...


class MetricLogger:
    """Log, picture and progress bar of one start of a run."""

    def __init__(
        self, workdir: Path, watcher: Evaluator, title: str, start: int, steps: int
    ) -> None:
        """Continues the log of a run.

        Args:
          workdir: of the run.
          watcher: looks at the model.
          title: what is trained on what, for the picture.
          start: steps done.
          steps: steps to have done at the end.
        """
        self._picture = workdir / watcher.picture
        self._watcher, self._title = watcher, title
        self._log = MetricWriter(workdir, start or -1) if is_primary_process() else None
        self._start, self._steps = start, steps
        self._bar: tqdm | None = None

    def advance(self) -> None:
        """A step is done; the bar begins with the first, so that it does not time compilation."""
        if self._bar is None:
            self._bar = progress_bar(self._start, self._steps, shown=is_primary_process())
        self._bar.update()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars of a step."""
        if self._log:
            self._log.write(step, scalars)

    def write_progress(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs the scalars of a step, and shows loss and rate beside the bar."""
        self.write(step, scalars)
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {scalars['loss']:.4f}, {scalars['images_per_second']:.1f} images/s"
            )

    def look(self, step: int, params: Any, *, draw: bool) -> dict[str, float]:
        """Looks at the model; the numbers are logged, and with `draw` the picture is drawn."""
        look = self._watcher.look(params)
        if self._log:
            self._log.write(step, look.scalars)
            if self._bar is not None:
                self._bar.write(f"step {step}: {look.headline}", sys.stderr)
            if draw and look.draw:
                with self._log.writing():
                    look.draw(self._picture, f"{self._title}, step {step}: {look.headline}")
                self._log.picture(step, self._picture.stem, self._picture)
        return look.scalars

    def close(self) -> None:
        """Writes what is buffered."""
        if self._bar is not None:
            self._bar.close()
        if self._log:
            self._log.close()
