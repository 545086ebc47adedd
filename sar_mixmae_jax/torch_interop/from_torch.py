"""Import of a PyTorch file as an ordinary checkpoint of this project."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from sar_mixmae_jax.data.bigearthnet import CLASSES_19
from sar_mixmae_jax.models.heads import POOLINGS, TILINGS
from sar_mixmae_jax.models.resize import resize_position_tables
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.torch_interop import published_checkpoints, tensor_files
from sar_mixmae_jax.torch_interop.converted_run import (
    check_empty,
    describe_conversion,
    downstream_config,
    initial_state,
    write_run,
)
from sar_mixmae_jax.torch_interop.infer_architecture import (
    MAX_IMAGE_SIZE,
    InferredModel,
    check_tensors,
    expected_shapes,
    infer_model,
)
from sar_mixmae_jax.torch_interop.name_mapping import (
    TOLERANCE,
    TOLERANCE_16_BIT,
    check_buffers,
    make_buffers,
    tree_from,
)
from sar_mixmae_jax.torch_interop.optimizer_state import AdamMoments, read_moments
from sar_mixmae_jax.torch_interop.tensor_files import WEIGHTS, Selection, TensorFile
from sar_mixmae_jax.torch_interop.tensor_metadata import TensorFileMetadata, metadata_from_text
from sar_mixmae_jax.training.source_checkpoint import encoder_param_shapes, resize_architecture
from sar_mixmae_jax.utils.errors import InputError, check_name

PUBLISHED_CLASSES: dict[str, Sequence[str]] = {"classification": CLASSES_19}
"""Classes of the published models in the order of their outputs, where the task defines none."""


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of a conversion from PyTorch.

    Attributes:
      statistics: see `published_checkpoints.choose_statistics`.
      image_size: int, input side to which the encoder is resized, pixels; None: that of the file.
      bands: names of the inputs, in order; None: those of the file's metadata, else VH, VV.
      decoder_num_heads: see `infer_architecture.infer_model`.
      encoder_only: bool, leave out decoder, head and optimizer.
      optimizer: bool, convert the state of the optimizer if there is one.
      weights: str, a key of `tensor_files.WEIGHTS`.
      ignore_unexpected: names or patterns of tensors of the file that are left out.
      tiling: str, of a flood detector; None: that of the file's metadata, else "released".
      pooling: str, of a flood detector; None: that of the file's metadata, else "mean".
    """

    statistics: str | None = None
    image_size: int | None = None
    bands: tuple[str, ...] | None = None
    decoder_num_heads: int | None = None
    encoder_only: bool = False
    optimizer: bool = True
    weights: str = "model"
    ignore_unexpected: tuple[str, ...] = ()
    tiling: str | None = None
    pooling: str | None = None

    def check(self) -> None:
        """Check the names.

        Raises:
          InputError: one is unknown; lists the known ones.
        """
        check_name(WEIGHTS, self.weights, "--weights")
        if self.tiling is not None:
            check_name(TILINGS, self.tiling, "--tiling")
        if self.pooling is not None:
            check_name(POOLINGS, self.pooling, "--pooling")


class ImportResult(NamedTuple):
    """Result of `from_torch`.

    Attributes:
      checkpoint: folder that was written.
      model: that the file held.
      steps: steps that the optimizer had taken; None without an optimizer.
      learning_rate: learning rate of the last step; None without an optimizer.
    """

    checkpoint: Path
    model: InferredModel
    steps: int | None
    learning_rate: float | None


class ConvertedModel(NamedTuple):
    """A model in the form of this project.

    Attributes:
      model: kind, variant and architecture.
      classes: names of its outputs.
      params: its parameters.
      moments: state of its optimizer; None without one.
    """

    model: InferredModel
    classes: Sequence[str]
    params: Any
    moments: AdamMoments | None


def from_torch(path: Path, workdir: Path, options: ImportOptions) -> ImportResult:
    """Write a checkpoint with the model of a PyTorch file.

    Args:
      path: a .pth or .safetensors file.
      workdir: new or empty folder for the checkpoint.
      options: for what the file does not say.

    Raises:
      InputError: the file, the folder or an option cannot be used; no partial output is left.
    """
    workdir = workdir.absolute()
    check_empty(workdir)
    options.check()
    sha256 = published_checkpoints.file_digest(path)
    published = published_checkpoints.identify_file(path, sha256)
    file = tensor_files.read_tensor_file(
        path, Selection(options.weights, options.ignore_unexpected)
    )
    try:
        metadata = metadata_from_text(file.metadata)
        converted = convert_model(file, metadata, options, path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    model, classes, params, moments = converted
    bands = input_bands(options, metadata)
    statistics = published_checkpoints.choose_statistics(
        options.statistics, published, metadata.statistics if metadata else None, bands
    )
    config: dict[str, Any] = {"seed": 0}
    if model.outputs:
        config = downstream_config(
            model.kind,
            path.name,
            published,
            tiling=options.tiling or (metadata.tiling if metadata else "released"),
            pooling=options.pooling or (metadata.pooling if metadata else "mean"),
        )
    file_facts: dict[str, Any] = {"file": path.name, "sha256": sha256, "epoch": file.epoch}
    if options.weights != "model":
        file_facts["weights"] = options.weights
    if file.ignored:
        file_facts["ignored"] = list(file.ignored)
    description = describe_conversion(
        model,
        classes,
        bands,
        statistics,
        metadata,
        published,
        file_facts,
        config,
    )
    steps, rate = (moments.steps, moments.rate) if moments else (None, None)
    state = initial_state(params, moments)
    del file, converted, params, moments  # free their memory before the checkpoint is written
    return ImportResult(write_run(workdir, state, description), model, steps, rate)


def input_bands(options: ImportOptions, metadata: TensorFileMetadata | None) -> tuple[str, ...]:
    """Return the names of the bands of a file; see `published_checkpoints.choose_bands`."""
    return published_checkpoints.choose_bands(options.bands, metadata.bands if metadata else None)


def convert_model(
    file: TensorFile, metadata: TensorFileMetadata | None, options: ImportOptions, path: Path
) -> ConvertedModel:
    """Identify, check and convert the tensors of a file.

    Args:
      file: its content.
      metadata: its metadata, if it is a file of this project.
      options: options of the import.
      path: path of the file, for messages.

    Raises:
      InputError: the tensors are not those of a model that this project has.
    """
    heads = metadata.decoder_num_heads if metadata else None
    if None not in (heads, options.decoder_num_heads) and heads != options.decoder_num_heads:
        raise InputError(
            f"--decoder_num_heads is {options.decoder_num_heads}, and the metadata of the file "
            f"have {heads}: leave the flag out"
        )
    tolerance = TOLERANCE_16_BIT if file.has_16_bit_floats else TOLERANCE
    if file.has_16_bit_floats:
        logging.warning("the file has floats of 16 bits: they are converted to float32")
    model = infer_model(
        file.tensors,
        bands=input_bands(options, metadata),
        decoder_num_heads=options.decoder_num_heads or heads,
        encoder_only=options.encoder_only,
        task=metadata.task if metadata else None,
        tolerance=tolerance,
    )
    shapes = expected_shapes(model)
    buffers = make_buffers(model.arch, decoder=model.has_decoder)
    check_tensors(file.tensors, shapes, model, buffers, encoder_only=options.encoder_only)
    check_buffers(file.tensors, buffers, tolerance)
    classes = class_names(model, metadata)
    params = tree_from(file.tensors, shapes, model.arch)
    if options.image_size not in (None, model.arch.image_size):
        return resize_model(
            ConvertedModel(model, classes, params, None), int(options.image_size or 0)
        )
    moments = None
    if file.optimizer is not None and options.optimizer and model.has_decoder:
        moments = read_moments(file.optimizer, shapes, model.arch, path)
    return ConvertedModel(model, classes, params, moments)


def class_names(model: InferredModel, metadata: TensorFileMetadata | None) -> Sequence[str]:
    """Return the names of the outputs: of the metadata, of the task, or of the published models.

    Raises:
      InputError: their number is not that of the outputs, or the task defines other ones.
    """
    if not model.outputs:
        return ()
    fixed = get_task(model.kind).fixed_classes
    classes = fixed or PUBLISHED_CLASSES.get(model.kind, ())
    if metadata and metadata.task:
        classes = metadata.classes
    if len(classes) != model.outputs or fixed not in ((), tuple(classes)):
        raise InputError(
            f"the head has {model.outputs} outputs, and {model.kind} has {len(classes)} class "
            "names: --encoder_only converts the encoder without it"
        )
    return classes


def resize_model(converted: ConvertedModel, image_size: int) -> ConvertedModel:
    """Return the model at another input size, without its optimizer.

    Raises:
      InputError: it cannot have this size.
    """
    if image_size > MAX_IMAGE_SIZE:
        raise InputError(f"--image_size is {image_size}: expected at most {MAX_IMAGE_SIZE}")
    arch = resize_architecture(converted.model.arch, image_size)
    encoder = resize_position_tables(converted.params["encoder"], encoder_param_shapes(arch))
    return ConvertedModel(
        converted.model._replace(arch=arch),
        converted.classes,
        {**converted.params, "encoder": encoder},
        None,
    )
