"""Evaluate a fine-tuned or probed model on a split.

  sar-mixmae evaluate --workdir=runs/land_cover

Writes a report: predictions, metrics with confidence intervals, tables and pictures.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.training.distributed import Heartbeat
from sar_mixmae_jax.training.workdir import read_run_outline
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.files import check_local_path, publish, stored_path

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "run of configs/finetune.py", flag_values=FLAGS)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "best",
    "best, latest or a step of the run; or, without --workdir, the path of a checkpoint",
    flag_values=FLAGS,
)
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "name, name/config or name/config:version (default: of the run)",
    flag_values=FLAGS,
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of built datasets (default: of the run)", flag_values=FLAGS
)
SPLIT = flags.DEFINE_string("split", "test", "split of the dataset", flag_values=FLAGS)
OUT = flags.DEFINE_string(
    "out", None, "folder of the report (default: in the workdir)", flag_values=FLAGS
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "records in a batch, of all devices (default: of the task)",
    1,
    flag_values=FLAGS,
)
common.define_process_flags(FLAGS)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Evaluate as the command line says; print the beginning of the report and its files."""
    parse_flags(argv, FLAGS, __doc__)
    common.configure_logging()
    workdir, checkpoint = common.locate_checkpoint(WORKDIR.value, CHECKPOINT.value)
    common.join_processes(FLAGS)
    common.enable_compilation_cache()
    has_record = read_run_outline(workdir) is not None  # a damaged one is refused before predicting
    with Heartbeat():
        files = evaluate(
            workdir,
            split=SPLIT.value,
            which=checkpoint,
            dataset=DATASET.value,
            data_dir=DATA_DIR.value,
            out=check_local_path("--out", OUT.value) if OUT.value else None,
            batch_size=BATCH_SIZE.value,
        )
    if distributed.is_primary_process():
        if has_record:
            write_page(workdir)  # the summary lists the evaluations of the run
        head, first, *_ = files["report.md"].read_text().split("\n## ")
        print(head, first, sep="\n## ")
        publish(workdir)
        for name, path in files.items():
            print(f"  {name}: {stored_path(path)}")


if __name__ == "__main__":
    main(sys.argv)
