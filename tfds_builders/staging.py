"""Staging folder of a build: it collects the shards and outlives an interruption.

It lies beside the folder of the dataset, under a name that neither TFDS nor training reads.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import hold_lock

PLAN_FILE = "plan.sha256"
SCRATCH = "scratch"
LOCK_FILE = ".build.lock"


def lock_staging(folder: Path) -> AbstractContextManager[None]:
    """Lock all versions of a dataset for this process until the build has ended.

    Args:
      folder: parent folder of the versions; created if missing.

    Raises:
      InputError: another process builds in this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return hold_lock(
        folder / LOCK_FILE,
        f"{folder} is in use: another process builds this dataset; wait for it to end",
    )


def staging_dir(versions: Path, version: str) -> Path:
    """Path of the staging folder of a version, in the parent folder of all versions."""
    return versions / f"incomplete.resume_{version}"


@contextmanager
def open_staging(unfinished: Path, version: str) -> Iterator[Path]:
    """Create the staging folder of a version; on exit, remove it unless it has shards.

    Args:
      unfinished: temporary folder of TFDS that the build is to fill.
      version: version of the dataset.

    Raises:
      InputError: a link or a file has the name of the folder.
    """
    folder = staging_dir(unfinished.parent, version)
    for leftover in unfinished.parent.glob(f"incomplete.??????_{version}"):
        if leftover not in (unfinished, folder):  # of a build that was killed at its end
            remove_staging(leftover)
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
        if {entry.name for entry in folder.iterdir()} <= {PLAN_FILE}:
            remove_staging(folder)


def remove_staging(entry: Path) -> None:
    """Remove a file, a folder, or a link without its target, if it exists."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def remove_shards_of_other_plan(folder: Path, fingerprint: str) -> None:
    """Empty a staging folder that belongs to a build with another plan, and record the plan.

    Args:
      folder: staging folder.
      fingerprint: fingerprint of the plan, recorded in the folder.
    """
    plan = folder / PLAN_FILE
    if plan.is_file() and plan.read_bytes() == fingerprint.encode():
        return
    stale = [entry for entry in folder.iterdir() if entry.name != SCRATCH]
    shards = sum(entry.suffix == ".json" for entry in stale)
    if shards:
        print(
            f"{folder}: {shards} shards of another plan are written again (options, raw files, "
            "splits or version differ)",
            file=sys.stderr,
        )
    for entry in stale:
        remove_staging(entry)
    plan.write_text(fingerprint)
