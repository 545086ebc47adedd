"""What a run writes while it goes: TensorBoard, metrics.jsonl, and a progress bar."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.image import imread
from tensorboardX import SummaryWriter
from tqdm import tqdm

from sar_mixmae_jax.files import write_whole


class MetricsLog:
    """Scalars to TensorBoard and to `metrics.jsonl`, one JSON object a line with its step."""

    def __init__(self, workdir: Path, step: int) -> None:
        """Continues the log of a run, without what was logged after `step`.

        Args:
          workdir: of the run.
          step: the run goes on after this step; -1 for a run from scratch.
        """
        self.path = workdir / "metrics.jsonl"
        self.tensorboard = workdir / "tensorboard"
        _drop_later_lines(self.path, step)
        self._file = self.path.open("a")
        self._writer = SummaryWriter(str(self.tensorboard), purge_step=step + 1, flush_secs=30)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Logs scalars of a step; a value that is not finite becomes null in the JSON."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        finite = {name: value if np.isfinite(value) else None for name, value in scalars.items()}
        print(json.dumps({"step": step, **finite}), file=self._file, flush=True)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Shows a PNG in TensorBoard."""
        self._writer.add_image(name, imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is buffered."""
        self._file.close()
        self._writer.close()


def _drop_later_lines(path: Path, step: int) -> None:
    """Removes the lines of later steps, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            keep = json.loads(line)["step"] <= step
        except (ValueError, TypeError, KeyError):  # cut off, or none of ours
            continue
        if keep:
            kept.append(line + "\n")
    write_whole(path, "".join(kept).encode())


def progress_bar(step: int, steps: int) -> tqdm:
    """A bar over the steps of a run, with the time left; seldom redrawn in a log file.

    No bar where nothing is left to do.
    """
    return tqdm(
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        total=steps,
        disable=step >= steps,
        initial=step,
        unit="step",
        dynamic_ncols=True,
        bar_format="{l_bar}{bar}| step {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    )


class Clock:
    """Measures the rate of steps since it was started."""

    def __init__(self, step: int) -> None:
        """Starts after a step."""
        self._step, self._start = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        """Steps per second up to this step."""
        return (step - self._step) / (time.monotonic() - self._start)
