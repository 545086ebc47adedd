"""Log of a run: `metrics.jsonl`, TensorBoard events, pictures, progress bar and step timer."""

import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from matplotlib.image import imread
from tqdm import tqdm

from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.migration import METRIC_NAMES, rename
from sar_mixmae_jax.training.setup import EvalResult, RunSetup
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, move_aside, unused_path


@contextmanager
def _hide_module(name: str) -> Iterator[None]:
    """Make imports of a module fail in this context, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _hide_module("torch"):  # tensorboardX imports it where it is installed, which takes seconds
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
"""Names in the workdir."""


class MetricLogger:
    """Log, picture and progress bar of one start of a run; only the primary process writes."""

    def __init__(self, workdir: Path, setup: RunSetup, start: int) -> None:
        """Continue the log of a run.

        Args:
          workdir: working directory of the run.
          setup: set-up of the run.
          start: steps done.
        """
        self._picture = workdir / setup.evaluator.picture
        self._title, self._start, self._steps = setup.title, start, setup.total_steps
        self._writer = MetricWriter(workdir, start or -1) if is_primary_process() else None
        self._bar: tqdm | None = None

    def advance(self) -> None:
        """Move the bar by a step; it starts with the first, so that compilation is not timed."""
        if self._bar is None:
            self._bar = progress_bar(self._start, self._steps, shown=is_primary_process())
        self._bar.update()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the scalars of a step."""
        if self._writer:
            self._writer.write(step, scalars)

    def write_progress(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the scalars of a step, and show loss and rate beside the bar."""
        self.write(step, scalars)
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {scalars['loss']:.4f}, {scalars['images_per_second']:.1f} images/s"
            )

    def write_evaluation(self, step: int, result: EvalResult, *, draw: bool) -> None:
        """Log the scalars of an evaluation, print its headline and, with `draw`, its picture."""
        if self._writer is None:
            return
        self._writer.write(step, result.scalars)
        if self._bar is not None:
            self._bar.write(f"step {step}: {result.headline}", sys.stderr)
        if draw and result.draw:
            with report_log_errors(self._picture.parent):
                result.draw(self._picture, f"{self._title}, step {step}: {result.headline}")
            self._writer.write_picture(step, self._picture)

    def close(self) -> None:
        """Close the files and the bar."""
        if self._bar is not None:
            self._bar.close()
        if self._writer:
            self._writer.close()


class MetricWriter:
    """Scalars to TensorBoard and to `metrics.jsonl`, one JSON object with its step a line."""

    def __init__(self, workdir: Path, step: int) -> None:
        """Continue the log of a run, without what was logged after `step`.

        Args:
          workdir: working directory of the run.
          step: last step that is kept; -1 for a run from scratch.

        Raises:
          InputError: the log cannot be written.
        """
        self.path = workdir / METRICS
        with report_log_errors(workdir):
            if is_damaged(self.path, step) and self.path.exists():
                copy = unused_path(self.path)
                shutil.copy2(self.path, copy)
                logging.warning("the damaged %s is kept as %s", self.path, copy.name)
            kept = [line for line in read_metrics(self.path) if line["step"] <= step]
            workdir.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path, "".join(map(_json_line, kept)).encode())
            if (workdir / TENSORBOARD).is_file():
                move_aside(workdir / TENSORBOARD)
            (workdir / TENSORBOARD).mkdir(exist_ok=True)
            self._events = EventsWriter(str(workdir / TENSORBOARD / "events"))
            start = SessionLog(status=SessionLog.START)
            self._add_event(step + 1, session_log=start)  # hides what is there of later steps

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log scalars of a step; a value that is not finite becomes null in the JSON.

        Raises:
          InputError: they cannot be written.
        """
        finite = {name: value if np.isfinite(value) else None for name, value in scalars.items()}
        with report_log_errors(self.path.parent):
            with self.path.open("a") as file:
                file.write(_json_line({"step": step, **finite}))
            values = [
                Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()
            ]
            self._add_event(step, summary=Summary(value=values))

    def write_picture(self, step: int, path: Path) -> None:
        """Show a PNG in TensorBoard, under the name of its file.

        Raises:
          InputError: it cannot be written.
        """
        with report_log_errors(self.path.parent):
            pixels = imread(path)[..., :3]
            self._add_event(step, summary=summary.image(path.stem, pixels, dataformats="HWC"))

    def close(self) -> None:
        """Close the event file."""
        with report_log_errors(self.path.parent):
            self._events.close()

    def _add_event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))
        self._events.flush()


@contextmanager
def report_log_errors(workdir: Path) -> Iterator[None]:
    """Name the workdir in the error of a log or picture that cannot be written.

    Raises:
      InputError: an `OSError` was raised inside.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{workdir}: log or picture cannot be written ({first_line(error)}): see that the disk "
            "has room and start again; the run is resumed from its last checkpoint"
        ) from error


def _json_line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the valid lines of a `metrics.jsonl`, see `parse_metrics`."""
    return parse_metrics(path)[0]


def parse_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read a `metrics.jsonl`; a file that does not exist has no lines.

    Args:
      path: path of the file. A line is a JSON object with the integer field "step" >= 0.

    Returns:
      The valid lines, with metrics under their current names, and the numbers (from 1) of the
      lines that are truncated or invalid.

    Raises:
      OSError: the file cannot be read.
    """
    texts = path.read_text(errors="replace").split("\n") if path.is_file() else []
    lines, invalid = [], []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            if type(line["step"]) is not int or line["step"] < 0:
                raise ValueError("no step")
            lines.append(rename(line, METRIC_NAMES))
        except (ValueError, TypeError, KeyError, RecursionError):
            invalid.append(number)
    return lines, invalid


def is_damaged(path: Path, step: int) -> bool:
    """Return True if lines of a `metrics.jsonl` are broken, or missing up to a saved step.

    A last line that is cut off does not count: a killed process leaves one.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = read_metrics(path)
    broken = len(lines) + (not content.endswith(b"\n")) < content.count(b"\n")
    return step > 0 and (broken or not any(line["step"] == step for line in lines))


def warn_if_damaged(path: Path, step: int) -> None:
    """Warn of lines that are lost from a `metrics.jsonl`.

    Raises:
      InputError: the log cannot be read.
    """
    try:
        if is_damaged(path, step):
            logging.warning("%s is damaged or missing, and lines of it are lost", path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): restore it, or move it away and start "
            "again"
        ) from error


def last_saved(path: Path) -> int | None:
    """Return the newest step that was saved according to a `metrics.jsonl`."""
    saved = [line["step"] for line in read_metrics(path) if "checkpoint_seconds" in line]
    return max(saved, default=None)


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
