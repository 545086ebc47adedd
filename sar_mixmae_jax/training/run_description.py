"""Description of a run: what is trained on what, in which conventions, from which weights.

It is stored in `run.json` and in the metadata of every checkpoint, and is all that is needed to
use the model elsewhere.
"""

import dataclasses
from typing import Any, Self

from sar_mixmae_jax.data.metadata import DatasetDescription, Statistics
from sar_mixmae_jax.models.architecture import Architecture, KNNConfig
from sar_mixmae_jax.objectives.speckle_filter import SpeckleFilter
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.migration import add_defaults, rename, upgrade
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.typed_json import from_json, to_json

STORED_NAMES = {"seen": "train_ids", "shares": "num_microbatches"}
"""Fields of checkpoint metadata: name in the file -> name."""

ADDED_FACTS = ("quantity", "pixel_size", "record_size")
"""Fields of `DatasetDescription` that runs of earlier versions lack."""

MAX_CHAIN = 100
"""Checkpoints that an encoder can have gone through."""


@dataclasses.dataclass(frozen=True)
class SourceDescription:
    """Checkpoint whose encoder a run began with.

    Attributes:
      checkpoint: absolute path of its folder.
      step: its step.
      dataset: name of the dataset it was trained on.
      trainer: an entry of `cli.train.TRAINERS`, or "convert".
      dataset_checksum: checksum of that dataset.
      caveats: caveats of that dataset.
      weighting: weighting of the loss; None where the loss has none.
      seed: random seed of its run.
      sha256: SHA-256 of one of its arrays, `params/encoder/norm/scale`.
      bands: names of its bands, where those of the run are others.
      init_bands: rule of `resize.BAND_RULES` by which they became those of the run.
      pretrained: the checkpoint before it, if its own encoder was pretrained.
    """

    checkpoint: str
    step: int
    dataset: str
    trainer: str | None = None
    dataset_checksum: str | None = None
    caveats: tuple[str, ...] = ()
    weighting: Weighting | None = None
    seed: int | None = None
    sha256: str | None = None
    bands: tuple[str, ...] = ()
    init_bands: str = "strict"
    pretrained: "SourceDescription | None" = None


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """A model and what it expects of its inputs.

    Attributes:
      variant: an entry of `architecture.VARIANTS`.
      architecture: its sizes.
      dtype: dtype of the computation.
      bands: names of the inputs, in order.
      unit: unit of the inputs, "dB".
      statistics: with which the inputs are standardised.
      weighting: weighting of the pretraining loss; None for other losses.
      speckle: filter of the targets, or of inputs and targets; None: none.
      task: name of the task; None in pretraining.
      classes: names of the outputs.
      votes: settings of a nearest-neighbour head.
      pretrained: checkpoint that the run began with; None: random parameters.
      converted: file of another project that the model was converted from, and its facts.
    """

    variant: str
    architecture: Architecture
    dtype: str
    bands: tuple[str, ...]
    unit: str
    statistics: Statistics
    weighting: Weighting | None = None
    speckle: SpeckleFilter | None = None
    task: str | None = None
    classes: tuple[str, ...] = ()
    votes: KNNConfig | None = None
    pretrained: SourceDescription | None = None
    converted: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.unit != "dB":
            raise ValueError(f"unit is {self.unit[:50]!r}, expected dB")
        if len(set(self.bands)) != len(self.bands) or len(self.bands) != self.architecture.bands:
            raise ValueError(
                f"bands are {str(self.bands)[:50]}, expected {self.architecture.bands} different "
                "ones"
            )
        self.statistics.check_bands(self.bands)


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """Description of a run: configuration, dataset, model and source of the weights.

    Attributes:
      config: fields of the configuration, nested as in JSON.
      dataset: the training split.
      model: what is trained.
    """

    config: dict[str, Any]
    dataset: DatasetDescription
    model: ModelDescription

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read what `to_json` returned, in this version or an earlier one.

        Args:
          content: as `json.loads` returned it.

        Raises:
          ValueError: names the field that is missing or cannot be used.
        """
        content = upgrade(from_json(dict[str, Any], content))
        if isinstance(content.get("config"), dict):
            content["config"] = add_defaults(content["config"])
        _check_model(content.get("model"))
        return from_json(cls, content)

    def to_json(self) -> dict[str, Any]:
        """Return the description as it is stored; fields that a run has no use for are left out."""
        content = to_json(self)
        for part, optional in (
            ("dataset", ("bands", "unit", "statistics", *ADDED_FACTS)),
            ("model", ("task", "classes", "votes", "converted")),
        ):
            content[part] = {
                name: value
                for name, value in content[part].items()
                if name not in optional or value not in (None, [], "")
            }
        return content


@dataclasses.dataclass(frozen=True)
class RunRecordContent(RunDescription):
    """Content of `run.json`: the description of the last start, and what became of the run.

    Attributes:
      starts: versions, devices and settings of every start, see `workdir.describe_start`.
      saved: newest step known to be on the disk.
    """

    starts: tuple[dict[str, Any], ...] = ()
    saved: int | None = None


@dataclasses.dataclass(frozen=True)
class RunOutline:
    """Parts of a `run.json` as JSON, under the current names.

    Attributes:
      config: see `RunDescription`.
      dataset: see `RunDescription`.
      starts: see `RunRecordContent`.
      model: see `RunDescription`; empty in records without one.
    """

    config: dict[str, Any]
    dataset: dict[str, Any]
    starts: tuple[dict[str, Any], ...]
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read the content of a `run.json`.

        Raises:
          ValueError: names the part that is missing or has another type.
        """
        if not isinstance(content, dict):
            raise ValueError(f"found {type(content).__name__}, expected an object")
        content = {"model": {}, **upgrade(content)}
        for part, kind in (("config", dict), ("dataset", dict), ("model", dict), ("starts", list)):
            if not isinstance(content.get(part), kind):
                raise ValueError(f"{part}: expected {kind.__name__}")
        if not all(isinstance(start, dict) for start in content["starts"]):
            raise ValueError("starts: expected a list of dict")
        return cls(
            content["config"], content["dataset"], tuple(content["starts"]), content["model"]
        )


@dataclasses.dataclass(frozen=True)
class CheckpointMetadata(RunDescription):
    """Metadata stored beside the arrays of a checkpoint.

    Attributes:
      step: steps done.
      metrics: metrics of this state, by name; NaN where one is undefined.
      arrays: SHA-256 of every array, by its path in the tree.
      train_ids: hashes of the ids that the model was trained on, see `hashing.pack_ids`.
      versions: versions of the packages.
      num_microbatches: see `RunSetup.num_microbatches`; None where nothing resumes.
      order: fields of the `ShuffleSampler`.
      next_records: first records of the next batch.
    """

    step: int
    metrics: dict[str, float]
    arrays: dict[str, str]
    train_ids: str
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    num_microbatches: int | None = None
    order: dict[str, int] | None = None
    next_records: tuple[int, ...] | None = None

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read the metadata of a checkpoint; see `RunDescription.from_json`."""
        return super().from_json(rename(from_json(dict[str, Any], content), STORED_NAMES))

    def __post_init__(self) -> None:
        try:
            hashing.count_overlap((), self.train_ids)
        except ValueError as error:
            raise ValueError(f"train_ids: {error}") from error


def encoder_title(variant: str, step: str, weighting: str, domain: str) -> str:
    """Return a pretrained encoder in words; an empty `weighting` or `domain` is left out."""
    loss = f", weighting {weighting}" if weighting else ""
    where = f" ({domain})" if weighting and domain else ""
    return f"{variant} of step {step}{loss}{where}"


def _check_model(model: Any) -> None:
    """Check what types cannot express: an architecture or weighting is not filled with defaults.

    Raises:
      ValueError: names the field.
    """
    if not isinstance(model, dict):
        return
    sizes, known = model.get("architecture"), Architecture.__dataclass_fields__
    if isinstance(sizes, dict) and (unknown := sorted(map(str, sizes.keys() - known.keys()))):
        raise ValueError(f"model.architecture.{unknown[0][:50]} is unknown")
    field, part = "model", dict[str, Any](model)
    for _ in range(MAX_CHAIN):
        weighting = part.get("weighting")
        if isinstance(weighting, dict) and "name" not in weighting:
            raise ValueError(f"{field}.weighting.name is missing")
        source = part.get("pretrained")
        if not isinstance(source, dict):
            return
        field, part = f"{field}.pretrained", source
    raise ValueError(f"model.pretrained names more than {MAX_CHAIN} checkpoints")
