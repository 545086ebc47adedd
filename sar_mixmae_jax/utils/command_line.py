"""Command lines: absl flags of one command, a short help text, and errors as one line.

Every command keeps its flags in a `flags.FlagValues` of its own, so that modules of commands can be
imported together.
"""

import os
import select
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from absl import flags

from sar_mixmae_jax.utils.errors import InputError, UserError, fail, first_line

HELP_FLAGS = frozenset({"-h", "-help", "--help", "-helpfull", "--helpfull"})
HELP_WIDTH = 96


@contextmanager
def report_errors() -> Iterator[None]:
    """End the program with one line if the body raises a `UserError`; usable as a decorator.

    If the reader of the standard output has closed it, as `head` does, the program ends silently
    with the status of SIGPIPE. A full standard output ends it with one line; one that was closed
    before the start, as by `>&-`, is discarded.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115, until the process ends
    try:
        try:
            yield
        except UserError as error:
            fail(error)
        except SystemExit:  # after the help
            _flush_output()
            raise
        _flush_output()
    except BrokenPipeError:
        if not _is_output_closed():
            raise
        _discard_output()
        sys.exit(128 + signal.SIGPIPE)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        fail(
            InputError(
                f"standard output cannot be written ({first_line(error)}): make room, or write it "
                "to another file"
            )
        )


def _discard_output() -> None:
    """Leave nothing to the flush at the exit of the interpreter, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_output_closed() -> bool:
    """Return True if the standard output is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def parse_flags(
    argv: Sequence[str],
    flag_values: flags.FlagValues,
    description: str | None,
    required: Mapping[str, str] | None = None,
    operands: Sequence[str] | None = (),
) -> list[str]:
    """Parse a command line and return its positional arguments.

    `--help` prints the description and the flags, and exits with 0; an unusable command line exits
    with 2 after one line.

    Args:
      argv: program name and arguments.
      flag_values: flags of the command.
      description: text of the help, usually the docstring of the command's module.
      required: example value of every flag that must be given, by name.
      operands: names of the positional arguments; None leaves their check to the command.
    """
    print_help_if_asked(argv, flag_values, description, required)
    try:
        flag_values.unparse_flags()  # a second call in one process starts from the defaults
        positional = flag_values(argv)[1:]
        check_given(required or {}, flag_values)
        if operands is not None:
            check_operands(positional, operands)
    except (flags.Error, InputError) as error:
        fail(error)
    flags.FLAGS.mark_as_parsed()  # absl's logging waits for the global flags, which have defaults
    return positional


def check_given(required: Mapping[str, str], flag_values: flags.FlagValues) -> None:
    """Check that all required flags have a value.

    Raises:
      InputError: names the missing flags, with an example of all required ones.
    """
    missing = [name for name in required if not flag_values[name].value]
    if missing:
        raise InputError(
            f"found no --{' and no --'.join(missing)}, expected "
            + " ".join(f"--{name}={example}" for name, example in required.items())
        )


def check_operands(positional: Sequence[str], operands: Sequence[str]) -> None:
    """Check the number of positional arguments.

    Raises:
      InputError: there are more or fewer than `operands` names.
    """
    if len(positional) != len(operands):
        expected = " ".join(operands) or "only flags, such as --batch_size=64"
        raise InputError(f"found the arguments {list(positional)}, expected {expected}; see --help")


def print_help_if_asked(
    argv: Sequence[str],
    flag_values: flags.FlagValues,
    description: str | None,
    required: Mapping[str, str] | None = None,
) -> None:
    """Print the help of a command and exit with 0 if the command line contains `--help`."""
    if HELP_FLAGS.intersection(argv[1:]):
        print(help_text(flag_values, description, required))
        sys.exit(0)


def help_text(
    flag_values: flags.FlagValues,
    description: str | None,
    required: Mapping[str, str] | None = None,
) -> str:
    """Return the description and a list of the flags with their defaults."""
    names = {
        name: f"--[no]{name}" if flag_values[name].boolean else f"--{name}" for name in flag_values
    }
    indent = 4 + max(map(len, names.values()), default=0)
    lines = [(description or "").strip(), *(("", "Flags:") if names else ())]
    for name, shown in names.items():
        flag = flag_values[name]
        note = ""
        if name in (required or {}):
            note = " (required)"
        elif flag.default not in (None, "") and "(default" not in flag.help:
            note = f" (default: {str(flag.default).lower() if flag.boolean else flag.default})"
        lines += textwrap.wrap(
            flag.help + note,
            HELP_WIDTH,
            initial_indent=f"  {shown}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
