"""A folder of files that is there whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sar_mixmae_jax.errors import InputError, first_line


@contextmanager
def whole_folder(folder: Path, own: Collection[str], sign: str) -> Iterator[Path]:
    """Gives an empty folder to write into, and puts it in place of `folder` when all is written.

    If writing fails, `folder` stays as it was. Between taking the old folder away and putting the
    new one there, two renames, neither is in its place; the old one is then beside it, as
    `.NAME.PID.old`. Files in an old folder that are not its own are kept.

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
    if folder.is_dir() and any(folder.iterdir()) and not (folder / sign).is_file():
        raise InputError(f"{folder} holds other things and no {sign}: name a new folder")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        yield partial
        _swap(partial, folder, old, own)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({first_line(error)}): check the folder and the disk"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
    for path in old.iterdir():
        if path.name not in own:
            path.rename(folder / path.name)
    shutil.rmtree(old)
