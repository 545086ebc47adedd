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

from sar_mixmae_jax.utils.errors import InputError

PLAN = "plan.sha256"
SCRATCH = "scratch"


@contextmanager
def lock_staging(folder: Path) -> Iterator[None]:
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


def staging_dir(versions: Path, version: str) -> Path:
    """The stage of a version, in the folder of all versions."""
    return versions / f"incomplete.resume_{version}"


@contextmanager
def open_staging(unfinished: Path, version: str) -> Iterator[Path]:
    """The stage of a version; at the end it stays if it has shards.

    Args:
      unfinished: the folder of TFDS that the build is to fill.
      version: of the dataset.

    Raises:
      InputError: something else lies there.
    """
    folder = staging_dir(unfinished.parent, version)
    for other in unfinished.parent.glob(f"incomplete.??????_{version}"):
        if other not in (unfinished, folder):  # of builds that were killed while publishing
            remove_staging(other)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: found a link or a file, expected a folder: remove it")
    folder.mkdir(exist_ok=True)
    scratch = folder / SCRATCH
    remove_staging(scratch)
    scratch.mkdir()
    try:
        yield folder
    finally:
        remove_staging(scratch)
        if {entry.name for entry in folder.iterdir()} <= {PLAN}:
            remove_staging(folder)


def remove_staging(entry: Path) -> None:
    """Removes a file, a folder, or a link but not what it leads to, if it is there."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def check_plan(folder: Path, fingerprint: str) -> None:
    """Empties the stage if it is of a build that planned something else."""
    plan = folder / PLAN
    if plan.is_file() and plan.read_bytes() == fingerprint.encode():
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
        remove_staging(entry)
    plan.write_text(fingerprint)
