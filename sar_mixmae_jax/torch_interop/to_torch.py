"""From a checkpoint of this project to a file that PyTorch's models load with `strict=True`."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.torch_interop import tensor_files
from sar_mixmae_jax.torch_interop.infer_architecture import InferredModel, expected_shapes
from sar_mixmae_jax.torch_interop.metadata import (
    TensorFileMetadata,
    metadata_from_text,
    metadata_to_text,
)
from sar_mixmae_jax.torch_interop.name_mapping import (
    STORED_BUFFERS,
    differing_buffers,
    make_buffers,
    torch_layout,
    torch_name,
)
from sar_mixmae_jax.torch_interop.published_checkpoints import Statistics
from sar_mixmae_jax.training import checkpoint, initialisation
from sar_mixmae_jax.training.initialisation import SourceCheckpoint
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import check_writable

NEIGHBOURS = "params/head/features"


class Exported(NamedTuple):
    """What was made.

    Attributes:
      checkpoint: what of.
      model: what it holds.
      tensors: how many were written.
    """

    checkpoint: Path
    model: InferredModel
    tensors: int


def to_torch(workdir: Path, out: Path, which: str = "best") -> Exported:
    """Writes the model of a checkpoint.

    Args:
      workdir: of a run, or of a conversion.
      out: a .pth or .safetensors file.
      which: "best", "latest" or a step.

    Raises:
      InputError: the checkpoint or the file cannot be used; what was there is kept.
    """
    tensor_files.check_suffix(out)
    check_writable(out, "--out")
    path = checkpoint.select_step(workdir, which)
    try:
        metadata = checkpoint.read_metadata(path)
        found = initialisation.read_source_checkpoint(path, metadata)
        model = model_of(metadata, found)
        like = {"params": expected_shapes(model)}
        part, _ = read_subtree(path, like)
        told = metadata_to_text(note_of(found, model, metadata))
        if metadata_from_text(told) is None:
            raise ValueError("its metadata say of the model what cannot be")
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be converted ({first_line(error)}): choose another --checkpoint"
        ) from error
    tensors = {
        torch_name(name): torch_layout(name, array, model.arch)
        for name, array in flatten_dict(part["params"], sep="/").items()
    }
    made = make_buffers(model.arch, decoder=model.has_decoder)
    tensors |= made | kept_buffers(workdir, made)
    tensor_files.write_tensor_file(out, tensors, told)
    return Exported(path, model, len(tensors))


def model_of(metadata: dict[str, Any], found: SourceCheckpoint) -> InferredModel:
    """What a checkpoint holds.

    Raises:
      InputError: it has no counterpart in PyTorch.
    """
    arrays, model = metadata["arrays"], metadata["model"]
    if found.bands != BANDS:
        raise InputError(
            f"{found.path} takes the bands {', '.join(found.bands)}, and the published models "
            f"{', '.join(BANDS)} in this order: pretrain with these"
        )
    if NEIGHBOURS in arrays:
        raise InputError(
            f"{found.path} votes by neighbours, which the published models cannot: choose a run of "
            "task=classification, flood or linear_probe"
        )
    if found.has_decoder:
        return InferredModel("pretraining", found.variant, found.arch, 0)
    task = model.get("task")
    outputs = len(model["classes"]) if task else 0
    return InferredModel(task or "encoder", found.variant, found.arch, outputs)


def kept_buffers(workdir: Path, made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The buffers of the file that a conversion came from, where they differ in their last bits.

    Raises:
      InputError: they cannot be read.
    """
    path = workdir / STORED_BUFFERS
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            kept = {name: file[name] for name in file.files}
    except Exception as error:  # of NumPy and zipfile, for whatever is wrong with a file
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): remove it, and buffers are made anew"
        ) from error
    try:
        return differing_buffers(kept, made) if kept.keys() <= made.keys() else {}
    except InputError as error:
        raise InputError(f"{path}: {error}: remove it, and buffers are made anew") from error


def note_of(
    found: SourceCheckpoint, model: InferredModel, metadata: dict[str, Any]
) -> TensorFileMetadata:
    """What tensors cannot say."""
    config = metadata["config"]
    return TensorFileMetadata(
        statistics=Statistics(found.mean, found.std, found.statistics_of),
        task=model.kind if model.outputs else None,
        classes=tuple(metadata["model"].get("classes") or ()),
        decoder_num_heads=model.arch.decoder_num_heads if model.has_decoder else None,
        tiling=config.get("tiling", "spatial"),
        pooling=config.get("pooling", "mean"),
        dataset=metadata["dataset"]["name"],
    )
