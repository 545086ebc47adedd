"""A folder of files that is there whole or not at all."""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.files import free_name, writing


@contextmanager
def whole_folder(folder: Path, own: Collection[str], sign: str) -> Iterator[Path]:
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
    if _holds_something(folder) and not (folder / sign).is_file():
        raise InputError(f"{folder} holds other things and no {sign}: name a new folder")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        with writing(folder):
            recover(folder, own)
            partial.mkdir(parents=True)
            yield partial
            _swap(partial, folder, old, own)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recover(folder: Path, own: Collection[str]) -> None:
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
        if found is None or not path.is_dir() or _runs(int(found[1])):
            continue
        if found[2] == "partial":
            shutil.rmtree(path)
        elif _holds_something(folder):
            _bring_over(path, folder, own)
        else:
            path.rename(folder)


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _runs(process: int) -> bool:
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


def _swap(new: Path, folder: Path, old: Path, own: Collection[str]) -> None:
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
    _bring_over(old, folder, own)


def _bring_over(old: Path, folder: Path, own: Collection[str]) -> None:
    """Moves what is not its own from an old folder, beside what has its name; removes the rest."""
    for path in old.iterdir():
        if path.name not in own:
            place = folder / path.name
            path.rename(free_name(place) if place.exists() else place)
    shutil.rmtree(old)
