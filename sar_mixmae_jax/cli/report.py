"""Write the HTML page of a run.

  sar-mixmae report WORKDIR

Training writes the page WORKDIR/summary.html when it ends; this command writes it again.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.files import local_path, publish, stored_path

FLAGS = flags.FlagValues()


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Write the page of the run that the command line names, and print its path."""
    (workdir,) = parse_flags(argv, FLAGS, __doc__, operands=("WORKDIR",))
    page = write_page(local_path(workdir))
    publish(page)
    print(stored_path(page))


if __name__ == "__main__":
    main(sys.argv)
