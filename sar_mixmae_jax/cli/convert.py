"""Weights from PyTorch and to PyTorch.

Commands:
  python -m sar_mixmae_jax.cli.convert from-torch CHECKPOINT.pth --workdir=runs/published
  python -m sar_mixmae_jax.cli.convert to-torch runs/base --out=base.pth

The first writes an ordinary checkpoint into a new workdir, the second a file that the published
models load with strict=True.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import app, flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.torch_interop.from_torch import Choices, from_torch
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.utils.command_line import fail, parse_flags
from sar_mixmae_jax.utils.errors import InputError, UserError, look_up
from sar_mixmae_jax.utils.files import check_local_path

WORKDIR = flags.DEFINE_string("workdir", None, "from-torch: a new folder for the checkpoint")
STATISTICS = flags.DEFINE_string(
    "statistics",
    None,
    "from-torch: what inputs are standardised with: bigearthnet_v1, bigearthnet_v2, or "
    "MEAN_VH,MEAN_VV,STD_VH,STD_VV in dB; published files need none",
)
IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "from-torch: bring it to this input side", 1)
DECODER_HEADS = flags.DEFINE_integer(
    "decoder_num_heads", None, "from-torch: of a model that is no published size", 1
)
ENCODER_ONLY = flags.DEFINE_boolean("encoder_only", False, "from-torch: leave decoder or head")
OPTIMIZER = flags.DEFINE_boolean("optimizer", True, "from-torch: take its state, where it is there")
TILING = flags.DEFINE_string(
    "tiling", None, "from-torch: of a flood detector: released (as published code) or spatial"
)
POOLING = flags.DEFINE_string("pooling", None, "from-torch: of a flood detector: mean or max")
OUT = flags.DEFINE_string("out", None, "to-torch: a .pth or .safetensors file")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "to-torch: best, latest, or a step")


def import_file(path: Path) -> str:
    """From PyTorch, as the flags say; what was made."""
    choices = Choices(
        statistics=STATISTICS.value,
        image_size=IMAGE_SIZE.value,
        decoder_num_heads=DECODER_HEADS.value,
        encoder_only=ENCODER_ONLY.value,
        optimizer=OPTIMIZER.value,
        tiling=TILING.value,
        pooling=POOLING.value,
    )
    workdir = check_local_path("--workdir", needed("workdir", WORKDIR.value))
    made = from_torch(path, workdir, choices)
    arch = made.model.arch
    also = ""
    if made.steps is not None:
        also = f"; its optimizer after {made.steps:,} steps, the last at the rate {made.rate:.3g}"
    return (
        f"{made.checkpoint}: {made.model.variant} ({made.model.kind}), width {arch.embed_dim}, "
        f"depths {arch.depths}, {arch.image_size} px{also}"
    )


def export_file(path: Path) -> str:
    """To PyTorch, as the flags say; what was made."""
    out = check_local_path("--out", needed("out", OUT.value))
    made = to_torch(path, out, CHECKPOINT.value)
    return (
        f"{out}: {made.tensors} tensors of {made.model.variant} ({made.model.kind}), "
        f"{made.checkpoint}"
    )


def needed(flag: str, value: str | None) -> str:
    """The value of a flag.

    Raises:
      InputError: it was not given.
    """
    if not value:
        raise InputError(f"found no --{flag}, expected --{flag}=PATH")
    return value


DIRECTIONS: dict[str, Callable[[Path], str]] = {"from-torch": import_file, "to-torch": export_file}


def main(argv: Sequence[str]) -> None:
    """Converts what the command line says, and names what was made."""
    common.say_things_once()
    jax.config.update("jax_platforms", "cpu")  # nothing is computed: accelerators stay free
    try:
        if len(argv) != 3:
            raise InputError(
                f"found {len(argv) - 1} arguments, expected two: from-torch CHECKPOINT.pth, or "
                "to-torch WORKDIR"
            )
        convert = look_up(DIRECTIONS, argv[1], "direction")
        print(convert(Path(argv[2])))
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
