"""Initialisation of a run from a checkpoint: the checkpoint, and what is taken over from it."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.resize import (
    BAND_RULES,
    check_band_rule,
)
from sar_mixmae_jax.models.swin import make_encoder
from sar_mixmae_jax.objectives.speckle_filter import NO_FILTER, SpeckleFilter
from sar_mixmae_jax.training.checkpoint import (
    checkpoint_dir,
    checkpoint_steps,
    is_checkpoint_path,
    read_metadata,
    select_step,
)
from sar_mixmae_jax.training.run_description import CheckpointMetadata, SourceDescription
from sar_mixmae_jax.training.workdir import read_run_record
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line
from sar_mixmae_jax.utils.files import local_path, stored_path
from sar_mixmae_jax.utils.typed_json import from_json

ENCODER_ARRAY = "params/encoder/norm/scale"
"""Array by whose checksum an encoder is identified."""


@dataclasses.dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint whose encoder is used.

    Attributes:
      path: folder of its step.
      metadata: its metadata.
      description: what is stored with models that begin with it.
    """

    path: Path
    metadata: CheckpointMetadata
    description: SourceDescription

    @property
    def arch(self) -> Architecture:
        """Sizes of the model."""
        return self.metadata.model.architecture

    @property
    def variant(self) -> str:
        """Name of the sizes."""
        return self.metadata.model.variant

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return self.metadata.model.bands

    @property
    def statistics(self) -> Statistics:
        """Statistics with which the inputs are standardised."""
        return self.metadata.model.statistics

    @property
    def input_filter(self) -> SpeckleFilter:
        """Speckle filter of the images that the encoder sees."""
        speckle = self.metadata.model.speckle
        return speckle if speckle is not None and speckle.filters_input else NO_FILTER

    @property
    def train_ids(self) -> str:
        """Hashes of the ids that the model was trained on, see `hashing.pack_ids`."""
        return self.metadata.train_ids

    @property
    def has_decoder(self) -> bool:
        """True if the decoder of pretraining is stored."""
        return any(name.startswith("params/decoder/") for name in self.metadata.arrays)

    @property
    def has_optimizer(self) -> bool:
        """True if the state of an optimizer is stored."""
        return any(name.startswith("opt_state/") for name in self.metadata.arrays)


def find_source_checkpoint(path: str | Path, which: str = "latest") -> SourceCheckpoint:
    """Find a checkpoint with an encoder: the newest of a run that can be read, or a given one.

    Args:
      path: a workdir, or the folder of a step in its `checkpoints`.
      which: of a workdir, see `select_step`; "latest" is the newest that can be read.

    Raises:
      InputError: there is no checkpoint, or none that can be used.
    """
    if which != "latest":
        path = select_step(local_path(path), which)
    if not str(path):
        raise InputError("found no name of a checkpoint, expected the workdir of a run")
    path = local_path(path).absolute()
    try:
        candidates = [path] if is_checkpoint_path(path) else checkpoint_steps(path)[::-1]
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise InputError(
            f"{str(path)[:100]} cannot be read ({reason}): name the workdir of a run"
        ) from error
    if not candidates:
        raise InputError(
            f"{path} holds no checkpoint (looked in {checkpoint_dir(path)}): name the workdir of a "
            "run, or the folder of one of its checkpoints"
        )
    reasons = []
    for candidate in candidates:
        try:
            return read_source_checkpoint(candidate)
        except ValueError as error:
            reasons.append(f"{candidate.name}: {first_line(error)}")
            logging.warning("%s is not used: %s", candidate, first_line(error))
    raise InputError(f"{path}: no checkpoint can be used ({'; '.join(reasons[:3])})")


@dataclasses.dataclass(frozen=True)
class _RunFields:
    """Configuration fields that describe a source."""

    trainer: str
    seed: int


def read_source_checkpoint(path: Path) -> SourceCheckpoint:
    """Read the metadata of a checkpoint, and describe it as a source of an encoder.

    Args:
      path: folder of its step.

    Raises:
      ValueError: it is damaged, or a field is missing or cannot be used.
    """
    metadata = read_metadata(path)
    if ENCODER_ARRAY not in metadata.arrays:
        raise ValueError(f"arrays holds no {ENCODER_ARRAY}")
    run = from_json(_RunFields, metadata.config)
    description = SourceDescription(
        checkpoint=stored_path(path),
        step=metadata.step,
        trainer=run.trainer,
        dataset=metadata.dataset.name,
        dataset_checksum=metadata.dataset.checksum,
        caveats=metadata.dataset.caveats,
        weighting=metadata.model.weighting,
        seed=run.seed,
        sha256=metadata.arrays[ENCODER_ARRAY],
        pretrained=metadata.model.pretrained,
    )
    return SourceCheckpoint(path, metadata, description)


def merge_train_ids(source_checkpoint: SourceCheckpoint | None, ids: Iterable[str]) -> str:
    """Return the packed hashes of ids, and of those that the source checkpoint was trained on."""
    return hashing.merge_packed_ids(source_checkpoint.train_ids if source_checkpoint else "", ids)


def change_of_bands(
    source_checkpoint: SourceCheckpoint, bands: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return the arguments of `change_encoder_bands` and `change_decoder_bands`."""
    old = source_checkpoint.bands
    return old, bands or old, source_checkpoint.description.init_bands


def with_bands(
    source_checkpoint: SourceCheckpoint | None, bands: tuple[str, ...], rule: str
) -> SourceCheckpoint | None:
    """Return the source checkpoint of a model of some bands; its description names the rule.

    Args:
      source_checkpoint: where to start from; None: nowhere.
      bands: names of the bands of the model.
      rule: an entry of `resize.BAND_RULES`.

    Raises:
      InputError: the rule is unknown, or does not allow these bands.
    """
    check_name(BAND_RULES, rule, "init_bands")
    if source_checkpoint is None or source_checkpoint.bands == bands:
        return source_checkpoint
    try:
        check_band_rule(rule, source_checkpoint.bands, bands)
    except InputError as error:
        raise InputError(f"{source_checkpoint.path} has {error}") from error
    description = dataclasses.replace(
        source_checkpoint.description, bands=source_checkpoint.bands, init_bands=rule
    )
    return dataclasses.replace(source_checkpoint, description=description)


def encoder_param_shapes(arch: Architecture) -> Any:
    """Return shapes and types of the parameters of an encoder."""
    encoder = make_encoder(arch, jnp.float32, remat="none")
    images = jax.ShapeDtypeStruct((1, arch.image_size, arch.image_size, arch.bands), np.float32)
    return jax.eval_shape(encoder.init, jax.random.key(0), images)["params"]


def resolve_source_checkpoint(config: ConfigDict, workdir: Path) -> SourceCheckpoint | None:
    """Return the checkpoint to start from, of any variant; see `resolve_encoder`.

    Raises:
      InputError: there is none.
    """
    if config.init == "random":
        return None
    record = read_run_record(workdir)
    before = record.model.pretrained if record else None
    if record and before and record.config.get("init") == config.init:
        if checkpoint_steps(workdir):
            return dataclasses.replace(find_source_checkpoint(workdir), description=before)
        if not local_path(before.checkpoint).exists():
            raise InputError(
                f"{workdir} began with {before.checkpoint}, which is gone, and saved nothing: "
                "restore it, or choose another --workdir"
            )
        return find_source_checkpoint(before.checkpoint)
    return find_source_checkpoint(config.init)


def resize_architecture(
    arch: Architecture, side: int, windows: tuple[int, ...] | None = None
) -> Architecture:
    """Return the architecture for images of another size.

    Args:
      arch: architecture of the model.
      side: side of images, pixels.
      windows: of its stages; None: they grow with the images.

    Raises:
      InputError: windows or mask units do not fit.
    """
    grown = tuple(window * side // arch.image_size for window in arch.window_sizes)
    first = arch.pretrain_image_size or arch.image_size
    return dataclasses.replace(
        arch,
        image_size=side,
        window_sizes=windows or grown,
        pretrain_image_size=None if first == side else first,
    )


def inherit_statistics(
    patches: PatchDataset, source_checkpoint: SourceCheckpoint | None
) -> PatchDataset:
    """Return a dataset with the statistics of the source checkpoint, if there is one.

    Bands that the checkpoint lacks keep the statistics of the dataset.
    """
    if source_checkpoint is None:
        return patches
    own, other, bands = patches.statistics, source_checkpoint.statistics, source_checkpoint.bands
    if patches.bands == bands:
        return dataclasses.replace(patches, statistics=other)
    rows = [bands.index(band) if band in bands else None for band in patches.bands]
    mean, std = (
        tuple(mine if row is None else its[row] for mine, row in zip(ours, rows, strict=True))
        for ours, its in ((own.mean, other.mean), (own.std, other.std))
    )
    origins = [own if row is None else other for row in rows]
    computed_on = origins[0].computed_on
    if any(origin is not origins[0] for origin in origins):
        computed_on = "; ".join(
            f"{band}: {origin.computed_on}"
            for band, origin in zip(patches.bands, origins, strict=True)
        )
    return dataclasses.replace(patches, statistics=Statistics(mean, std, computed_on))
