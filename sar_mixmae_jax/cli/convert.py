"""Convert weights from and to PyTorch.

  sar-mixmae convert from-torch CHECKPOINT.pth --workdir=runs/published
  sar-mixmae convert to-torch runs/base --out=base.pth

`from-torch` writes an ordinary checkpoint into a new workdir, `to-torch` a file that the published
models load with strict=True; weights stay equal bit by bit.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import flags

from sar_mixmae_jax.cli import common
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, from_torch
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.utils.command_line import check_given, parse_flags, report_errors
from sar_mixmae_jax.utils.errors import InputError, look_up
from sar_mixmae_jax.utils.files import check_local_path

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "from-torch: new folder for the checkpoint", flag_values=FLAGS
)
STATISTICS = flags.DEFINE_string(
    "statistics",
    None,
    "from-torch: statistics that standardise the inputs: bigearthnet_v1, bigearthnet_v2 or "
    "MEAN_VH,MEAN_VV,STD_VH,STD_VV in dB (default: known for published files)",
    flag_values=FLAGS,
)
BANDS = flags.DEFINE_list(
    "bands",
    None,
    "from-torch: bands of the inputs in their order, such as VV (default: those that a file of "
    "this project names, else VH,VV)",
    flag_values=FLAGS,
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "from-torch: resize to this input side in pixels", 1, flag_values=FLAGS
)
DECODER_NUM_HEADS = flags.DEFINE_integer(
    "decoder_num_heads",
    None,
    "from-torch: attention heads of the decoder, for a model of no published size",
    1,
    flag_values=FLAGS,
)
ENCODER_ONLY = flags.DEFINE_boolean(
    "encoder_only", False, "from-torch: leave out decoder or head", flag_values=FLAGS
)
OPTIMIZER = flags.DEFINE_boolean(
    "optimizer", True, "from-torch: convert the optimizer state if there is one", flag_values=FLAGS
)
WEIGHTS = flags.DEFINE_string(
    "weights",
    "model",
    "from-torch: model, or model_ema: the moving average of the weights",
    flag_values=FLAGS,
)
IGNORE_UNEXPECTED = flags.DEFINE_list(
    "ignore_unexpected",
    [],
    'from-torch: tensors of the file to leave out, such as "teacher.*,queue"',
    flag_values=FLAGS,
)
TILING = flags.DEFINE_string(
    "tiling",
    None,
    "from-torch, flood detector: released (as the published code) or spatial",
    flag_values=FLAGS,
)
POOLING = flags.DEFINE_string(
    "pooling", None, "from-torch, flood detector: mean or max", flag_values=FLAGS
)
OUT = flags.DEFINE_string(
    "out", None, "to-torch: .pth or .safetensors file to write", flag_values=FLAGS
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "best",
    "to-torch: best, latest, a step or the path of a checkpoint",
    flag_values=FLAGS,
)
REQUIRE_PUBLISHED_SEMANTICS = flags.DEFINE_boolean(
    "require_published_semantics",
    False,
    "to-torch: refuse a model for which the published class computes other outputs",
    flag_values=FLAGS,
)


def import_file(path: Path) -> str:
    """Convert a PyTorch file and return a description of the checkpoint."""
    check_given({"workdir": "runs/NAME"}, FLAGS)
    options = ImportOptions(
        statistics=STATISTICS.value,
        image_size=IMAGE_SIZE.value,
        bands=None if BANDS.value is None else tuple(name.strip() for name in BANDS.value),
        decoder_num_heads=DECODER_NUM_HEADS.value,
        encoder_only=ENCODER_ONLY.value,
        optimizer=OPTIMIZER.value,
        weights=WEIGHTS.value,
        ignore_unexpected=tuple(IGNORE_UNEXPECTED.value),
        tiling=TILING.value,
        pooling=POOLING.value,
    )
    result = from_torch(path, check_local_path("--workdir", WORKDIR.value), options)
    arch = result.model.arch
    optimizer = ""
    if result.steps is not None:
        optimizer = (
            f"; optimizer after {result.steps:,} steps, "
            f"last learning rate {result.learning_rate:.3g}"
        )
    return (
        f"{result.checkpoint}: {result.model.variant} ({result.model.kind}), "
        f"width {arch.embed_dim}, depths {arch.depths}, {arch.image_size} px{optimizer}"
    )


def export_file(path: Path) -> str:
    """Convert a checkpoint of a run and return a description of the PyTorch file."""
    check_given({"out": "FILE.pth"}, FLAGS)
    out = check_local_path("--out", OUT.value)
    workdir, checkpoint = common.locate_checkpoint(str(path), CHECKPOINT.value)
    result = to_torch(
        workdir,
        out,
        checkpoint,
        require_published_semantics=REQUIRE_PUBLISHED_SEMANTICS.value,
    )
    return (
        f"{out}: {result.tensors} tensors of {result.model.variant} ({result.model.kind}), "
        f"{result.checkpoint}"
    )


DIRECTIONS: dict[str, Callable[[Path], str]] = {"from-torch": import_file, "to-torch": export_file}


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Convert as the command line says, and print what was written."""
    arguments = parse_flags(argv, FLAGS, __doc__, operands=None)
    common.configure_logging()
    jax.config.update("jax_platforms", "cpu")  # no computation: leave accelerators to others
    if len(arguments) != 2:
        raise InputError(
            f"found {len(arguments)} arguments, expected two: from-torch CHECKPOINT.pth, or "
            "to-torch WORKDIR"
        )
    direction, path = arguments
    print(look_up(DIRECTIONS, direction, "direction")(Path(path)))


if __name__ == "__main__":
    main(sys.argv)
