"""Files that cannot be used: found one by one, collected, told in a table."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.utils.errors import InputError, escape_unprintable


class BadFile(NamedTuple):
    """A file that cannot be used.

    Attributes:
      file: which.
      reason: what was found, what was expected, what to do.
    """

    file: str
    reason: str


class BadFilesError(InputError):
    """One or more files cannot be used; `problems` has all of them, the message the first."""

    def __init__(self, problems: Iterable[BadFile]) -> None:
        """Keeps the problems, at least one."""
        self.bad_files = tuple(problems)
        first, more = self.bad_files[0], len(self.bad_files) - 1
        super().__init__(
            f"{first.file}: {first.reason}" + (f" (and {more} more bad files)" if more else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets the error travel between processes with its problems."""
        return BadFilesError, (self.bad_files,)


def bad_file(path: Path | str, reason: str) -> BadFilesError:
    """An error about one file."""
    return BadFilesError([BadFile(str(path), reason)])


def is_utf8(name: str) -> bool:
    """Whether a file name, as the system gives it, can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def collect_results(*reads: Callable[[], Any]) -> list[Any]:
    """The results of all calls; where some find bad files, one error that names all of them.

    Raises:
      BadFilesError: with the problems of every call that raised it.
    """
    results: list[Any] = []
    problems: list[BadFile] = []
    for read in reads:
        try:
            results.append(read())
        except BadFilesError as error:
            problems.extend(error.bad_files)
    if problems:
        raise BadFilesError(problems)
    return results


def write_table(problems: Iterable[BadFile], path: Path) -> None:
    """Writes file and reason of every problem, tab-separated with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(BadFile._fields)
        writer.writerows(
            (escape_unprintable(problem.file), escape_unprintable(problem.reason))
            for problem in problems
        )


def bad_files_table(problems: Sequence[BadFile], rows: int) -> str:
    """File and reason of the first problems in two columns, and how many more there are."""
    shown = [
        BadFile(escape_unprintable(one.file), escape_unprintable(one.reason))
        for one in problems[:rows]
    ]
    width = max(len(problem.file) for problem in shown)
    lines = [f"{problem.file:<{width}}  {problem.reason}" for problem in shown]
    if len(problems) > rows:
        lines.append(f"… and {len(problems) - rows} more")
    return "\n".join([f"{'file':<{width}}  reason", *lines])
