"""Segmentation: the class of every pixel, of one date or of the second of two."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sar_mixmae_jax.data.metadata import NOT_LABELLED, open_builder, read_dataset_metadata
from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.data.record_source import read_rows
from sar_mixmae_jax.evaluation import confusion
from sar_mixmae_jax.evaluation.bootstrap import CONFIDENCE_LEVEL, REPLICATES
from sar_mixmae_jax.evaluation.metrics import Metrics, SummaryMetrics
from sar_mixmae_jax.evaluation.predictions import Predictions, refuse_rows
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.segmenter import COMBINATIONS, Segmenter
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks import segmentation_metrics, segmentation_report
from sar_mixmae_jax.tasks.base import LabelUnits, Task
from sar_mixmae_jax.tasks.registry import register_task
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES, baseline_confusions
from sar_mixmae_jax.tasks.segmentation_metrics import BINS, PARTS
from sar_mixmae_jax.tasks.segmentation_outputs import count_pixels, pixel_loss
from sar_mixmae_jax.tasks.segmentation_report import ChipPicture
from sar_mixmae_jax.tasks.task_report import Figures, Pictures
from sar_mixmae_jax.utils.errors import InputError, check_name
from sar_mixmae_jax.utils.tables import Lines

WATER = "water"
READ_TOGETHER = 64
"""Masks that are read at a time."""


class Settings(NamedTuple):
    """Settings of a segmentation.

    Attributes:
      mask: name of the feature with the labels; "": `WATER` where there is one, else the first.
      dice: weight of the Dice loss beside the cross-entropy.
      focal: exponent of the focal weight (1 - p)^focal of a pixel; 0: all weigh the same.
    """

    mask: str = ""
    dice: float = 0.0
    focal: float = 0.0


LIMITS = {"dice": (0, 100), "focal": (0, 100), "decoder_width": (0, 4096)}
"""Smallest and largest value of a field of `config.segmentation`."""


@register_task
class Segmentation(Task):
    """Class of every pixel of an image."""

    name = "segmentation"
    recipe: ClassVar = {
        "resize_mode": "pad",  # pixels keep their size
        "crop_size": 256,
        "random_rotation": True,
        "freeze_encoder": False,
        "segmentation": {"mask": "", "decoder_width": 128, "dice": 0.0, "focal": 0.0},
        "optimizer": {"base_learning_rate": 1.6e-2},  # 1e-3 for a batch of 16
    }
    settings: Settings = Settings()
    labels_per_pixel = True
    cuts_tiles = True
    exclusive = False
    train_batch_size = 16
    eval_batch_size = 8
    extra_arrays = ("predicted", "truth")
    record_arrays = ("confusion", "unmeasured", "curve", "loss", *BASELINES)
    score_names = (*confusion.RATES, "average_precision")
    score_titles: ClassVar = {"iou": "IoU", "f1": "F1", "mean_iou": "mean IoU"}
    captions: ClassVar = segmentation_report.CAPTIONS

    # ---- settings

    @property
    def label_field(self) -> str:
        """Name of the mask."""
        return self.settings.mask

    def _with(self, **changes: Any) -> Self:
        task = type(self)()
        task.settings = self.settings._replace(**changes)
        return task

    def configure(self, config: Mapping[str, Any]) -> Self:
        """Return this task with mask and loss of `config.segmentation`.

        Raises:
          InputError: a number is out of range.
        """
        values = config["segmentation"]
        for name, (low, high) in LIMITS.items():
            if not low <= values[name] <= high:
                raise InputError(
                    f"segmentation.{name} is {values[name]}: expected from {low} to {high}"
                )
        return self._with(**{name: values[name] for name in Settings._fields})

    def for_dataset(self, dataset: PatchDataset) -> Self:
        """Return this task with the mask to learn from.

        Raises:
          InputError: the dataset has no masks, or not the wanted one.
        """
        if not dataset.masks:
            raise InputError(
                f"{dataset.name} has no masks: choose a dataset with labels per pixel, such as "
                "sen1floods11, flood_pairs or s1_folder with --masks"
            )
        mask = self.settings.mask or (
            WATER if WATER in dataset.masks else next(iter(dataset.masks))
        )
        check_name(dataset.masks, mask, "segmentation.mask")
        return self._with(mask=mask)

    def for_other_dataset(self, dataset: PatchDataset) -> Self:
        """Return this task with the mask to compare with: the one learned from, if it is there."""
        return self if self.settings.mask in dataset.masks else self._with(mask="")

    # ---- records

    def load_records(self, dataset: PatchDataset) -> PatchDataset:
        """Return the dataset with images and masks as its records, and no pairs."""
        assert dataset.read is not None
        fields = ("id", "backscatter", self.settings.mask)
        return dataclasses.replace(dataset, source=dataset.read(fields), pairs=None)

    def class_names(self, dataset: PatchDataset) -> tuple[str, ...]:
        """Return the classes of the mask."""
        return dataset.masks[self.settings.mask]

    def columns(self, dataset: PatchDataset, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return group, and event or hard case where they are known.

        Windows of a scene and the dates of a pair are one group; chips of an event are groups of
        their own, as published results resample them.
        """
        columns = super().columns(dataset, ids)
        if "event" in dataset.fields:
            columns = {"group": ids, "event": columns["group"]}
        pairs = dataset.pairs or {}
        for name in ("group", "hard_case"):
            if name in pairs:
                values = columns.get(name, np.full(len(ids), "")).astype(object)
                for date in ("before", "after"):
                    values[pairs[date]] = pairs[name]
                columns[name] = values.astype(str)
        return columns

    def label_units(self, dataset: PatchDataset) -> LabelUnits:
        """Return each record as a unit with the classes of its pixels."""
        classes = np.arange(len(dataset.masks[self.settings.mask]))
        rows = np.arange(len(dataset.source))
        parts = []
        for first in range(0, len(rows), READ_TOGETHER):
            records = read_rows(dataset.source, rows[first : first + READ_TOGETHER])
            labels = records[self.label_field]
            flat = labels.reshape(len(labels), -1, 1)
            parts.append(np.stack([(flat == number).any((1, 2)) for number in classes], axis=1))
        return LabelUnits(np.concatenate(parts).astype(np.uint8), rows)

    # ---- model and loss

    def input_size(self, arch: Architecture, dataset: PatchDataset) -> int:
        """Return the size of the images, rounded up to whole tiles."""
        return -(-dataset.size // arch.image_size) * arch.image_size

    def make_model(
        self, arch: Architecture, outputs: int, config: Mapping[str, Any], **settings: Any
    ) -> Segmenter:
        """Return a segmenter.

        Raises:
          InputError: a crop is not made of whole tiles, or the combination is unknown.
        """
        crop = config["crop_size"]
        if crop % arch.image_size:
            raise InputError(
                f"crop_size is {crop}: expected a multiple of the tiles of {arch.image_size} px "
                "(model.image_size)"
            )
        values = config["segmentation"]
        width, combine = values["decoder_width"], values.get("combine", COMBINATIONS[0])
        check_name(COMBINATIONS, combine, "segmentation.combine")
        return Segmenter(arch, outputs, **settings, decoder_width=width, combine=combine)

    def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return `segmentation_outputs.pixel_loss` with the weights of the settings."""
        return pixel_loss(logits, labels, self.settings.dice, self.settings.focal)

    def pool_logits(self, logits: jax.Array) -> jax.Array:
        """Return the mean logits of the pixels."""
        return logits.mean((1, 2))

    def record_outputs(
        self, logits: jax.Array, labels: jax.Array, valid: jax.Array
    ) -> dict[str, jax.Array]:
        """Return loss (of measured pixels), mean logits and `segmentation_outputs.count_pixels`."""
        return {
            "logits": self.pool_logits(logits),
            "loss": self.loss(logits, jnp.where(valid, labels, NOT_LABELLED)),
            **count_pixels(logits, labels, valid),
        }

    def baselines(
        self, dataset: PatchDataset, training: Callable[[], tuple[PatchDataset, str]]
    ) -> dict[str, np.ndarray]:
        """Return confusion matrices of thresholds and of a logistic regression."""
        classes = dataset.masks[self.settings.mask]
        return baseline_confusions(dataset, training, self.images, self.label_field, classes)

    # ---- metrics

    def check_predictions(self, predictions: Predictions) -> None:
        """Check the counts.

        Raises:
          InputError: counts are missing, of another shape or negative, or contradict the labels.
        """
        super().check_predictions(predictions)
        count, classes = len(predictions.ids), len(predictions.classes)
        shapes = {"confusion": (count, classes, classes), "unmeasured": (count, classes)}
        shapes |= dict.fromkeys(BASELINES, (count, classes, classes))
        if classes == 2:
            shapes["curve"] = (count, 2, BINS)
        for name, shape in shapes.items():
            array = predictions.arrays.get(name)
            if array is None and name in BASELINES:
                continue
            if array is None or array.shape != shape or array.dtype.kind not in "iu":
                found = "none" if array is None else f"{array.dtype} of shape {array.shape}"
                raise InputError(f"array {name!r}: found {found}, expected counts {shape}")
            refuse_rows(predictions, (array < 0).reshape(count, -1).any(1), f"{name} is negative")
        pixels = segmentation_metrics.labelled_pixels(predictions)
        wrong = ((pixels > 0) != (predictions.labels == 1)).any(1)
        refuse_rows(predictions, wrong, "labels are not the classes of the counted pixels")

    def metrics(self, predictions: Predictions) -> Metrics:
        """Return pooled rates, rates by class, part and record, and those of the baselines."""
        return segmentation_metrics.compute_metrics(predictions)

    def scores(self, metrics: Metrics) -> dict[str, float | None]:
        """Return the pooled rates of all labelled pixels."""
        return {name: metrics["pooled"].get(name) for name in self.score_names}

    def breakdowns(self, metrics: Metrics) -> dict[str, dict[str, float | None]]:
        """Return the IoU of every class and of the parts of the records."""
        parts = {"IoU by class": metrics["by_class"]}
        parts |= {f"IoU by {title}": metrics[f"by_{name}"] for name, title in PARTS.items()}
        return {
            title: {name: rates["iou"] for name, rates in values.items()}
            for title, values in parts.items()
            if values
        }

    def validation_scalars(self, predictions: Predictions, metrics: Metrics) -> dict[str, float]:
        """Return the mean loss of the records and the defined scores."""
        values = {"loss": float(predictions.arrays["loss"].mean()), **self.scores(metrics)}
        return {f"validation/{name}": value for name, value in values.items() if value is not None}

    def intervals(
        self, predictions: Predictions, replicates: int | None = None, seed: int = 0
    ) -> dict[str, Any]:
        """Return confidence intervals of all rates; whole groups are resampled."""
        number = replicates or REPLICATES
        values = confusion.confusion_intervals(
            segmentation_metrics.matrices(predictions), predictions.groups, number, seed
        )
        return {
            "level": CONFIDENCE_LEVEL,
            "replicates": number,
            "seed": seed,
            "groups": predictions.number_of_groups,
            "values": values,
        }

    # ---- report

    def summary_metrics(self, metrics: Metrics, intervals: Mapping[str, Any]) -> SummaryMetrics:
        """Return the rates pooled over all labelled pixels."""
        return SummaryMetrics("pooled", metrics["pooled"], intervals["pooled"])

    def report_header(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return the pooled rates beside the baselines, and what was not measured."""
        return segmentation_report.report_header(metrics, intervals)

    def tables(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return rates by class and part."""
        return segmentation_report.tables(metrics, intervals)

    def figures(
        self,
        predictions: Predictions,
        metrics: Metrics,
        intervals: Mapping[str, Any],
        title: str,
        pictures: Pictures | None = None,
    ) -> Figures:
        """Return confusion and curve, and the best, median and worst records."""
        del intervals
        return segmentation_report.figures(predictions, metrics, title, pictures)

    def example_pictures(
        self, dataset: str, data_dir: str, split: str, extra: Mapping[str, np.ndarray]
    ) -> Pictures | None:
        """Return a function that reads a record, all bands, and its maps; None without maps."""
        if any(name not in extra for name in self.extra_arrays):
            return None
        try:
            bands = read_dataset_metadata(open_builder(dataset, data_dir).info).bands
            patches = load_patch_dataset(dataset, data_dir, split, bands, units=tuple(TO_DB))
        except InputError as error:
            logging.warning("no pictures: %s", error)
            return None
        to_db, records = TO_DB[patches.unit], self._image_numbers(patches)

        def picture(row: int) -> ChipPicture:
            number = int(records[row])
            db = np.asarray(to_db(patches.source[number]["backscatter"]), np.float32)
            return ChipPicture(db, extra["truth"][row], extra["predicted"][row], bands)

        return picture

    def _image_numbers(self, dataset: PatchDataset) -> np.ndarray:
        """Return the number in the dataset of the labelled image of each record, (records,)."""
        return np.arange(len(dataset.source))
