"""Raw files that cannot be used: the error that collects them, and the table that lists them."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.utils.errors import InputError, escape_unprintable


class BadFile(NamedTuple):
    """A file that cannot be used.

    Attributes:
      file: path of the file, or another name of it.
      reason: what was found, what was expected, what to do.
    """

    file: str
    reason: str


class BadFilesError(InputError):
    """Error about at least one file that cannot be used; the message names the first of them.

    Attributes:
      bad_files: all of them.
    """

    def __init__(self, bad_files: Iterable[BadFile]) -> None:
        self.bad_files = tuple(bad_files)
        first, more = self.bad_files[0], len(self.bad_files) - 1
        super().__init__(
            f"{first.file}: {first.reason}" + (f" (and {more} more bad files)" if more else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error with its files; by default only the message would be passed."""
        return BadFilesError, (self.bad_files,)


def bad_file(path: Path | str, reason: str) -> BadFilesError:
    """Return an error about one file."""
    return BadFilesError([BadFile(str(path), reason)])


def is_utf8(name: str) -> bool:
    """Return True if a file name, as the system returns it, can be encoded as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def collect_results(*calls: Callable[[], Any]) -> list[Any]:
    """Return the results of all calls, each without arguments.

    Raises:
      BadFilesError: at least one call raised it; the error has the bad files of all calls.
    """
    results: list[Any] = []
    bad_files: list[BadFile] = []
    for call in calls:
        try:
            results.append(call())
        except BadFilesError as error:
            bad_files.extend(error.bad_files)
    if bad_files:
        raise BadFilesError(bad_files)
    return results


def write_table(bad_files: Iterable[BadFile], path: Path) -> None:
    """Write file and reason of all bad files as tab-separated values with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(BadFile._fields)
        writer.writerows(map(_escape, bad_files))


def bad_files_table(bad_files: Sequence[BadFile], rows: int) -> str:
    """Return a table of the first `rows` bad files, and the number of the others, as text."""
    shown = [_escape(entry) for entry in bad_files[:rows]]
    width = max(len(entry.file) for entry in shown)
    lines = [f"{entry.file:<{width}}  {entry.reason}" for entry in shown]
    if len(bad_files) > rows:
        lines.append(f"… and {len(bad_files) - rows} more")
    return "\n".join([f"{'file':<{width}}  reason", *lines])


def _escape(entry: BadFile) -> BadFile:
    return BadFile(escape_unprintable(entry.file), escape_unprintable(entry.reason))
