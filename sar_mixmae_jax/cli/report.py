"""`python -m sar_mixmae_jax.cli.report WORKDIR` writes WORKDIR/summary.html again."""

from collections.abc import Sequence
from pathlib import Path

from absl import app

from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import InputError, UserError


def main(argv: Sequence[str]) -> None:
    """Writes the page of the run that the command line names, and says where it is."""
    try:
        if len(argv) != 2:
            raise InputError(
                f"found {len(argv) - 1} folders, expected one: "
                "python -m sar_mixmae_jax.cli.report WORKDIR"
            )
        print(write_page(Path(argv[1])))
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
