"""Pretrained encoder of the comparison of events: what it may be, and how its pretraining goes on.

```
WORKDIR/encoder.json   description of the checkpoint that the comparison began with
```
"""

from pathlib import Path

from ml_collections import ConfigDict

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.tasks.task_dataset import TaskDataset
from sar_mixmae_jax.training.config import check_batch, check_numbers
from sar_mixmae_jax.training.encoder_loading import resolve_encoder
from sar_mixmae_jax.training.migration import add_defaults
from sar_mixmae_jax.training.run_description import SourceDescription
from sar_mixmae_jax.training.source_checkpoint import SourceCheckpoint
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import read_json, write_json
from sar_mixmae_jax.utils.typed_json import from_json, to_json

RECORD = "encoder.json"

KEPT_FIELDS = (
    "objective",
    "mask_ratio",
    "mask_rounding",
    "norm_pix_loss",
    "resize_mode",
    "speckle",
)
"""Fields of a pretraining with which it is continued; a converted encoder stores none of them."""


def find_encoder(run: ConfigDict, workdir: Path) -> SourceCheckpoint:
    """Find the checkpoint that a comparison began with; at the first start that of `run.init`.

    Args:
      run: run of the fine-tuning.
      workdir: working directory of the comparison.

    Raises:
      InputError: there is no checkpoint, or it is another one than before.
    """
    before = _read_record(workdir)
    run = run.copy_and_resolve_references()
    run.init = before.checkpoint if before else run.init
    source = resolve_encoder(run, workdir)
    if source is None:
        raise InputError(f"init is {run.init}: expected a run of pretraining")
    now = source.description
    if before and (before.step, before.sha256) != (now.step, now.sha256):
        raise InputError(
            f"{workdir} began with step {before.step} of SHA-256 {before.sha256}, and "
            f"{now.checkpoint} is step {now.step} of {now.sha256}: restore the checkpoint, or "
            "choose another --workdir"
        )
    return source


def _read_record(workdir: Path) -> SourceDescription | None:
    path = workdir / RECORD
    if not path.exists() and not (workdir / "predictions").exists():
        return None
    try:
        return from_json(SourceDescription, read_json(path))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}), so the encoder of the predictions is "
            "not known: restore it, or choose another --workdir"
        ) from error


def record_encoder(source: SourceCheckpoint, workdir: Path) -> None:
    """Store the description of the checkpoint, for the next start."""
    write_json(workdir / RECORD, to_json(source.description))


def check_encoder(source: SourceCheckpoint, chips: TaskDataset) -> None:
    """Refuse an encoder that was trained with labels, on the images to predict, or on their events.

    Raises:
      InputError: it is not one of pretraining, or it or a checkpoint before it was pretrained on
        some of the images, or on other images of the same dataset.
    """
    if source.metadata.model.task is not None or not source.has_decoder:
        kind = source.metadata.model.task or "a model without a decoder"
        raise InputError(
            f"{source.path} is {kind}: expected a checkpoint of pretraining as --config.init"
        )
    images = chips.image_ids()
    if seen := hashing.count_overlap(images, source.train_ids):
        raise InputError(
            f"{source.path} was pretrained on {seen} of the {len(images)} images of "
            f"{chips.patches.name}, so events are not new to it: choose another --config.init"
        )
    about: SourceDescription | None = source.description
    while about:
        if about.dataset.partition("/")[0] == chips.patches.name.partition("/")[0]:
            raise InputError(
                f"{about.checkpoint} was pretrained on {about.dataset}, which may show the events "
                f"of {chips.patches.name} on other images: choose another --config.init"
            )
        about = about.pretrained


def describe_encoder(source: SourceCheckpoint) -> str:
    """Return which checkpoint it is, as a sentence."""
    about = source.description
    known = "" if hashing.is_complete(source.train_ids) else ", which may not be all that it saw"
    return (
        f"Encoder: {about.checkpoint}, {source.variant}, step {about.step}, pretrained on "
        f"{about.dataset}{known}; SHA-256 of `encoder/norm/scale` {about.sha256}."
    )


def continued_config(
    config: ConfigDict, source: SourceCheckpoint, arch: Architecture
) -> ConfigDict:
    """Return the configuration with which a pretraining is continued.

    Args:
      config: `config.adapt` of the comparison.
      source: the encoder, whose pretraining decides on `KEPT_FIELDS`.
      arch: architecture of its model.

    Raises:
      InputError: a number is out of range.
    """
    stored = add_defaults(source.metadata.config)
    run = config.copy_and_resolve_references().unlock()
    for name in KEPT_FIELDS:
        if name in stored:
            run[name] = ConfigDict(stored[name]) if name == "speckle" else stored[name]
    run.model = ConfigDict({"image_size": arch.image_size})
    run.grad_accum_steps = 1
    check_numbers(run)
    check_batch(run, 1)
    return run.lock()
