"""Write the features of a dataset to a file.

`python -m sar_mixmae_jax.cli.embed --checkpoint=runs/base --dataset=NAME`


Writes an .npz with `ids`, `features`, `labels` where the dataset has them, and `about` (JSON).
"""

from collections.abc import Sequence
from functools import partial

from absl import app, flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.inference.features import embed, load_embedding_dataset, write_features
from sar_mixmae_jax.training import distributed
from sar_mixmae_jax.training.distributed import Heartbeat
from sar_mixmae_jax.training.initialisation import find_source_checkpoint
from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import UserError
from sar_mixmae_jax.utils.files import check_local_path, check_writable

CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "workdir of a run, whose newest checkpoint is taken, or one of its checkpoints",
)
DATASET = flags.DEFINE_string("dataset", None, "name, name/config or name/config:version")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "where it is built")
SPLIT = flags.DEFINE_string("split", "train", "of the dataset, or several: train+validation")
OUT = flags.DEFINE_string("out", "features.npz", "file to write")
RESIZE_MODE = flags.DEFINE_string(
    "resize_mode", "resize", "to the encoder's input size: resize or pad"
)
DTYPE = flags.DEFINE_string("dtype", "auto", "float32, bfloat16, or auto")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "records at a time, of all devices", 1)


def main(argv: Sequence[str]) -> None:
    """Encodes what the flags say, and names the file."""
    del argv
    common.say_things_once()
    try:
        out = check_local_path("--out", OUT.value)
        check_writable(out, "--out")
        common.join_processes_from_flags()
        common.cache_programs(common.CACHE)
        with Heartbeat():
            encoder = find_source_checkpoint(str(CHECKPOINT.value))
            patches = load_embedding_dataset(
                encoder, str(DATASET.value), DATA_DIR.value, SPLIT.value
            )
            made = embed(
                encoder,
                patches,
                resize_mode=RESIZE_MODE.value,
                dtype=DTYPE.value,
                batch_size=BATCH_SIZE.value,
            )
            write_features(out, made)
    except UserError as error:
        fail(error)
    if distributed.is_primary_process():
        records, width = made["features"].shape
        print(f"{out}: {records} records of {width} features by {encoder.path}")


if __name__ == "__main__":
    required = {"checkpoint": "runs/base", "dataset": "bigearthnet_s1/v2"}
    app.run(main, flags_parser=partial(parse_flags, required=required))
