"""The folder in which a build collects its shards: it outlives an interruption.

It lies beside the dataset's folder, under a name that neither TFDS nor training takes for one, and
one build uses it at a time.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.errors import InputError

PLAN = "plan.sha256"
SCRATCH = "scratch"


def path(version: str, unfinished: Path) -> Path:
    """Where the shards of a version are collected, beside TFDS's own unfinished folder."""
    return unfinished.with_name(f"incomplete.resume_{version}")


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps it for this process; at the end removes it unless it has shards.

    Raises:
      InputError: another process builds there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder} is in use: another process builds this dataset; wait for it to end"
            ) from error
        try:
            yield
        finally:
            if folder.exists():
                shutil.rmtree(folder / SCRATCH, ignore_errors=True)
                if {entry.name for entry in folder.iterdir()} <= {PLAN}:
                    shutil.rmtree(folder)
    finally:
        os.close(lock)


def remove_others(unfinished: Path, version: str) -> None:
    """Removes what builds that were killed while publishing left; only while the stage is claimed.

    Args:
      unfinished: the folder of TFDS that this build is to fill.
      version: of the dataset.
    """
    for folder in unfinished.parent.glob(f"incomplete.??????_{version}"):
        if folder not in (unfinished, path(version, unfinished)):
            shutil.rmtree(folder)


def check_plan(folder: Path, fingerprint: str) -> None:
    """Empties the folder if it is of a build that planned something else."""
    plan = folder / PLAN
    if plan.exists() and plan.read_text() == fingerprint:
        return
    for entry in folder.iterdir():
        if entry.name != SCRATCH:
            entry.unlink()
    plan.write_text(fingerprint)


def fingerprint(facts: dict[str, Any], items: dict[str, Any]) -> str:
    """A SHA-256 of plain facts and of the items of every split."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in items.items():
        content = values.tobytes() if isinstance(values, np.ndarray) else repr(values).encode()
        digest.update(name.encode() + content)
    return digest.hexdigest()
