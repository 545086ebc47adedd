"""What a run writes while it goes: TensorBoard, metrics.jsonl, and a progress bar."""

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
from tensorboardX import SummaryWriter
from tqdm import tqdm

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, unused_path

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
"""In the workdir."""


class MetricWriter:
    """Scalars to TensorBoard and to `metrics.jsonl`, one JSON object a line with its step.

    What was logged is kept in memory too: files that vanish during the run are written again.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        """Continues the log of a run, without what was logged after `step`.

        Args:
          workdir: of the run.
          step: the run goes on after this step; -1 for a run from scratch.

        Raises:
          InputError: it cannot be written.
        """
        self.path = workdir / METRICS
        self.tensorboard = workdir / TENSORBOARD
        self._writer: Any = None
        with self.writing():
            if is_damaged(self.path, step) and self.path.exists():
                copy = unused_path(self.path)
                shutil.copy2(self.path, copy)
                logging.warning("what was there of %s is kept as %s", self.path, copy.name)
            self._lines = [line for line in read_metrics(self.path) if line["step"] <= step]
            self._rewrite()
            self._writer = self._open(purge_step=step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs scalars of a step; a value that is not finite becomes null in the JSON.

        Raises:
          InputError: it cannot be written.
        """
        finite = {name: value if np.isfinite(value) else None for name, value in scalars.items()}
        self._lines.append({"step": step, **finite})
        with self.writing():
            if self.path.exists():
                with self.path.open("a") as file:
                    file.write(_json(self._lines[-1]))
            else:
                logging.warning("%s was gone and is written again", self.path)
                self._rewrite()
            if self.tensorboard.exists():
                self._add(self._lines[-1])
            else:
                logging.warning("%s was gone and is written again", self.tensorboard)
                self._writer = self._open()
                for line in self._lines:
                    self._add(line)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Shows a PNG in TensorBoard."""
        with self.writing():
            self._writer.add_image(name, imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is buffered."""
        if self._writer_lives():
            with self.writing():
                self._writer.close()

    def _open(self, **options: Any) -> SummaryWriter:
        """Events are written by a thread, from a queue that has no end: nobody waits for it."""
        return SummaryWriter(str(self.tensorboard), flush_secs=30, max_queue=0, **options)

    def _writer_lives(self) -> bool:
        """Whether the thread still writes; it dies of a full disk without a word to others."""
        writer = self._writer and self._writer.file_writer
        return writer is None or writer.event_writer._worker.is_alive()

    def _add(self, line: dict[str, Any]) -> None:
        step = line["step"]
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, float("nan") if value is None else value, step)

    def _rewrite(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, "".join(map(_json, self._lines)).encode())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tells of a log or picture that cannot be written.

        Raises:
          InputError: it cannot.
        """
        try:
            yield
            if not self._writer_lives():
                raise OSError(f"{self.tensorboard} could not be written")
        except OSError as error:
            raise InputError(
                f"{self.path.parent}: log or picture cannot be written ({first_line(error)}): see "
                "that the disk has room and start again; the run goes on from its last checkpoint"
            ) from error


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the valid lines of a `metrics.jsonl`, see `parse_metrics`."""
    return parse_metrics(path)[0]


def parse_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read a `metrics.jsonl`; a file that does not exist has no lines.

    Args:
      path: of the file. A line is a JSON object with the integer field "step" >= 0.

    Returns:
      The valid lines, and the numbers (from 1) of the lines that are truncated or invalid.

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
            lines.append(line)
        except (ValueError, TypeError, KeyError, RecursionError):
            invalid.append(number)
    return lines, invalid


def is_damaged(path: Path, step: int) -> bool:
    """Whether lines of a `metrics.jsonl` are broken, or missing up to a step that was saved.

    A last line that is cut off is none of them: so does a killed process leave it.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = read_metrics(path)
    broken = len(lines) + (not content.endswith(b"\n")) < content.count(b"\n")
    return step > 0 and (broken or not any(line["step"] == step for line in lines))


def last_saved(path: Path) -> int | None:
    """The newest step that a `metrics.jsonl` says was saved."""
    saved = [line["step"] for line in read_metrics(path) if "checkpoint_seconds" in line]
    return max(saved, default=None)


def progress_bar(step: int, steps: int, *, shown: bool, description: str | None = None) -> tqdm:
    """A bar over steps, with the time left; seldom redrawn in a log file."""
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
