"""Export of a checkpoint to a file that the published PyTorch models load with `strict=True`."""

from pathlib import Path
from typing import NamedTuple

from absl import logging
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.torch_interop import tensor_files
from sar_mixmae_jax.torch_interop.infer_architecture import InferredModel, expected_shapes
from sar_mixmae_jax.torch_interop.name_mapping import make_buffers, torch_layout, torch_name
from sar_mixmae_jax.torch_interop.tensor_metadata import (
    TensorFileMetadata,
    metadata_from_text,
    metadata_to_text,
)
from sar_mixmae_jax.training import checkpoint
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.source_checkpoint import SourceCheckpoint, read_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import check_writable

KNN_MEMORY = "params/head/features"
"""Array that only checkpoints with a nearest-neighbour head have."""


PUBLISHED_TILING = "released"
"""Tiling that the published flood detector computes."""


class ExportResult(NamedTuple):
    """Result of `to_torch`.

    Attributes:
      checkpoint: folder that was read.
      model: that was written.
      tensors: number of tensors in the file.
    """

    checkpoint: Path
    model: InferredModel
    tensors: int


def to_torch(
    workdir: Path, out: Path, which: str = "best", *, require_published_semantics: bool = False
) -> ExportResult:
    """Write the model of a checkpoint to a PyTorch file.

    Buffers (position embeddings, relative position indices) are computed, since they are not
    stored with a checkpoint.

    Args:
      workdir: working directory of a run, or of a conversion.
      out: a .pth or .safetensors file.
      which: "best", "latest" or a step.
      require_published_semantics: refuse a model for which the published class computes other
        outputs, instead of a warning.

    Raises:
      InputError: the checkpoint or the file cannot be used; an existing file is kept.
    """
    tensor_files.check_suffix(out)
    check_writable(out, "--out")
    path = checkpoint.select_step(workdir, which)
    try:
        source_checkpoint = read_source_checkpoint(path)
        model = exported_model(source_checkpoint)
        params = read_subtree(path, {"params": expected_shapes(model)})["params"]
        metadata = exported_metadata(source_checkpoint, model)
        text = metadata_to_text(metadata)
        if metadata_from_text(text) is None:
            raise ValueError("the metadata of the model are inconsistent")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise InputError(
            f"{path} cannot be converted ({first_line(error)}): choose another --checkpoint"
        ) from error
    for caveat in metadata.caveats:
        if require_published_semantics:
            raise InputError(f"{path} {caveat}: leave out --require_published_semantics")
        logging.warning("%s %s", path, caveat)
    tensors = {
        torch_name(name): torch_layout(name, array, model.arch)
        for name, array in flatten_dict(params, sep="/").items()
    }
    tensors |= make_buffers(model.arch, decoder=model.has_decoder)
    tensor_files.write_tensor_file(out, tensors, text)
    return ExportResult(path, model, len(tensors))


def exported_model(source_checkpoint: SourceCheckpoint) -> InferredModel:
    """Return the model of a checkpoint.

    Args:
      source_checkpoint: the same, as its encoder is described.

    Raises:
      InputError: it has no counterpart in PyTorch.
    """
    model = source_checkpoint.metadata.model
    objective = source_checkpoint.metadata.config.get("objective", "mixmae")
    if source_checkpoint.has_decoder and objective != "mixmae":
        raise InputError(
            f"{source_checkpoint.path} was pretrained by {objective}, whose decoder has no "
            "counterpart in the published models: convert a model that was fine-tuned from it"
        )
    if model.task and get_task(model.task).labels_per_pixel:
        raise InputError(
            f"{source_checkpoint.path} is a model of {model.task}, whose decoder the published "
            "models lack: choose a run of task=classification, flood or linear_probe"
        )
    if KNN_MEMORY in source_checkpoint.metadata.arrays:
        raise InputError(
            f"{source_checkpoint.path} has a nearest-neighbour head, which the published models "
            "lack: choose a run of task=classification, flood or linear_probe"
        )
    if source_checkpoint.has_decoder:
        return InferredModel("pretraining", source_checkpoint.variant, source_checkpoint.arch, 0)
    task, outputs = model.task, len(model.classes) if model.task else 0
    return InferredModel(
        task or "encoder", source_checkpoint.variant, source_checkpoint.arch, outputs
    )


def exported_metadata(
    source_checkpoint: SourceCheckpoint, model: InferredModel
) -> TensorFileMetadata:
    """Return what is stored beside the tensors.

    Args:
      source_checkpoint: checkpoint of the model.
      model: of `exported_model`.
    """
    config = source_checkpoint.metadata.config
    tiling = config.get("tiling", "spatial")
    caveats: tuple[str, ...] = ()
    if model.kind == "flood" and tiling != PUBLISHED_TILING:
        caveats += (
            f"was trained with tiling={tiling}: the published class loads it without an error and "
            "returns other logits, since each of its tiles combines two neighbouring tiles of one "
            "band",
        )
    if source_checkpoint.bands != BANDS:
        caveats += (
            f"expects the bands {', '.join(source_checkpoint.bands)}: the published class loads it "
            f"only with as many input channels, and its own models expect {', '.join(BANDS)}",
        )
    speckle = source_checkpoint.input_filter
    if speckle.filters_input:
        caveats += (
            f"was trained on inputs with reduced speckle ({speckle.filter}, window "
            f"{speckle.window}, {speckle.looks:g} looks): the published code does not filter",
        )
    return TensorFileMetadata(
        statistics=source_checkpoint.statistics,
        task=model.kind if model.outputs else None,
        classes=source_checkpoint.metadata.model.classes,
        decoder_num_heads=model.arch.decoder_num_heads if model.has_decoder else None,
        tiling=tiling,
        pooling=config.get("pooling", "mean"),
        dataset=source_checkpoint.metadata.dataset.name,
        weighting=source_checkpoint.metadata.model.weighting,
        caveats=caveats,
        speckle=speckle if speckle.filters_input else None,
        bands=source_checkpoint.bands,
    )
