"""Files on mounted disks: whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from sar_mixmae_jax.errors import InputError, first_line


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives the name of a file beside its place; what was written goes to its place in one step."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with whole(path) as partial:
        partial.write_bytes(content)


@contextmanager
def writing(path: Path, advice: str = "check the folder and the disk") -> Iterator[None]:
    """Says what cannot be written, and what to do.

    Raises:
      InputError: the disk refuses.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({first_line(error)}): {advice}") from error


def check_writable(path: Path, flag: str) -> None:
    """Refuses a file that could not be written, before there is something to write.

    Raises:
      InputError: the path is a folder, or its own cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not path.name:
            raise IsADirectoryError("it is a folder")
        probe = path.with_name(f".{path.name}.{os.getpid()}.partial")
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{flag} {path} cannot be written ({first_line(error)}): name a file in a folder that "
            "can be"
        ) from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes arrays as an .npz, whole or not at all; read it with `np.load`, without pickle.

    Raises:
      InputError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return path


def free_name(path: Path) -> Path:
    """A name beside a file that is not taken: `name-0`, then `name-1`, and so on."""
    number = 0
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


def check_mounted(flag: str, path: str | None) -> Path:
    """The path that a flag gives; addresses of buckets would become folders of that name.

    Raises:
      InputError: the path is such an address.
    """
    if "://" in str(path):
        raise InputError(
            f"{flag} is {path}: expected a folder; mount the bucket (gcsfuse does) and name its "
            "folder"
        )
    return Path(str(path))
