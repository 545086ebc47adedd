"""Errors whose one-line message is shown to the user without a traceback."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from typing import NoReturn, TypeVar

EXIT_ERROR = 2
"""Exit status after an error that the user can correct."""

LONGEST = 200
"""Characters of the message of a library that are shown."""

SHOWN_AS: dict[str, str] = {}
"""Addresses of buckets that messages name instead of the local folders that mirror them."""

T = TypeVar("T")


class UserError(Exception):
    """A condition that the user can correct, not a defect of the program.

    The message is one line that says what was found, what was expected and what to do.
    The command line prints it without a traceback and exits with 2.
    """


class InputError(UserError, ValueError):
    """An input cannot be used: a file, a name, a setting."""


class StorageError(UserError):
    """A bucket cannot be used; no statement about what is stored there."""


class DivergedError(UserError, ArithmeticError):
    """Training produced a loss or a gradient that is not finite."""


def look_up(table: dict[str, T], name: str, what: str) -> T:
    """Return an entry of a table by name.

    Args:
      table: the entries by name.
      name: the name asked for.
      what: what the table holds, for the message ("weighting", "variant").

    Raises:
      InputError: `name` is not in the table.
    """
    check_name(table, name, what)
    return table[name]


def check_name(known: Iterable[str], name: object, what: str) -> None:
    """Check that a name is among the known ones; see `look_up`.

    Raises:
      InputError: `name` is not known.
    """
    known = list(known)
    if name not in known:
        raise unknown_name(name, known, what)


def unknown_name(name: object, known: Iterable[str], what: str) -> InputError:
    """Return an error for an unknown name, which lists the known ones and suggests the closest."""
    known = list(known)
    close = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return InputError(f"unknown {what} {name!r}: {hint}known are {', '.join(sorted(known))}")


def first_line(error: BaseException) -> str:
    """Return type and first line of an error, or of its first cause.

    Long lines are cut: storage libraries print the whole specification of an array.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    line = lines[0].split(" [tensorstore_spec=")[0]
    return f"{type(error).__name__}: {line if len(line) <= LONGEST else line[:LONGEST] + ' …'}"


def escape_unprintable(text: str) -> str:
    """Return a text with escapes in place of unprintable characters, line ends included."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def name_buckets(text: str) -> str:
    """Return a text with addresses of buckets in place of the folders that mirror them."""
    for folder, url in SHOWN_AS.items():
        text = text.replace(folder, url)
    return text


def fail(error: Exception) -> NoReturn:
    """Print an error as one line and exit with status 2."""
    text = name_buckets(" ".join(str(error).split()))
    print("error:", escape_unprintable(text), file=sys.stderr)
    sys.exit(EXIT_ERROR)


def fail_at_once(error: Exception) -> NoReturn:
    """Print an error as `fail` does, and exit without joining threads that may never end."""
    with suppress(SystemExit):
        fail(error)
    sys.stdout.flush()
    os._exit(EXIT_ERROR)
