"""Files on mounted disks: whole or not at all."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
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


def atomic_write(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


@contextmanager
def report_write_errors(
    path: Path, advice: str = "check the folder and the disk"
) -> Iterator[None]:
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
    with report_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return path


def unused_path(path: Path) -> Path:
    """A name beside a file that is not taken: `name-0`, then `name-1`, and so on."""
    number = 0
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free


def check_local_path(flag: str, path: str | None) -> Path:
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


@contextmanager
def atomic_directory(folder: Path, own: Collection[str], sign: str) -> Iterator[Path]:
    """Gives an empty folder to write into, and puts it in place of `folder` when all is written.

    If writing fails, `folder` stays as it was. Between taking the old folder away and putting the
    new one there, two renames, neither is in its place; the old one is then beside it, as
    `.NAME.PID.old`. Who is killed then leaves it there, and the next to write this folder brings
    it back. Files in an old folder that are not its own are kept.

    Args:
      folder: where the files go.
      own: names of all files that such a folder may have: these are replaced or removed.
      sign: the one of them by which an existing folder is known as such.

    Yields:
      A folder beside it.

    Raises:
      InputError: the path is a file, or a folder of something else, or cannot be written.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder")
    if _is_nonempty_dir(folder) and not (folder / sign).is_file():
        raise InputError(f"{folder} holds other things and no {sign}: name a new folder")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        with report_write_errors(folder):
            recover_directory(folder, own)
            partial.mkdir(parents=True)
            yield partial
            _swap_directories(partial, folder, old, own)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recover_directory(folder: Path, own: Collection[str]) -> None:
    """Removes what killed processes left beside a folder, and brings back what is not theirs.

    An old folder takes its place again if there is none, or an empty one; if there is one, it is
    given the files that are not its own. A process of another machine counts as dead.

    Args:
      folder: as of `whole_folder`.
      own: as of `whole_folder`.

    Raises:
      OSError: something cannot be moved.
    """
    if not folder.parent.is_dir():
        return
    left = re.compile(rf"\.{re.escape(folder.name)}\.(\d+)\.(old|partial)")
    for path in sorted(folder.parent.iterdir()):
        found = left.fullmatch(path.name)
        if found is None or not path.is_dir() or _process_exists(int(found[1])):
            continue
        if found[2] == "partial":
            shutil.rmtree(path)
        elif _is_nonempty_dir(folder):
            _keep_foreign_files(path, folder, own)
        else:
            path.rename(folder)


def _is_nonempty_dir(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _process_exists(process: int) -> bool:
    """Whether another process of that number runs; with this one's, it is an earlier one."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _swap_directories(new: Path, folder: Path, old: Path, own: Collection[str]) -> None:
    """Puts `new` in the place of `folder`; if that fails, the old one is put back."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    _keep_foreign_files(old, folder, own)


def _keep_foreign_files(old: Path, folder: Path, own: Collection[str]) -> None:
    """Moves what is not its own from an old folder, beside what has its name; removes the rest."""
    for path in old.iterdir():
        if path.name not in own:
            place = folder / path.name
            path.rename(unused_path(place) if place.exists() else place)
    shutil.rmtree(old)
