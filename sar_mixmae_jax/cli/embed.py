"""Write the features of a dataset to a file.

  sar-mixmae embed --checkpoint=runs/base --dataset=bigearthnet_s1/v2

The file is an .npz with `ids`, `features`, `labels` where the dataset has them, and `about`, the
JSON description of encoder and dataset. With a name that ends in .parquet it is GeoParquet with the
footprint, time and CRS of every record.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.inference.features import (
    check_table,
    embed,
    load_embedding_dataset,
    write_features,
)
from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.training.distributed import Heartbeat
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.files import check_local_path, check_writable, stored_path

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", None, "run that made the encoder", flag_values=FLAGS)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "latest",
    "best, latest or a step of the run; or, without --workdir, the path of a checkpoint or a run",
    flag_values=FLAGS,
)
DATASET = flags.DEFINE_string(
    "dataset", None, "name, name/config or name/config:version", flag_values=FLAGS
)
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of built datasets", flag_values=FLAGS)
SPLIT = flags.DEFINE_string(
    "split", "train", "split of the dataset, or several: train+validation", flag_values=FLAGS
)
OUT = flags.DEFINE_string(
    "out", "features.npz", "file to write, .npz or .parquet", flag_values=FLAGS
)
RESIZE_MODE = flags.DEFINE_string(
    "resize_mode",
    None,
    "resize or pad to the input size of the encoder (default: as in its run)",
    flag_values=FLAGS,
)
DTYPE = flags.DEFINE_string("dtype", "auto", "float32, bfloat16 or auto", flag_values=FLAGS)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 256, "records in a batch, of all devices", 1, flag_values=FLAGS
)
common.define_process_flags(FLAGS)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Encode a dataset as the command line says, and print the path of the file."""
    parse_flags(argv, FLAGS, __doc__, {"dataset": "bigearthnet_s1/v2"})
    common.configure_logging()
    workdir, checkpoint = common.locate_checkpoint(WORKDIR.value, CHECKPOINT.value)
    out = check_local_path("--out", OUT.value)
    check_writable(out, "--out")
    common.join_processes(FLAGS)
    common.enable_compilation_cache()
    with Heartbeat():
        encoder = find_source_checkpoint(workdir, checkpoint)
        patches = load_embedding_dataset(encoder, str(DATASET.value), DATA_DIR.value, SPLIT.value)
        check_table(out, patches)
        arrays = embed(
            encoder,
            patches,
            resize_mode=RESIZE_MODE.value,
            dtype=DTYPE.value,
            batch_size=BATCH_SIZE.value,
        )
        write_features(out, arrays, patches)
    if distributed.is_primary_process():
        records, width = arrays["features"].shape
        print(f"{out}: {records} records of {width} features by {stored_path(encoder.path)}")


if __name__ == "__main__":
    main(sys.argv)
