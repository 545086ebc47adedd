"""Evaluates a tuned model: `python -m sar_mixmae_jax.cli.evaluate --workdir=runs/land_cover`.

Predicts a split with the best checkpoint of a run and writes a report: predictions, metrics with
intervals, a readable table, pictures.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import app, flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.training.distributed import Heartbeat
from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import UserError
from sar_mixmae_jax.utils.files import check_local_path

WORKDIR = flags.DEFINE_string("workdir", None, "of a run of configs/finetune.py")
SPLIT = flags.DEFINE_string("split", "test", "of the dataset")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best by its metric, latest, or a step")
DATASET = flags.DEFINE_string("dataset", None, "another one than that of the run")
DATA_DIR = flags.DEFINE_string("data_dir", None, "where it is built, if not where the run found it")
OUT = flags.DEFINE_string("out", None, "folder of the report; by default in the workdir")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "records at a time, of all devices", 1)


def main(argv: Sequence[str]) -> None:
    """Evaluates what the flags say, and names what was made."""
    del argv
    common.say_things_once()
    try:
        workdir = check_local_path("--workdir", WORKDIR.value)
        common.join_processes_from_flags()
        common.cache_programs(common.CACHE)
        with Heartbeat():
            files = evaluate(
                workdir,
                split=SPLIT.value,
                which=CHECKPOINT.value,
                dataset=DATASET.value,
                data_dir=DATA_DIR.value,
                out=Path(OUT.value) if OUT.value else None,
                batch_size=BATCH_SIZE.value,
            )
    except UserError as error:
        fail(error)
    if distributed.is_primary_process():
        head, first, *_ = files["report.md"].read_text().split("\n## ")
        print(head, first, sep="\n## ")
        for name, path in files.items():
            print(f"  {name}: {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=partial(parse_flags, required={"workdir": "runs/NAME"}))
