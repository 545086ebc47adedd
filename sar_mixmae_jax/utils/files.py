"""Files and directories that appear as a whole or not at all, checks of paths, and mirrors.

A folder in a bucket is used through a local mirror: `mirror` is imported when one is named.
"""

import json
import os
import shutil
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging
from filelock import FileLock, Timeout

from sar_mixmae_jax.utils.errors import InputError, first_line


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and rename it to the file at the end."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


@contextmanager
def report_write_errors(
    path: Path, advice: str = "check the folder and the disk"
) -> Iterator[None]:
    """Turn an `OSError` into an error that names the path and the remedy.

    Raises:
      InputError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({first_line(error)}): {advice}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_text())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Write a result as JSON, as a whole or not at all.

    Args:
      path: path of the file, whose folder is made.
      content: dictionaries, lists, strings, finite numbers, booleans and None.
      indent: spaces of a level.

    Raises:
      InputError: it cannot be written.
    """
    with report_write_errors(path, "make room and start again; what is finished is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode())


def acquire_lock(path: Path, message: str) -> FileLock:
    """Acquire a lock file without waiting for it; warn where the file system has no locks.

    Processes on several machines exclude each other only if the file system shares locks.

    Args:
      path: path of the lock file, in an existing folder.
      message: text of the error where another process holds it.

    Returns:
      The lock, to be released.

    Raises:
      InputError: another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(message) from error
    except (OSError, NotImplementedError) as error:  # a file system without locks
        logging.warning("%s cannot be locked (%s): start one command at a time", path, error)
    return lock


@contextmanager
def hold_lock(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file until the context ends, which removes it; see `acquire_lock`."""
    lock = acquire_lock(path, message)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # while locked: no other can hold it
        lock.release()


def check_writable(path: Path, flag: str) -> None:
    """Check that a file can be written, before its content is computed.

    Raises:
      InputError: the path is a folder, a link or a device, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not path.name:
            raise IsADirectoryError("it is a folder")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise FileExistsError("it is a link or a device, which a file would replace")
        probe = path.with_name(f".{path.name}.{os.getpid()}.partial")
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{flag} {path} cannot be written ({first_line(error)}): name a file in a folder that "
            "can be"
        ) from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays as an .npz file, as a whole or not at all; it holds no pickles.

    Raises:
      InputError: it cannot be written.
    """
    with report_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return path


def create_array(path: Path, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.memmap:
    """Create an npy file that is mapped into memory, with room on the disk for all of it.

    Raises:
      OSError: there is no room; to write into such a mapping would end the process.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def unused_path(path: Path) -> Path:
    """Return a path beside a file that does not exist: `name-0`, then `name-1`, and so on."""
    number = 0
    while (unused := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return unused


def move_aside(path: Path) -> None:
    """Rename a file or folder that has the name of one that a run will create, with a warning."""
    unused = unused_path(path)
    path.rename(unused)
    logging.warning("%s already exists and was renamed to %s", path, unused)


def is_url(path: str | Path | None) -> bool:
    """Return True for the address of a bucket, such as gs://bucket/folder."""
    return "://" in str(path)


def check_local_path(flag: str, path: str | None) -> Path:
    """Return the value of a flag as a path; the address of a bucket would become a local folder.

    Raises:
      InputError: the value is such an address.
    """
    if is_url(path):
        raise InputError(
            f"{flag} is {path}: expected a folder; mount the bucket (gcsfuse does) and name its "
            "folder"
        )
    return Path(str(path))


class Mirror(Protocol):
    """Local mirror of a folder in a bucket; see `mirror.Mirror`.

    Attributes:
      url: address of the folder in the bucket.
      folder: the local one.
    """

    url: str
    folder: Path

    def fetch(self, path: Path) -> None:
        """Fetch all of a checkpoint, or of another folder."""
        ...

    def shown(self, path: Path) -> str:
        """Return the address of a path in the mirror."""
        ...

    def publish(self) -> None:
        """Write what has changed to the bucket."""
        ...

    def publish_checkpoint(self, path: Path) -> Future[None]:
        """Start to write a finished checkpoint to the bucket."""
        ...

    def hold(self, seconds: float) -> AbstractContextManager[None]:
        """Keep other runs out of the folder, and publish what is written at intervals."""
        ...


MIRRORS: list[Mirror] = []
"""Mirrors of this process."""


def local_path(path: str | Path) -> Path:
    """Return a path, or that of the mirror of an address, which is fetched where it is new.

    Raises:
      StorageError: the bucket cannot be used.
    """
    if not is_url(path):
        return Path(path)
    from sar_mixmae_jax.utils.mirror import open_mirror

    return open_mirror(str(path), MIRRORS)


def find_mirror(path: Path) -> Mirror | None:
    """Return the mirror that a path lies in, or None."""
    return next((mirror for mirror in MIRRORS if path.is_relative_to(mirror.folder)), None)


def publish(path: Path) -> None:
    """Publish what was written to a path in a mirror; nothing happens elsewhere."""
    mirror = find_mirror(path.absolute())
    if mirror:
        mirror.publish()


def stored_path(path: Path) -> str:
    """Return a path as it is stored with results: in a mirror, its address in the bucket."""
    mirror = find_mirror(path.absolute())
    return mirror.shown(path.absolute()) if mirror else str(path)


@contextmanager
def atomic_directory(folder: Path, own: Collection[str], sign: str) -> Iterator[Path]:
    """Create or replace a directory as a whole: an earlier one stays as it was if writing fails.

    Files in an earlier directory that are not its own are kept. The replacement takes two renames;
    a process that is killed between them leaves the earlier directory beside it, as
    `.NAME.PID.old`.

    Args:
      folder: path of the directory.
      own: names of all files that such a directory can have: these are replaced or removed.
      sign: one of these names, which every such directory has.

    Yields:
      An empty directory beside it, to write into.

    Raises:
      InputError: the path is a file or a directory with other content, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / sign).is_file():
        raise InputError(
            f"{folder} is not empty and holds no {sign}, so it is no earlier output: name a new or "
            "empty folder"
        )
    partial, old = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{state}") for state in ("partial", "old")
    )
    try:
        with report_write_errors(folder):
            partial.mkdir(parents=True)
            yield partial
            _replace_directory(partial, folder, old, own)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_directory(new: Path, folder: Path, old: Path, own: Collection[str]) -> None:
    """Move `new` to `folder`, and what is foreign there from the earlier directory into it."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    for path in old.iterdir():
        if path.name not in own:
            target = folder / path.name
            path.rename(unused_path(target) if target.exists() else target)
    shutil.rmtree(old)


def format_bytes(count: float) -> str:
    """Format a number of bytes with a decimal unit, from bytes to TB."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:,.{0 if units[0] == 'bytes' else 1}f} {units[0]}"
