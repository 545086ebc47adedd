"""Working directory of a run: its lock and its record.

`run.json` holds what is needed to repeat a run: configuration, dataset, model, and for every start
of the program its versions, git revision and devices.
"""

import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.extend
from absl import logging

from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.distributed import broadcast_from_primary, is_primary_process
from sar_mixmae_jax.training.run_description import (
    ADDED_FACTS,
    RunDescription,
    RunOutline,
    RunRecordContent,
)
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import (
    acquire_lock,
    atomic_write,
    find_mirror,
    move_aside,
    read_json,
    report_write_errors,
    stored_path,
)

LOCK, RECORD, EVALUATION = "lock", "run.json", "evaluation"
"""Names in a working directory; the lock holds a number, see `check_shared_workdir`."""


UPLOAD_SECONDS = 60.0
"""Default of `config.upload_every`."""


@contextmanager
def lock_workdir(workdir: Path, upload_every: float = UPLOAD_SECONDS) -> Iterator[None]:
    """Lock a working directory for this process, and remove partial files of killed ones.

    Args:
      workdir: created if it does not exist; on a mounted disk, or the mirror of a bucket.
      upload_every: seconds after which what was written is published in the bucket.

    Raises:
      InputError: it cannot be written, or another process uses it.
      StorageError: the bucket cannot be used.
    """
    mirror = find_mirror(workdir.absolute())
    with mirror.hold(upload_every) if mirror else nullcontext(), _lock_folder(workdir):
        yield


@contextmanager
def _lock_folder(workdir: Path) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if (workdir / LOCK).is_dir():
            move_aside(workdir / LOCK)
        (workdir / LOCK).touch()
    except OSError as error:
        raise InputError(
            f"--workdir {workdir} cannot be written ({first_line(error)}): choose another folder"
        ) from error
    lock = acquire_lock(
        workdir / LOCK,
        f"--workdir {workdir} is in use by another process: wait for it to end, or choose another "
        "folder",
    )
    try:
        for pattern in (".*.partial", "*/.*.partial"):  # see atomic_write
            for partial in workdir.glob(pattern):
                partial.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def check_shared_workdir(workdir: Path) -> None:
    """Check that all processes use the same folder, by a random number in its lock file.

    Mirrors of a bucket are compared by their addresses.

    Raises:
      InputError: this process uses another folder than the primary one.
    """
    if find_mirror(workdir.absolute()):
        number = zlib.crc32(stored_path(workdir).encode()) & 0x7FFFFFFF
        if broadcast_from_primary(number) != number:
            raise InputError(
                f"--workdir {workdir} is not that of the primary process: give all of them the "
                "same one"
            )
        return
    number = secrets.randbits(30)
    if is_primary_process():
        (workdir / LOCK).write_text(str(number))
    expected = broadcast_from_primary(number)
    if jax.process_count() == 1:
        return
    try:
        content = (workdir / LOCK).read_text()
    except OSError as error:
        content = first_line(error)
    if content != str(expected):
        raise InputError(
            f"--workdir {workdir.absolute()} is not the folder of the primary process: give all of "
            "them the same one, on a disk that they share"
        )


class RunRecord:
    """`run.json`: description of the run, its starts and its newest saved step."""

    def __init__(self, workdir: Path, description: RunDescription) -> None:
        """Read the file, if there is one, and compare it with the run to start; write nothing.

        Args:
          workdir: working directory of the run.
          description: description of the run to start.

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

    def note_start(self, step: int, kernels: dict[str, str]) -> None:
        """Add this start of the program, with the settings that a later start may change.

        Args:
          step: steps done before it; 0 from scratch.
          kernels: of `kernel_choice.kernel_names`.
        """
        facts = {"settings": comparable_settings(self._description), "kernels": kernels}
        self.add_start(describe_start(step) | facts)

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
        return RunRecordContent.from_json(read_json(path)) if path.exists() else None


def read_run_outline(workdir: Path) -> RunOutline | None:
    """Read the `run.json` of a folder without a check of what is in its parts.

    A report shows what it finds there; a run is resumed from `read_run_record` only.

    Raises:
      InputError: it cannot be read, or lacks a part.
    """
    with _reading(workdir / RECORD) as path:
        return RunOutline.from_json(read_json(path)) if path.exists() else None


@contextmanager
def _reading(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (OSError, ValueError) as error:
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
    """Return the facts about a start of the program that are needed to repeat it.

    Args:
      step: steps done before it; 0 from scratch.
    """
    return {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "python": platform.python_version(),
        "git": git_revision(Path(__file__).parents[2]),
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


@cache
def versions() -> dict[str, str]:
    """Return the versions of the installed packages that affect results."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_revision(folder: Path) -> str | None:
    """Return the commit of a checkout, marked if tracked files differ; None without a checkout."""
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{revision} with changes" if changed else revision


RNG_CHANGED_WARNING = (
    "masks, partners, flips and drop path are drawn per microbatch: from this step on they differ "
    "from those of an unchanged run"
)
MAY_CHANGE = {
    "config.grad_accum_steps": RNG_CHANGED_WARNING,
    "config.batch_size": "the learning rate and the steps per epoch follow it, the order of the "
    f"records continues; {RNG_CHANGED_WARNING}",
    "config.best_metric": "",
    "config.checkpoint_every": "",
    "config.compilation_cache": "",
    "config.data.cache": "",
    "config.data.cache_dir": "",
    "config.data.prefetch": "",
    "config.data.read_threads": "",
    "config.data.read_workers": "",
    "config.data_dir": "",
    "config.dtype": "",  # what it means on this machine is model.dtype, which may not change
    "config.deterministic": "results before and after may differ in their last digits",
    "config.diagnostic_patches": "",
    "config.epochs": "",
    "config.keep_best": "",
    "config.max_to_keep": "",
    "config.keep_period": "",
    "config.log_every": "",
    "config.model.attention": "results before and after may differ in their last digits",
    "config.model.norm": "results before and after may differ in their last digits",
    "config.total_steps": "",
    "config.upload_every": "",
    "config.picture_every": "",
    "config.picture_patches": "",
    "config.validate_every": "",
    "config.schedule_epochs": "from here on the learning rate follows the new schedule",
    "config.remat": "results before and after may differ in their last digits",
}
"""Fields that may change at a resume, with a warning if one is due; all others may not."""


NAMED_CHANGES = 8
"""Fields that a refusal names; of more, only the number is told."""


def check_same_run(before: RunDescription, now: RunDescription) -> list[str]:
    """Compare the descriptions of a run at two starts.

    Returns:
      Warnings about the differences that are allowed.

    Raises:
      InputError: names the first `NAMED_CHANGES` fields that may not change, with both values.
    """
    differences = list(_differences(before, now))
    refused = {name: (old, new) for name, old, new in differences if name not in MAY_CHANGE}
    if refused:
        # The model follows from the configuration: name its fields only without another cause.
        named = [name for name in refused if not name.startswith("model.")] or list(refused)
        changes = [
            f"{name.removeprefix('config.')} was {refused[name][0]!r} and is now "
            f"{refused[name][1]!r}"
            for name in named[:NAMED_CHANGES]
        ]
        if len(named) > NAMED_CHANGES:
            raise InputError(f"{'; '.join(changes)}; and {len(named) - NAMED_CHANGES} more")
        fields = [name for name in named if name.startswith("config.")]
        advice = (
            "; to resume the run, set "
            + " ".join(f"--{name}={refused[name][0]}" for name in fields)
            if fields
            else ""
        )
        raise InputError("; ".join(changes) + advice)
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
    """Yield (field, old value, new value) of the fields that differ; absent fields are None.

    Facts about the dataset that the older description lacks are no difference.
    """
    parts = ("config", "dataset", "model")
    old, new = (
        dict(flatten({part: content[part] for part in parts}))
        for content in (before.to_json(), now.to_json())
    )
    added = {name for fact in ADDED_FACTS if (name := f"dataset.{fact}") not in old}
    for name in sorted({*old, *new} - added):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
