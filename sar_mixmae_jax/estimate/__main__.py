"""What will a run cost? `python -m sar_mixmae_jax.estimate --config=configs/pretrain.py`.

No model is run, no dataset is opened, no accelerator is needed. Prints tables, and writes JSON with
--out. docs/results.md compares with measurements.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from absl import app, flags

from sar_mixmae_jax.errors import InputError, UserError, fail
from sar_mixmae_jax.estimate.cost import BIGEARTHNET_V2, estimate
from sar_mixmae_jax.estimate.tables import tables
from sar_mixmae_jax.experiment import CONFIG, parse_flags
from sar_mixmae_jax.files import write_whole

RECORDS = flags.DEFINE_integer(
    "records",
    BIGEARTHNET_V2,
    "patches in an epoch (default: recommended patches of train and validation in the metadata "
    "table of BigEarthNet v2.0)",
    1,
)
DEVICES = flags.DEFINE_integer("devices", 1, "how many share the batch", 1)
SIDE = flags.DEFINE_integer("side", 120, "of a stored patch in pixels", 1, 2**16)
UTILISATION = flags.DEFINE_float(
    "utilisation",
    None,
    "share of the peak that products reach, instead of those in the table",
    0.001,
    1.0,
)
OUT = flags.DEFINE_string("out", None, "JSON file to write")


def main(argv: Sequence[str]) -> None:
    """Estimates what the flags say."""
    del argv
    jax.config.update("jax_platforms", "cpu")  # takes no accelerator from a run that is going on
    try:
        results = estimate(
            CONFIG.value,
            RECORDS.value,
            devices=DEVICES.value,
            side=SIDE.value,
            utilisation=UTILISATION.value,
        )
        print(tables(results))
        if OUT.value:
            write_whole(Path(OUT.value), json.dumps(results, indent=2).encode() + b"\n")
    except OSError as error:
        fail(InputError(f"cannot write {OUT.value}: {error.strerror}: choose another --out"))
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=partial(parse_flags, required={"config": "configs/pretrain.py"}))
