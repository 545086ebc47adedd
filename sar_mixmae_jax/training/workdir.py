"""The folder of a run: one run at a time, and the record of what it is.

`run.json` holds all that is needed to repeat a run: configuration, dataset, model, and for every
start of the program the versions, the revision and the devices it had.
"""

import fcntl
import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.extend
from absl import logging

from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.distributed import broadcast_from_primary, is_primary_process
from sar_mixmae_jax.training.run_description import RunDescription, RunOutline, RunRecordContent
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors

LOCK, RECORD, EVALUATION = "lock", "run.json", "evaluation"
"""In the workdir; the lock holds a number, see `check_shared`."""


@contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
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


def check_shared_workdir(workdir: Path) -> None:
    """Checks that all processes mean the same folder: the first one writes, the others read.

    Raises:
      InputError: this process has another one than the first.
    """
    number = secrets.randbits(30)
    if is_primary_process():
        (workdir / LOCK).write_text(str(number))
    told = broadcast_from_primary(number)
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
    """`run.json`: description of the run, its starts and its newest saved step."""

    def __init__(self, workdir: Path, description: RunDescription) -> None:
        """Read the file, if there is one, and compare it with the run to start; write nothing.

        Args:
          workdir: of the run.
          description: of the run to start.

        Raises:
          InputError: the file is damaged, or is of a run with another configuration or dataset.
        """
        self._path = workdir / RECORD
        before = read_run_record(workdir)
        if before:
            try:
                warnings = check_same_run(before, description)
            except InputError as error:
                raise InputError(
                    f"{workdir} holds another run ({error}): choose another --workdir, or what it "
                    "was started with"
                ) from error
            for warning in warnings:
                logging.warning("%s", warning)
        self.starts = list(before.starts) if before else []
        self.saved = before.saved if before else None
        self._description = description
        self.is_new = not before

    def add_start(self, start: dict[str, Any]) -> None:
        """Add a start of the program; see `describe_start`."""
        self.starts.append(start)
        self._write()

    def note_saved(self, step: int) -> None:
        """Note that the checkpoint of a step is on the disk."""
        self.saved = step
        self._write()

    def _write(self) -> None:
        content = {**self._description.to_json(), "starts": self.starts, "saved": self.saved}
        with report_write_errors(self._path, "make room and start again"):
            atomic_write(self._path, (json.dumps(content, indent=2) + "\n").encode())


def read_run_record(workdir: Path) -> RunRecordContent | None:
    """Read the `run.json` of a folder, of this version or an earlier one; None if it has none.

    Raises:
      InputError: it cannot be read, or a field of it cannot be used.
    """
    with _reading(workdir / RECORD) as path:
        return RunRecordContent.from_json(json.loads(path.read_text())) if path.exists() else None


def read_run_outline(workdir: Path) -> RunOutline | None:
    """Read the `run.json` of a folder without a check of what is in its parts.

    A report shows what it finds there; a run is resumed from `read_run_record` only.

    Raises:
      InputError: it cannot be read, or lacks a part.
    """
    with _reading(workdir / RECORD) as path:
        return RunOutline.from_json(json.loads(path.read_text())) if path.exists() else None


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): restore it, or choose another --workdir"
        ) from error


PACKAGES = (
    "array_record",
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "libtpu",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "sar-mixmae-jax",
    "tensorflow-datasets",
)


def describe_start(step: int) -> dict[str, Any]:
    """What a start of the program had: to repeat it, or to explain why it differed.

    Args:
      step: it went on after this step; 0 from scratch.
    """
    return {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "python": platform.python_version(),
        "git": git_revision(Path(__file__).parents[1]),
        "platform": jax.extend.backend.get_backend().platform_version,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "host": platform.node(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("JAX_", "XLA_", "LIBTPU_INIT_ARGS"))
        },
        "command": sys.orig_argv,
    }


def versions() -> dict[str, str]:
    """The versions of the installed packages that decide what is computed."""
    found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


def git_revision(folder: Path) -> str | None:
    """The commit of a checkout, with a note if files differ from it; None if there is none."""
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
        done.check_returncode()
        return done.stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{revision} with changes" if changed else revision


RNG_CHANGED_WARNING = (
    "masks, partners, flips and paths are drawn for every share of a batch, so from here on others "
    "are"
)
MAY_CHANGE = {
    "config.grad_accum_steps": RNG_CHANGED_WARNING,
    "config.batch_size": "the learning rate and the steps per epoch follow it, the records go on "
    f"where they were; {RNG_CHANGED_WARNING}",
    "config.best_metric": "",
    "config.checkpoint_every": "",
    "config.compilation_cache": "",
    "config.data_dir": "",
    "config.dtype": "",  # what it means on this machine is model.dtype, which may not change
    "config.deterministic": "results before and after may differ in their last digits",
    "config.diagnostic_patches": "",
    "config.epochs": "",
    "config.keep_best": "",
    "config.max_to_keep": "",
    "config.keep_period": "",
    "config.log_every": "",
    "config.total_steps": "",
    "config.picture_every": "",
    "config.picture_patches": "",
    "config.validate_every": "",
    "config.schedule_epochs": "from here on the learning rate follows the new schedule",
    "config.remat": "results before and after may differ in their last digits",
}
"""Fields that may change, with what the user should know of it; all others may not."""


def check_same_run(before: RunDescription, now: RunDescription) -> list[str]:
    """Compare the descriptions of a run at two starts.

    Returns:
      Warnings about the differences that are allowed.

    Raises:
      InputError: names every field that may not change, with both values.
    """
    differences = list(_differences(before, now))
    refused = [
        f"{name.removeprefix('config.')} was {old!r} and is now {new!r}"
        for name, old, new in differences
        if name not in MAY_CHANGE
    ]
    if refused:
        raise InputError("; ".join(refused))
    return [
        f"{name.removeprefix('config.')} was {old!r} and is now {new!r}: {MAY_CHANGE[name]}"
        for name, old, new in differences
        if MAY_CHANGE[name]
    ]


def comparable_settings(description: RunDescription) -> dict[str, Any]:
    """Return the configuration fields that may change, by name."""
    fields = dict(flatten({"config": description.config}))
    return {name.removeprefix("config."): fields.get(name) for name in MAY_CHANGE}


def _differences(before: RunDescription, now: RunDescription) -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, old value, new value) of the fields that differ; absent fields are None."""
    parts = ("config", "dataset", "model")
    old, new = (
        dict(flatten({part: content[part] for part in parts}))
        for content in (before.to_json(), now.to_json())
    )
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
