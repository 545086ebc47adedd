"""The folder of a run: one run at a time, and the record of what it is.

`run.json` holds all that is needed to repeat a run: configuration, dataset, model, and for every
start of the program the versions, the revision and the devices it had.
"""

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from absl import logging

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.files import write_whole, writing
from sar_mixmae_jax.pretrained import check_origin
from sar_mixmae_jax.processes import is_first, told_by_first
from sar_mixmae_jax.same_run import check_same

LOCK, RECORD = "lock", "run.json"
"""In the workdir; the lock holds a number, see `check_shared`."""


@contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Keeps the folder for this process.

    Args:
      workdir: made if it is not there; on a mounted disk.

    Raises:
      InputError: the folder cannot be used, or another process uses it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK).open("a")
    except OSError as error:
        raise InputError(
            f"--workdir {workdir} cannot be written ({first_line(error)}): choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--workdir {workdir} is in use by another process: wait for it to end, or choose "
                "another folder"
            ) from error
        except OSError as error:
            logging.warning("%s cannot be locked (%s): start one run at a time", workdir, error)
        for partial in workdir.glob(".*.partial"):  # what a killed process left; see write_whole
            partial.unlink(missing_ok=True)
        yield


def check_shared(workdir: Path) -> None:
    """Checks that all processes mean the same folder: the first one writes, the others read.

    Raises:
      InputError: this process has another one than the first.
    """
    number = secrets.randbits(30)
    if is_first():
        (workdir / LOCK).write_text(str(number))
    told = told_by_first(number)
    if jax.process_count() == 1:
        return
    try:
        found = (workdir / LOCK).read_text()
    except OSError as error:
        found = first_line(error)
    if found != str(told):
        raise InputError(
            f"--workdir {workdir.absolute()} is not the folder of the first process: give all of "
            "them the same one, on a disk that they share"
        )


class RunRecord:
    """`run.json`: what the run is, and what became of it."""

    def __init__(self, workdir: Path, description: dict[str, Any]) -> None:
        """Reads what is there, and compares it with what is asked for now; writes nothing.

        Args:
          workdir: of the run.
          description: {"config", "dataset", "model"} of the run, as JSON has it.

        Raises:
          InputError: the file is broken, or is of a run with another configuration or dataset.
        """
        self._path = workdir / RECORD
        before = recorded(workdir)
        if before:
            try:
                notes = check_same(before, description)
            except InputError as error:
                raise InputError(
                    f"{workdir} holds another run ({error}): choose another --workdir, or what it "
                    "was started with"
                ) from error
            for note in notes:
                logging.warning("%s", note)
        self.starts: list[dict[str, Any]] = list(before.get("starts", []))
        self.saved: int | None = before.get("saved")
        self._description = description
        self.is_new = not before

    def add_start(self, start: dict[str, Any]) -> None:
        """Notes that the program was started; see `provenance.describe_start`."""
        self.starts.append(start)
        self._write()

    def note_saved(self, step: int) -> None:
        """Notes that the checkpoint of a step is on the disk."""
        self.saved = step
        self._write()

    def _write(self) -> None:
        content = {**self._description, "starts": self.starts, "saved": self.saved}
        with writing(self._path, "make room and start again"):
            write_whole(self._path, (json.dumps(content, indent=2) + "\n").encode())


def recorded(workdir: Path) -> dict[str, Any]:
    """What `run.json` says of the run in a folder; {} where there is none.

    Raises:
      InputError: it cannot be read.
    """
    path = workdir / RECORD
    return _read(path) if path.exists() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise TypeError("it is not the record of a run")
        if not isinstance(content.get("starts"), list):
            raise TypeError("it has no list of starts")
        saved = content.get("saved")
        if not (saved is None or type(saved) is int):
            raise TypeError(f"it says that {saved!r} was saved, which is no step")
        model = content.get("model", {})
        if not isinstance(model, dict):
            raise TypeError(f"its model is {str(model)[:50]}, expected its description")
        check_origin(model.get("pretrained"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): restore it, or choose another --workdir"
        ) from error
    return content
