"""The cells of a comparison: one arm, one seed, one stage. What is finished is kept.

```
WORKDIR/cells/STAGE-ARM-SEED.json     what was measured, written last: then the cell is finished
WORKDIR/runs/STAGE/ARM/SEED           the run behind it, an ordinary workdir
```
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.files import write_whole, writing

PRETRAINING = "pretraining"
"""The first stage; the others are the names of the downstream tasks."""


class Cell(NamedTuple):
    """A cell.

    Attributes:
      stage: "pretraining" or the name of a task.
      arm: name.
      seed: of everything that is random in it.
    """

    stage: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """For files and people."""
        return f"{self.stage}-{self.arm}-{self.seed}"


class Measured(NamedTuple):
    """A finished cell.

    Attributes:
      cell: which one.
      metrics: by name; None where undefined.
      seconds: it took.
    """

    cell: Cell
    metrics: dict[str, float | None]
    seconds: float


def run_folder(workdir: Path, cell: Cell) -> Path:
    """The workdir of the run behind a cell."""
    return workdir / "runs" / cell.stage / cell.arm / str(cell.seed)


def read(workdir: Path, cell: Cell) -> Measured | None:
    """What a finished cell measured; None if it is not finished.

    Raises:
      InputError: its file is damaged.
    """
    path = _path(workdir, cell)
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        metrics = {
            str(name): None if value is None else float(value)
            for name, value in content["metrics"].items()
        }
        return Measured(cell, metrics, float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): remove it, and the cell is made again"
        ) from error


def write(workdir: Path, measured: Measured) -> None:
    """Keeps a finished cell.

    Raises:
      InputError: it cannot be written.
    """
    path = _path(workdir, measured.cell)
    content = {"metrics": measured.metrics, "seconds": round(measured.seconds, 1)}
    with writing(path, "make room and start again; what is finished is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _path(workdir: Path, cell: Cell) -> Path:
    return workdir / "cells" / f"{cell.name}.json"
