"""From a file of PyTorch's to an ordinary checkpoint of this project."""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import finetune
from sar_mixmae_jax import pretrained, seen
from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.checkpoint import Checkpoints, Keep, folder, steps
from sar_mixmae_jax.devices import replicate
from sar_mixmae_jax.encoders import at_input_size
from sar_mixmae_jax.errors import InputError, check_name
from sar_mixmae_jax.evaluation import KINDS
from sar_mixmae_jax.exchange import published, tensor_files
from sar_mixmae_jax.exchange.buffers import buffers, different, is_buffer
from sar_mixmae_jax.exchange.moments import Moments, moments
from sar_mixmae_jax.exchange.names import torch_shapes, tree_from
from sar_mixmae_jax.exchange.published import Published, Statistics
from sar_mixmae_jax.exchange.recognition import Recognised, recognise
from sar_mixmae_jax.exchange.tensor_files import TensorFile
from sar_mixmae_jax.files import write_arrays
from sar_mixmae_jax.heads import POOLINGS, TILINGS
from sar_mixmae_jax.mixmae import MixMAE, random_params
from sar_mixmae_jax.optimizer import Rate, adamw
from sar_mixmae_jax.provenance import describe_start, versions
from sar_mixmae_jax.resizing import resize_tables
from sar_mixmae_jax.step import TrainState
from sar_mixmae_jax.weighting import Weighting
from sar_mixmae_jax.workdir import RECORD, RunRecord, claim
from tfds_builders.bigearthnet_s1.labels import CLASSES_19

CLASSES = {"classification": CLASSES_19, "flood": KINDS["flood"].classes or ()}
"""Of the published models, in the order of their outputs."""

BUFFERS = "torch_buffers.npz"
"""In the workdir: buffers of the file that are not equal to ours bit by bit."""

NAMED = 5
"""Tensors that a message names."""


class Imported(NamedTuple):
    """What was made.

    Attributes:
      checkpoint: its folder.
      model: what the file held.
      steps: of training that its optimizer remembers; None without it.
    """

    checkpoint: Path
    model: Recognised
    steps: int | None


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a file does not say, or should be left out of it.

    Attributes:
      statistics: see `published.statistics`.
      image_size: input side to bring the encoder to; None leaves it.
      decoder_heads: see `recognition.recognise`.
      encoder_only: leave decoder, head and optimizer.
      optimizer: whether to take its state where there is one.
      tiling: of a flood detector; None: what the file says, else as the released code cuts tiles.
      pooling: likewise, else the mean.
    """

    statistics: str | None = None
    image_size: int | None = None
    decoder_heads: int | None = None
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
    check_free(workdir)
    for table, name, what in (
        (TILINGS, choices.tiling, "--tiling"),
        (POOLINGS, choices.pooling, "--pooling"),
    ):
        if name is not None:
            check_name(table, name, what)
    sha256 = published.digest(path)
    known = published.identify(path, sha256)
    file = tensor_files.read(path)
    told = note_of(file)
    try:
        found = recognise(
            file.tensors,
            decoder_heads=choices.decoder_heads or (told.decoder_heads if told else None),
            encoder_only=choices.encoder_only,
        )
        shapes = shapes_of(found)
        check_tensors(file.tensors, shapes, found)
        own = different(file.tensors, buffers(found.size, decoder=found.kind == "pretraining"))
        remembered = read_moments(file, shapes, found, choices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    statistics = published.statistics(choices.statistics, known, told.statistics if told else None)
    params = tree_from(file.tensors, shapes, found.size)
    if choices.image_size not in (None, found.size.image_size):
        found, params = resized(found, params, int(choices.image_size or 0))
        own, remembered = {}, None
    origin = {"file": path.name, "sha256": sha256, "epoch": file.epoch}
    settings = {"seed": 0}
    if found.outputs:
        settings = recipe(found.kind, path.name) | {
            "tiling": choices.tiling or (told.tiling if told else "released"),
            "pooling": choices.pooling or (told.pooling if told else "mean"),
        }
    description = describe(found, statistics, known, origin, settings)
    steps_done = remembered.steps if remembered else None
    state = replicate(state_of(params, remembered))
    del file, params, remembered  # views of the file, which is let go before anything is copied
    return Imported(save(workdir, state, description, own), found, steps_done)


def recipe(task: str, file: str) -> dict[str, Any]:
    """What evaluations read from the configuration of a tuned model: the published recipe."""
    dataset = {"flood": "sen12_flood"}.get(task, "bigearthnet_s1/v2")
    config = finetune.get_config(f"task={task},dataset={dataset}")
    config.init = file
    config.best_metric = f"validation/{KINDS[task].best}"
    return json.loads(config.to_json_best_effort())


def check_free(workdir: Path) -> None:
    """Refuses a folder in which there is something already.

    Raises:
      InputError: says what.
    """
    if steps(workdir) or (workdir / RECORD).exists():
        raise InputError(f"{workdir} holds a run already: choose another --workdir")


class Told(NamedTuple):
    """What a file of this project says of itself.

    Attributes:
      statistics: of its inputs.
      decoder_heads: of its decoder; None without one.
      tiling: of a flood detector, an entry of `TILINGS`.
      pooling: of a flood detector, an entry of `POOLINGS`.
    """

    statistics: Statistics
    decoder_heads: int | None
    tiling: str
    pooling: str


def note_of(file: TensorFile) -> Told | None:
    """What `exporting.to_torch` noted; None in files from elsewhere, or where it cannot be read."""
    try:
        note = json.loads(file.note or "")
        mean, std = (tuple(map(float, note["statistics"][name])) for name in ("mean", "std"))
        if len(mean) != len(BANDS) or len(std) != len(BANDS) or not min(std) > 0:
            return None
        if note["bands"] != list(BANDS) or not np.isfinite([*mean, *std]).all():
            return None
        heads = note["decoder_heads"]
        heads = heads if type(heads) is int and heads > 0 else None
        statistics = Statistics(mean, std, str(note["statistics"]["of"]))
        tiling, pooling = note["tiling"], note["pooling"]
        if tiling not in TILINGS or pooling not in POOLINGS:
            return None
        return Told(statistics, heads, tiling, pooling)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def shapes_of(found: Recognised) -> Any:
    """Shapes and types of the parameters of a model, by part."""
    if found.kind == "pretraining":
        return jax.eval_shape(partial(random_params, MixMAE(found.size)), jax.random.key(0))
    parts = {"encoder": pretrained.shapes(found.size)}
    if found.outputs:
        kernel = jax.ShapeDtypeStruct((found.size.features, found.outputs), np.float32)
        bias = jax.ShapeDtypeStruct((found.outputs,), np.float32)
        parts["head"] = {"kernel": kernel, "bias": bias}
    return parts


def check_tensors(tensors: dict[str, np.ndarray], shapes: Any, found: Recognised) -> None:
    """Compares the tensors of a file with those of the model that it seems to hold.

    Raises:
      InputError: names what is missing, what is too much, or what has another shape.
    """
    wanted = torch_shapes(shapes, found.size)
    parameters = {name for name in tensors if not is_buffer(name)}
    if found.kind == "encoder":
        parameters = {name for name in parameters if not name.startswith(("decoder_", "head."))}
        parameters.discard("mask_token")
    missing, unexpected = wanted.keys() - parameters, parameters - wanted.keys()
    if missing or unexpected:
        raise InputError(
            f"its tensors are not those of {found.variant} ({found.kind}): missing "
            f"{_listed(missing)}; unexpected {_listed(unexpected)}: choose another file"
        )
    for name, (_, shape) in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise InputError(
                f"{name} is {tensor.dtype}{tensor.shape}, expected float32{shape}: choose another "
                "file"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"{name} is not finite: the training diverged, choose another file")


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return (", ".join(every[:NAMED]) or "none") + more


def read_moments(
    file: TensorFile, shapes: Any, found: Recognised, choices: Choices
) -> Moments | None:
    """The state of the optimizer of a pretraining, where there is one and it is wanted.

    Raises:
      InputError: it cannot be used.
    """
    if file.optimizer is None or not choices.optimizer or found.kind != "pretraining":
        return None
    return moments(file.optimizer, file.tensors, shapes, found.size)


def resized(found: Recognised, params: Any, image_size: int) -> tuple[Recognised, Any]:
    """The model at another input size.

    Raises:
      InputError: it cannot have this size.
    """
    size = at_input_size(found.size, image_size)
    encoder = resize_tables(params["encoder"], pretrained.shapes(size))
    return found._replace(size=size), {**params, "encoder": encoder}


def state_of(params: Any, remembered: Moments | None) -> TrainState:
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
    found: Recognised,
    statistics: Statistics,
    known: Published | None,
    origin: dict[str, Any],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What is known of the model, as the checkpoints of runs have it.

    Args:
      found: the model.
      statistics: of its inputs.
      known: the published file, if it is one.
      origin: what it was converted from.
      settings: what is read from the configuration of a run.
    """
    trained_on = known.dataset if known else "not known"
    task = found.kind if found.outputs else None
    weighting = None
    if known:
        name, domain = known.weighting
        weighting = dataclasses.asdict(Weighting(name=name, domain=domain))
    model = {
        "variant": found.variant,
        "architecture": dataclasses.asdict(found.size),
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
        model |= {"task": task, "classes": list(CLASSES[task]), "pretrained": None}
    caveat = f"converted from {origin['file']}, which does not say which images it was trained on"
    description = {
        "config": {**settings, "program": "convert"},
        "dataset": {"name": trained_on, "checksum": None, "records": None, "caveats": [caveat]},
        "model": model,
    }
    return json.loads(json.dumps(description))


def save(
    workdir: Path,
    state: TrainState,
    description: dict[str, Any],
    own: dict[str, np.ndarray],
) -> Path:
    """Writes the checkpoint and the record of the run.

    Raises:
      InputError: they cannot be written; nothing is left behind.
    """
    is_new, step = not workdir.exists(), int(state.step)
    metadata = {**description, "seen": seen.UNKNOWN, "versions": versions()}
    try:
        with claim(workdir):
            check_free(workdir)
            record = RunRecord(workdir, description)
            if own:
                write_arrays(workdir / BUFFERS, own)
            with Checkpoints(workdir, Keep(1)) as checkpoints:
                checkpoints.save(step, state, metadata, {})
            record.add_start(describe_start(0))
            record.note_saved(step)
    except BaseException:
        clear(workdir, is_new)
        raise
    return folder(workdir) / str(step)


def clear(workdir: Path, is_new: bool) -> None:
    """Removes what a conversion that failed has written."""
    if is_new:
        shutil.rmtree(workdir, ignore_errors=True)
        return
    shutil.rmtree(folder(workdir), ignore_errors=True)
    for name in (BUFFERS, RECORD):
        (workdir / name).unlink(missing_ok=True)
