"""From a file of PyTorch's to an ordinary checkpoint of this project."""

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from configs import finetune
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.models.heads import POOLINGS, TILINGS
from sar_mixmae_jax.models.resize import resize_position_tables
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.torch_interop import metadata, published_checkpoints, tensor_files
from sar_mixmae_jax.torch_interop.infer_architecture import (
    LARGEST_IMAGE,
    InferredModel,
    check_tensors,
    expected_shapes,
    infer_model,
)
from sar_mixmae_jax.torch_interop.metadata import TensorFileMetadata
from sar_mixmae_jax.torch_interop.name_mapping import (
    CLOSE,
    CLOSE_IN_HALF,
    STORED_BUFFERS,
    differing_buffers,
    make_buffers,
    tree_from,
)
from sar_mixmae_jax.torch_interop.optimizer_state import AdamMoments, read_moments
from sar_mixmae_jax.torch_interop.published_checkpoints import Published, Statistics
from sar_mixmae_jax.torch_interop.tensor_files import TensorFile
from sar_mixmae_jax.training import initialisation
from sar_mixmae_jax.training.checkpoint import CheckpointManager, RetentionPolicy, checkpoint_dir
from sar_mixmae_jax.training.initialisation import resize_architecture
from sar_mixmae_jax.training.optimizer import Rate, adamw
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.workdir import RunRecord, describe_start, versions
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError, check_name
from sar_mixmae_jax.utils.files import report_write_errors, write_arrays
from tfds_builders.bigearthnet_s1.corine_classes import CLASSES_19

PUBLISHED_CLASSES: dict[str, Sequence[str]] = {
    "classification": CLASSES_19,
}
"""Of the published models whose task does not fix them, in the order of their outputs."""


class Imported(NamedTuple):
    """What was made.

    Attributes:
      checkpoint: its folder.
      model: what the file held.
      steps: of training that its optimizer remembers; None without it.
      rate: of the last one.
    """

    checkpoint: Path
    model: InferredModel
    steps: int | None
    rate: float | None


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a file does not say, or should be left out of it.

    Attributes:
      statistics: see `published.statistics`.
      image_size: input side to bring the encoder to; None leaves it.
      decoder_num_heads: see `recognition.recognise`.
      encoder_only: leave decoder, head and optimizer.
      optimizer: whether to take its state where there is one.
      tiling: of a flood detector; None: what the file says, else as the released code cuts tiles.
      pooling: likewise, else the mean.
    """

    statistics: str | None = None
    image_size: int | None = None
    decoder_num_heads: int | None = None
    encoder_only: bool = False
    optimizer: bool = True
    tiling: str | None = None
    pooling: str | None = None


def from_torch(path: Path, workdir: Path, choices: Choices) -> Imported:
    """Writes a checkpoint of a file's model.

    Args:
      path: a .pth or .safetensors file.
      workdir: where to, new or empty.
      choices: what the file does not say.

    Raises:
      InputError: the file, the folder or a choice cannot be used; nothing is left behind.
    """
    workdir = workdir.absolute()
    check_free(workdir)
    check_choices(choices)
    sha256 = published_checkpoints.file_digest(path)
    known = published_checkpoints.identify_file(path, sha256)
    file = tensor_files.read_tensor_file(path)
    try:
        told = metadata.metadata_from_text(file.note)
        made = model_of(file, told, choices, path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    statistics = published_checkpoints.published_statistics(
        choices.statistics, known, told.statistics if told else None
    )
    origin = {"file": path.name, "sha256": sha256, "epoch": file.epoch}
    settings = settings_of(made.found, known, told, choices, path.name)
    description = describe(made, statistics, known, origin, settings)
    found, own = made.found, made.own
    remembered = (made.moments.steps, made.moments.rate) if made.moments else (None, None)
    state = replicate(state_of(made.params, made.moments))
    del file, made  # the tensors of the file, which are not needed any more
    return Imported(save(workdir, state, description, own), found, *remembered)


def check_choices(choices: Choices) -> None:
    """Refuses names that are not known.

    Raises:
      InputError: lists those that are.
    """
    if choices.tiling is not None:
        check_name(TILINGS, choices.tiling, "--tiling")
    if choices.pooling is not None:
        check_name(POOLINGS, choices.pooling, "--pooling")


class Model(NamedTuple):
    """What a file holds, as it is here.

    Attributes:
      found: which model it is.
      classes: of its outputs.
      params: its parameters.
      moments: of its optimizer; None without.
      own: its buffers that are not equal to ours bit by bit.
    """

    found: InferredModel
    classes: Sequence[str]
    params: Any
    moments: AdamMoments | None
    own: dict[str, np.ndarray]


def model_of(
    file: TensorFile, told: TensorFileMetadata | None, choices: Choices, path: Path
) -> Model:
    """Recognises, checks and converts the tensors of a file.

    Raises:
      InputError: they are those of no model that there is here.
    """
    heads = told.decoder_num_heads if told else None
    if None not in (heads, choices.decoder_num_heads) and heads != choices.decoder_num_heads:
        raise InputError(
            f"--decoder_num_heads is {choices.decoder_num_heads}, and the file says {heads}: "
            "leave it out"
        )
    close = CLOSE_IN_HALF if file.halved else CLOSE
    if file.halved:
        logging.warning("the file holds floats of 16 bits: they are taken as float32")
    found = infer_model(
        file.tensors,
        decoder_num_heads=choices.decoder_num_heads or heads,
        encoder_only=choices.encoder_only,
        task=told.task if told else None,
        close=close,
    )
    shapes = expected_shapes(found)
    made = make_buffers(found.arch, decoder=found.has_decoder)
    check_tensors(file.tensors, shapes, found, made, encoder_only=choices.encoder_only)
    fixed = get_task(found.kind).fixed_classes if found.outputs else ()
    classes = fixed or PUBLISHED_CLASSES.get(found.kind, ())
    if told and told.task:
        classes = told.classes
    if found.outputs and (len(classes) != found.outputs or fixed not in ((), tuple(classes))):
        raise InputError(
            f"its head has {found.outputs} outputs, and its classes are {len(classes)}, of "
            f"{found.kind}: --encoder_only takes the encoder without it"
        )
    own = differing_buffers(file.tensors, made, close)
    params = tree_from(file.tensors, shapes, found.arch)
    if choices.image_size not in (None, found.arch.image_size):
        return resized(Model(found, classes, params, None, {}), int(choices.image_size or 0))
    remembered = None
    if file.optimizer is not None and choices.optimizer and found.has_decoder:
        remembered = read_moments(file.optimizer, file.tensors, shapes, found.arch, path)
    return Model(found, classes, params, remembered, own)


def resized(model: Model, image_size: int) -> Model:
    """The model at another input size.

    Raises:
      InputError: it cannot have this size.
    """
    if image_size > LARGEST_IMAGE:
        raise InputError(f"--image_size is {image_size}: expected at most {LARGEST_IMAGE}")
    arch = resize_architecture(model.found.arch, image_size)
    encoder = resize_position_tables(
        model.params["encoder"], initialisation.encoder_param_shapes(arch)
    )
    return model._replace(
        found=model.found._replace(arch=arch), params={**model.params, "encoder": encoder}
    )


def settings_of(
    found: InferredModel,
    known: Published | None,
    told: TensorFileMetadata | None,
    choices: Choices,
    file: str,
) -> dict[str, Any]:
    """What is read from the configuration of a run: of a tuned model, more than its seed."""
    if not found.outputs:
        return {"seed": 0}
    return recipe(found.kind, known, file) | {
        "tiling": choices.tiling or (told.tiling if told else "released"),
        "pooling": choices.pooling or (told.pooling if told else "mean"),
    }


def recipe(task: str, known: Published | None, file: str) -> dict[str, Any]:
    """What evaluations read from the configuration of a tuned model: the published recipe."""
    dataset = {"flood": "sen12_flood"}.get(task, "bigearthnet_s1/v2")
    dataset = known.built if known else dataset
    config = finetune.get_config(f"task={task},dataset={dataset}")
    config.init = file
    config.best_metric = f"validation/{get_task(task).best_score}"
    return json.loads(config.to_json_best_effort())


def check_free(workdir: Path) -> None:
    """Refuses a folder in which there is something already.

    Raises:
      InputError: says what.
    """
    with report_write_errors(workdir):
        there = sorted(path.name for path in workdir.iterdir()) if workdir.exists() else []
    if there:
        raise InputError(
            f"{workdir} is not empty (it holds {', '.join(there[:3])}): choose another --workdir"
        )


def state_of(params: Any, remembered: AdamMoments | None) -> TrainState:
    """The state of a checkpoint; without an optimizer where the file has none."""
    step, opt_state = 0, ()
    if remembered:
        step = remembered.steps
        empty = jax.eval_shape(optimizer_like().init, params)
        count = jnp.int32(step)
        opt_state = optax.tree_utils.tree_set(
            empty, mu=remembered.mean, nu=remembered.square, count=count
        )
    key = jax.random.key_data(jax.random.key(0))
    return TrainState(jnp.int32(step), params, opt_state, key)


def optimizer_like() -> optax.GradientTransformation:
    """An optimizer with the state of those that pretrain."""
    return adamw(Rate(1.0, 0.0, 0.0, 1.0), b1=0.9, b2=0.95, weight_decay=0.05)


def describe(
    made: Model,
    statistics: Statistics,
    known: Published | None,
    origin: dict[str, Any],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What is known of the model, as the checkpoints of runs have it.

    Args:
      made: the model.
      statistics: of its inputs.
      known: the published file, if it is one.
      origin: what it was converted from.
      settings: what is read from the configuration of a run.
    """
    found = made.found
    trained_on = known.dataset if known else "not known"
    task = found.kind if found.outputs else None
    weighting = None
    if known:
        name, domain = known.weighting
        weighting = dataclasses.asdict(Weighting(name=name, domain=domain))
    model = {
        "variant": found.variant,
        "architecture": dataclasses.asdict(found.arch),
        "weighting": weighting,
        "dtype": "float32",
        "bands": list(BANDS),
        "unit": "dB",
        "statistics": {
            "mean": list(statistics.mean),
            "std": list(statistics.std),
            "of": statistics.of,
        },
        "converted": origin,
    }
    if task:
        model |= {"task": task, "classes": list(made.classes), "pretrained": None}
    caveats = [f"converted from {origin['file']}, which does not say which images it has seen"]
    if known:
        caveats.append(known.caveat)
    description = {
        "config": {**settings, "trainer": "convert"},
        "dataset": {"name": trained_on, "checksum": None, "records": None, "caveats": caveats},
        "model": model,
    }
    return json.loads(json.dumps(description))


def save(
    workdir: Path,
    state: TrainState,
    description: dict[str, Any],
    own: dict[str, np.ndarray],
) -> Path:
    """Writes the checkpoint and the record of the run beside their place, then puts them there.

    Raises:
      InputError: they cannot be written; nothing is left behind.
    """
    step = int(state.step)
    metadata = {**description, "seen": hashing.INCOMPLETE, "versions": versions()}
    partial = workdir.with_name(f".{workdir.name}.{os.getpid()}.partial")
    try:
        with report_write_errors(workdir):
            partial.mkdir(parents=True)
            record = RunRecord(partial, description)
            if own:
                write_arrays(partial / STORED_BUFFERS, own)
            with CheckpointManager(partial, RetentionPolicy(1)) as checkpoints:
                checkpoints.save(step, state, metadata, {})
            record.add_start(describe_start(0))
            record.note_saved(step)
            check_free(workdir)  # somebody may have been faster
            partial.replace(workdir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return checkpoint_dir(workdir) / str(step)
