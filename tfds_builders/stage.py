"""The folder in which a build collects its shards: it outlives an interruption.

It lies beside the dataset's folder, under a name that neither TFDS nor training takes for one.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sar_mixmae_jax.errors import InputError

PLAN = "plan.sha256"
SCRATCH = "scratch"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps all versions of a dataset for this process, until the build is published.

    The lock is the system's: builds on several machines that share a folder do not see each other's
    unless the file system passes it on.

    Args:
      folder: of the versions; made if it is not there.

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
        yield
    finally:
        os.close(lock)


@contextmanager
def opened(unfinished: Path, version: str) -> Iterator[Path]:
    """The stage of a version; at the end it is removed unless it has shards.

    Args:
      unfinished: the folder of TFDS that the build is to fill.
      version: of the dataset.
    """
    folder = unfinished.with_name(f"incomplete.resume_{version}")
    for other in unfinished.parent.glob(f"incomplete.??????_{version}"):
        if other not in (unfinished, folder):  # of builds that were killed while publishing
            shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(scratch, ignore_errors=True)
            if {entry.name for entry in folder.iterdir()} <= {PLAN}:
                shutil.rmtree(folder)


def check_plan(folder: Path, fingerprint: str) -> None:
    """Empties the stage if it is of a build that planned something else."""
    plan = folder / PLAN
    if plan.exists() and plan.read_text() == fingerprint:
        return
    old = [entry for entry in folder.iterdir() if entry.name != SCRATCH]
    shards = sum(entry.suffix == ".json" for entry in old)
    if shards:
        print(
            f"{folder}: {shards} shards of another plan are made again (options, raw files, splits "
            "or version differ)",
            file=sys.stderr,
        )
    for entry in old:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    plan.write_text(fingerprint)
