"""Features of a dataset: `python -m sar_mixmae_jax.embed --checkpoint=runs/base --dataset=NAME`.

Writes an .npz with `ids`, `features`, `labels` where the dataset has them, and `about` (JSON).
"""

from collections.abc import Sequence
from functools import partial

from absl import app, flags

from sar_mixmae_jax import process_flags, processes, runtime
from sar_mixmae_jax.embedding import embed, open_for, write
from sar_mixmae_jax.errors import UserError, fail, parse_flags
from sar_mixmae_jax.files import check_mounted, check_writable
from sar_mixmae_jax.lifeline import Lifeline
from sar_mixmae_jax.pretrained import find

CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    None,
    "workdir of a run, whose newest checkpoint is taken, or one of its checkpoints",
)
DATASET = flags.DEFINE_string("dataset", None, "name, name/config or name/config:version")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "where it is built")
SPLIT = flags.DEFINE_string("split", "train", "of the dataset, or several: train+validation")
OUT = flags.DEFINE_string("out", "features.npz", "file to write")
FIT = flags.DEFINE_string("fit", "resize", "to the encoder's input size: resize or pad")
DTYPE = flags.DEFINE_string("dtype", "auto", "float32, bfloat16, or auto")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 256, "records at a time, of all devices", 1)


def main(argv: Sequence[str]) -> None:
    """Encodes what the flags say, and names the file."""
    del argv
    runtime.say_things_once()
    try:
        out = check_mounted("--out", OUT.value)
        check_writable(out, "--out")
        process_flags.start()
        runtime.cache_programs(runtime.CACHE)
        with Lifeline():
            encoder = find(str(CHECKPOINT.value))
            patches = open_for(encoder, str(DATASET.value), DATA_DIR.value, SPLIT.value)
            made = embed(
                encoder, patches, fit=FIT.value, dtype=DTYPE.value, batch_size=BATCH_SIZE.value
            )
            write(out, made)
    except UserError as error:
        fail(error)
    if processes.is_first():
        records, width = made["features"].shape
        print(f"{out}: {records} records of {width} features by {encoder.path}")


if __name__ == "__main__":
    required = {"checkpoint": "runs/base", "dataset": "bigearthnet_s1/v2"}
    app.run(main, flags_parser=partial(parse_flags, required=required))
