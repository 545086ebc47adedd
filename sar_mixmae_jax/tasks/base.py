"""The interface of a downstream task: records, model, loss and log; the rest is `task_report`."""

import abc
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.evaluation.metrics import Metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.heads import DownstreamModel
from sar_mixmae_jax.tasks.task_report import TaskReport


class LabelUnits(NamedTuple):
    """Units that are labelled as a whole when a fraction of the labels is drawn.

    Attributes:
      labels: (units, classes) 1 where a unit has a class, by which it is drawn.
      unit_of_record: (records,) int, row of `labels`.
      present: (units, classes) 1 where a record of the unit has a class; None: as `labels`.
    """

    labels: np.ndarray
    unit_of_record: np.ndarray
    present: np.ndarray | None = None


class Task(TaskReport):
    """A downstream task.

    A subclass lives in one module of this package and is registered with
    `registry.register_task`. Instances are hashable and equal where they are of one class and have
    the same `settings`, so that a task can be part of a jit cache key. The registered instance has
    the default settings; `configure` and `for_dataset` return others.

    Labels of a batch are (batch,) for one class a record, (batch, classes) for several, or
    (batch, height, width) per pixel (`labels_per_pixel`). `record_outputs` reduces what is per
    pixel to results of whole records, from which the metrics are computed.

    Attributes:
      recipe: fields of the configuration that only this task has or whose defaults differ, nested.
      settings: hashable values from the configuration and the dataset.
      images: names of the fields of a record that are images, one for each date.
      optional_fields: names of further fields of the records that are read where they exist.
      labels_per_pixel: whether labels are (height, width), aligned with the images; they are then
        resized and flipped with them.
      cuts_tiles: whether images are cut into inputs of the encoder, instead of resized to one.
      train_batch_size: default of `config.batch_size`, records of all devices.
      eval_batch_size: records in a batch for inference.
      extra_arrays: names of outputs that are saved as NAME.npz beside a report.
      record_arrays: names of outputs that become `Predictions.arrays`, where they exist.
    """

    recipe: ClassVar[Mapping[str, Any]] = {}
    settings: Hashable = None
    images: ClassVar[tuple[str, ...]] = ("backscatter",)
    optional_fields: ClassVar[tuple[str, ...]] = ()
    labels_per_pixel: ClassVar[bool] = False
    cuts_tiles: ClassVar[bool] = False
    train_batch_size: ClassVar[int] = 1024
    eval_batch_size: ClassVar[int] = 256
    extra_arrays: ClassVar[tuple[str, ...]] = ()
    record_arrays: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        return (
            type(self) is type(other)
            and isinstance(other, Task)
            and self.settings == other.settings
        )

    def __hash__(self) -> int:
        return hash((type(self), self.settings))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.settings is None else self.settings})"

    # ---- settings

    def configure(self, config: Mapping[str, Any]) -> Self:
        """Return this task with the settings of a run.

        Args:
          config: with the fields of `recipe`.

        Raises:
          InputError: a field cannot be used.
        """
        del config
        return self

    def for_dataset(self, dataset: PatchDataset) -> Self:
        """Return this task with the settings that depend on the dataset.

        Raises:
          InputError: the dataset has no labels for this task.
        """
        del dataset
        return self

    def for_other_dataset(self, dataset: PatchDataset) -> Self:
        """Return this task for `for_dataset` of a dataset that the run was not configured for."""
        del dataset
        return self

    @property
    def label_field(self) -> str:
        """Name of the field of a record that holds its labels."""
        return "labels"

    @property
    def record_noun(self) -> str:
        """Name of the records in messages: "pairs" of dates, or "records"."""
        return "pairs" if len(self.images) == 2 else "records"

    # ---- records

    def matches(self, dataset: PatchDataset) -> bool:
        """Return whether this is the task of a dataset when the configuration names none."""
        del dataset
        return False

    def load_records(self, dataset: PatchDataset) -> PatchDataset:
        """Return the dataset with the records of this task as its source.

        Raises:
          InputError: the dataset has none.
        """
        return dataset

    @abc.abstractmethod
    def class_names(self, dataset: PatchDataset) -> tuple[str, ...]:
        """Return the names of the classes, in the order of the logits.

        Raises:
          InputError: the dataset has no labels for this task.
        """

    def columns(self, dataset: PatchDataset, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is known of each record, (records,) by name.

        Args:
          dataset: as opened, before `load_records`.
          ids: (patches,) str, ids of its records.

        Returns:
          Columns of `Predictions`; "group" numbers or names what is statistically independent. By
          default the acquisition of a patch, since patches of one acquisition are alike.
        """
        if not dataset.location_fields:
            return {"group": ids}
        return {"group": np.array([name.rsplit("_", dataset.location_fields)[0] for name in ids])}

    def record_ids(self, ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the ids of the records of this task, (records,) str.

        Args:
          ids: (patches,) str, ids of the records of the dataset.
          columns: of `columns`.
        """
        del columns
        return ids

    @abc.abstractmethod
    def label_units(self, dataset: PatchDataset) -> LabelUnits:
        """Return the units that `label_fraction` draws, such as sequences, and their labels."""

    # ---- model and loss

    def input_size(self, arch: Architecture, dataset: PatchDataset) -> int:
        """Return the side in pixels to which images are resized before the model.

        Raises:
          InputError: the images do not fit the model.
        """
        del dataset
        return arch.image_size

    @abc.abstractmethod
    def make_model(
        self, arch: Architecture, outputs: int, config: Mapping[str, Any], **settings: Any
    ) -> DownstreamModel:
        """Return the untrained model.

        Args:
          arch: architecture of the encoder.
          outputs: number of logits.
          config: the configuration of the run, for fields that only this task has.
          **settings: the other attributes of `DownstreamModel`.
        """

    def masks_common_nodata(self, model: DownstreamModel) -> bool:
        """Return whether pixels without data on one date become nodata on all dates."""
        del model
        return True

    @abc.abstractmethod
    def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the loss of each record, (batch,).

        Args:
          logits: (batch, …, classes) float32.
          labels: (batch, …) as the task has them, or pooled.
        """

    def pool_logits(self, logits: jax.Array) -> jax.Array:
        """Return logits of whole records, (batch, classes)."""
        return logits

    def pool_labels(self, labels: jax.Array) -> jax.Array:
        """Return labels of whole records, (batch,) if `exclusive`, else (batch, classes)."""
        return labels

    def record_outputs(
        self, logits: jax.Array, labels: jax.Array, valid: jax.Array
    ) -> dict[str, jax.Array]:
        """Return results of whole records, (batch, …) by name, among them "logits" and "labels".

        Args:
          logits: (batch, …, classes) float32, of the model.
          labels: (batch, …) as the task has them, aligned with the images.
          valid: (batch, height, width) bool, True where all bands of all dates were measured.
        """
        del valid
        return {"logits": self.pool_logits(logits), "labels": self.pool_labels(labels)}

    def extra_outputs(
        self, model: DownstreamModel, params: Any, images: list[jax.Array]
    ) -> dict[str, jax.Array]:
        """Return further arrays of a prediction, (batch, …) by a name of `extra_arrays`."""
        del model, params, images
        return {}

    def baselines(
        self, dataset: PatchDataset, training: Callable[[], tuple[PatchDataset, str]]
    ) -> dict[str, np.ndarray]:
        """Return results of records without a model, (records, …) by a name of `record_arrays`.

        Args:
          dataset: records of this task to evaluate.
          training: opens the records that the model was trained on, and names their labels.
        """
        del dataset, training
        return {}

    # ---- metrics

    def scored_records(self, predictions: Predictions, metrics: Metrics) -> str:
        """Return the number of records that `scores` rest on, in words."""
        del metrics
        return f"{len(predictions.ids)} {self.record_noun}"

    def validation_scalars(self, predictions: Predictions, metrics: Metrics) -> dict[str, float]:
        """Return the mean loss and the defined scores, as logged: "validation/NAME".

        Args:
          predictions: predictions of the validation split.
          metrics: of `metrics`.
        """
        losses = self.loss(jnp.asarray(predictions.logits), jnp.asarray(predictions.labels))
        values = {"loss": float(np.mean(losses)), **self.scores(metrics)}
        return {f"validation/{name}": value for name, value in values.items() if value is not None}


def mean_per_record(values: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Return the mean over all axes but the first, (batch,).

    Args:
      values: (batch, …).
      valid: (batch, …) bool, the values that count; None: all.
    """
    axes = tuple(range(1, values.ndim))
    if valid is None:
        return values.mean(axes) if axes else values
    count = jnp.maximum(valid.sum(axes), 1)
    return jnp.where(valid, values, 0.0).sum(axes) / count
