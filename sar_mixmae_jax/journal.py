"""What a run tells while it goes: numbers, pictures, progress. Only the first process tells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sar_mixmae_jax.devices import local
from sar_mixmae_jax.inspection import Inspector
from sar_mixmae_jax.logs import MetricsLog, progress_bar
from sar_mixmae_jax.processes import is_first

PICTURE = "reconstruction.png"
"""In the workdir."""


class Journal:
    """Log, picture and progress bar of one start of a run."""

    def __init__(
        self, workdir: Path, inspector: Inspector, title: str, start: int, steps: int
    ) -> None:
        """Continues the log of a run.

        Args:
          workdir: of the run.
          inspector: looks at the model.
          title: what is trained on what, for the picture.
          start: steps done.
          steps: steps to have done at the end.
        """
        self._picture = workdir / PICTURE
        self._inspector, self._title = inspector, title
        self._log = MetricsLog(workdir, start or -1) if is_first() else None
        self._start, self._steps = start, steps
        self._bar: tqdm | None = None

    def advance(self) -> None:
        """A step is done; the bar begins with the first, so that it does not time compilation."""
        if self._bar is None:
            self._bar = progress_bar(self._start, self._steps, shown=is_first())
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
        """Looks at the model; with `draw`, the numbers are logged and the picture is drawn."""
        look = self._inspector.look(local(params))
        if draw and self._log:
            explained = f"{100 * look.scalars['explained']:.1f} %"
            title = f"{self._title}, step {step}: {explained} of the weighted variance explained"
            with self._log.writing():
                self._inspector.draw(look.panels, self._picture, title)
            self._log.write(step, look.scalars)
            self._log.picture(step, "reconstruction", self._picture)
        return look.scalars

    def close(self) -> None:
        """Writes what is buffered."""
        if self._bar is not None:
            self._bar.close()
        if self._log:
            self._log.close()
