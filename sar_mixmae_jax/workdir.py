"""The folder of a run: one run at a time, of one configuration."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sar_mixmae_jax.configuration import flatten
from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.files import write_whole

MAY_CHANGE = frozenset(
    {
        "data_dir",
        "epochs",
        "max_steps",
        "remat",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "picture_every",
        "picture_patches",
        "diagnostic_patches",
    }
)
"""Fields that may differ when a run goes on; all others define what the run computes."""


@contextmanager
def claim(config: ConfigDict, workdir: Path) -> Iterator[None]:
    """Keeps the folder for this process, and writes or checks its `config.json`.

    Args:
      config: of the run.
      workdir: made if it is not there.

    Raises:
      InputError: the folder cannot be used, another process uses it, or it is of a run with another
        configuration.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / "lock").open("w")
    except OSError as error:
        raise InputError(
            f"--workdir {workdir} cannot be written ({first_line(error)}): choose another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"--workdir {workdir} is in use by another process: wait for it to end, or choose "
                "another folder"
            ) from error
        _check_or_write(config, workdir)
        yield


def _check_or_write(config: ConfigDict, workdir: Path) -> None:
    path = workdir / "config.json"
    now = json.loads(config.to_json_best_effort())
    if path.exists():
        differences = [
            f"{name} was {old!r} and is now {new!r}"
            for name, old, new in _differences(_read(path), now)
            if name not in MAY_CHANGE
        ]
        if differences:
            raise InputError(
                f"{workdir} holds a run with another configuration ({'; '.join(differences)}): "
                "choose another --workdir, or the configuration it was started with"
            )
    elif (workdir / "checkpoints").exists():
        raise InputError(
            f"{workdir} holds checkpoints but no config.json that says what they are of: restore "
            "it, or choose another --workdir"
        )
    write_whole(path, (json.dumps(now, indent=2) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
        if not isinstance(before, dict):
            raise TypeError(f"it holds {type(before).__name__}")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): restore it, or choose another --workdir"
        ) from error
    return before


def _differences(before: dict, now: dict) -> Iterator[tuple[str, Any, Any]]:
    """(field, old value, new value) of the fields that differ."""
    old, new = dict(flatten(before)), dict(flatten(now))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
