"""Flood detection from pairs of images: is the second of two dates flooded?"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
import optax
from absl import logging

from sar_mixmae_jax.data.date_pairs import PairSource, pair_ids
from sar_mixmae_jax.data.metadata import open_builder, read_dataset_metadata
from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.evaluation.bootstrap import BinaryProblem, make_binary_problem
from sar_mixmae_jax.evaluation.metrics import Metrics, SummaryMetrics
from sar_mixmae_jax.evaluation.predictions import Predictions, refuse_rows
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.heads import DownstreamModel, FloodDetector, check_tiles
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks import flood_metrics, flood_report
from sar_mixmae_jax.tasks.base import LabelUnits, Task, mean_per_record
from sar_mixmae_jax.tasks.flood_panels import OUTCOMES, PairPicture
from sar_mixmae_jax.tasks.registry import register_task
from sar_mixmae_jax.tasks.task_dataset import load_task_dataset
from sar_mixmae_jax.tasks.task_report import Figures, Path, Pictures
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import Lines

DATES = ("before", "after")
EVIDENCE = "evidence"


@register_task
class Flood(Task):
    """Detection of floods from two dates."""

    name = "flood"
    cuts_tiles = True
    images = DATES
    exclusive = True
    fixed_classes = ("dry", "flood")
    required_columns = (*DATES, "sequence")
    train_batch_size = 64  # pairs of 512 px have 32 tiles
    eval_batch_size = 16
    extra_arrays = (EVIDENCE,)
    score_names = (
        "average_precision",
        "f1",
        "precision",
        "recall",
        "balanced_accuracy",
        "accuracy",
    )
    score_titles: ClassVar = {
        "average_precision": "onset AP",
        "f1": "onset F1",
        "balanced_accuracy": "onset balanced accuracy",
    }
    captions: ClassVar = {
        "precision_recall.png": "Precision and recall at every threshold.",
        "confusion.png": "Truth and prediction; an image or a pair counts once.",
        "breakdowns.png": "Recall by flooded fraction, and predictions for hard cases, by image.",
    } | {
        flood_report.pair_figure_name(
            outcome
        ): f"Pairs, the most certain of each sequence: {title}."
        for outcome, title in OUTCOMES.items()
    }

    # ---- records

    def matches(self, dataset: PatchDataset) -> bool:
        """Return whether the dataset has pairs of dates."""
        return dataset.pairs is not None

    def load_records(self, dataset: PatchDataset) -> PatchDataset:
        """Return the dataset with its pairs as records.

        Raises:
          InputError: it has none.
        """
        if dataset.pairs is None:
            raise InputError(
                f"{dataset.name} has no pairs of dates: choose a dataset that has, such as "
                "sen12_flood or flood_pairs"
            )
        return dataclasses.replace(dataset, source=PairSource(dataset.source, dataset.pairs))

    def class_names(self, dataset: PatchDataset) -> tuple[str, ...]:
        """Return ("dry", "flood")."""
        return self.fixed_classes

    def columns(self, dataset: PatchDataset, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns of the pairs, with the ids of the images instead of their numbers."""
        assert dataset.pairs is not None
        columns = {name: column for name, column in dataset.pairs.items() if name != "flooded"}
        return columns | {date: ids[columns[date]] for date in DATES}

    def record_ids(self, ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the id of each pair: "before > after"."""
        return np.array(pair_ids(columns["before"], columns["after"]))

    def label_units(self, dataset: PatchDataset) -> LabelUnits:
        """Return sequences as units, since labelling a sequence labels all of its pairs.

        A sequence is drawn as one of the class flood if any of its pairs is flooded; most of these
        have dry pairs, too.
        """
        assert dataset.pairs is not None
        _, unit = np.unique(dataset.pairs["sequence"], return_inverse=True)
        present = np.zeros((unit.max() + 1, len(self.fixed_classes)), np.uint8)
        present[unit, dataset.pairs["flooded"]] = 1
        flooded = present[:, 1]
        return LabelUnits(np.stack([1 - flooded, flooded], axis=1), unit, present)

    # ---- model and loss

    def input_size(self, arch: Architecture, dataset: PatchDataset) -> int:
        """Return the size of the dataset: images are not resized but cut into tiles.

        Raises:
          InputError: tiles do not fill an image.
        """
        check_tiles(dataset.size, arch.image_size)
        return dataset.size

    def make_model(
        self, arch: Architecture, outputs: int, config: Mapping[str, Any], **settings: Any
    ) -> FloodDetector:
        """Return a detector with the `tiling` and `pooling` of the configuration."""
        return FloodDetector(
            arch, outputs, **settings, tiling=config["tiling"], pooling=config["pooling"]
        )

    def masks_common_nodata(self, model: DownstreamModel) -> bool:
        """Return False for `released` tiling, whose published model does not mask nodata."""
        assert isinstance(model, FloodDetector)
        return model.tiling != "released"

    def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the softmax cross-entropy."""
        return mean_per_record(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    def extra_outputs(
        self, model: DownstreamModel, params: Any, images: list[jax.Array]
    ) -> dict[str, jax.Array]:
        """Return the evidence of the tiles where the logits of an image are the mean of theirs."""
        assert isinstance(model, FloodDetector)
        if (model.tiling, model.pooling) != ("spatial", "mean") or model.votes is not None:
            return {}
        evidence = model.apply({"params": params}, *images, method="evidence")
        assert isinstance(evidence, jax.Array)
        return {EVIDENCE: evidence}

    # ---- metrics

    def check_predictions(self, predictions: Predictions) -> None:
        """Check classes, label shape, and that the columns do not contradict each other.

        Raises:
          InputError: names the column that is wrong, and the rows.
        """
        super().check_predictions(predictions)
        columns, labels = predictions.columns, predictions.labels
        for name in ("sequence", "after"):
            _, inner = np.unique(columns[name], return_inverse=True)
            group_of_value = np.full(inner.max() + 1, -1)
            group_of_value[inner[::-1]] = predictions.groups[::-1]  # that of its first row
            split = group_of_value[inner] != predictions.groups
            refuse_rows(predictions, split, f"column {name!r} has values that lie in two groups")
        onset = columns.get("onset")
        if onset is not None:
            if onset.dtype.kind != "b":
                raise InputError(f"column 'onset' is {onset.dtype}, expected bool")
            refuse_rows(predictions, onset & (labels == 0), "onset is true, but the label is dry")
        fraction = columns.get("flooded_fraction")
        if fraction is not None:
            if fraction.dtype.kind != "f":
                raise InputError(f"column 'flooded_fraction' is {fraction.dtype}, expected float")
            outside = np.asarray((fraction < 0) | (fraction > 1))
            refuse_rows(predictions, outside, "flooded_fraction is not between 0 and 1")
        case = columns.get("hard_case")
        if case is not None and case.dtype.kind != "U":
            raise InputError(f"column 'hard_case' is {case.dtype}, expected text, '' for none")
        gap = columns.get("gap_days")
        if gap is not None and gap.dtype.kind not in "iuf":
            raise InputError(f"column 'gap_days' is {gap.dtype}, expected numbers")

    def metrics(self, predictions: Predictions) -> Metrics:
        """Return the metrics of all views, and those of the days between the images alone."""
        labels, columns = predictions.labels, predictions.columns
        metrics = flood_metrics.compute_flood_metrics(predictions.probabilities, labels, columns)
        baseline = flood_metrics.temporal_gap_baseline(labels, columns, metrics["headline"])
        return metrics | {"gap_alone": baseline}

    def scores(self, metrics: Metrics) -> dict[str, float | None]:
        """Return the rates of the headline view: onset images where known, each counting once."""
        evaluation, weighting = metrics["headline"]
        rates = metrics["evaluations"][evaluation][weighting]
        return {name: rates[name] for name in self.score_names}

    def scored_records(self, predictions: Predictions, metrics: Metrics) -> str:
        """Return the numbers of images and pairs of the headline view, and of all pairs."""
        evaluation, weighting = metrics["headline"]
        values = metrics["evaluations"][evaluation][weighting]
        return (
            f"{values['images']} images in {values['rows']} of {len(predictions.ids)} pairs "
            f"({flood_metrics.NAMES[evaluation]})"
        )

    def breakdowns(self, metrics: Metrics) -> dict[str, dict[str, float | None]]:
        """Return recall and false alarms by flooded fraction and hard case, by image."""
        evaluation = metrics["evaluations"][metrics["headline"][0]]
        fractions = evaluation.get("by_flooded_fraction", {}).items()
        cases = evaluation.get("by_hard_case", {}).items()
        breakdowns = {
            "recall by flooded fraction": {name: part["recall"] for name, part in fractions},
            "recall by hard case": {name: part["recall"] for name, part in cases},
            "false alarms by hard case": {name: part["false_alarm_rate"] for name, part in cases},
        }
        return {title: parts for title, parts in breakdowns.items() if parts}

    def bootstrap_targets(self, predictions: Predictions) -> dict[Path, BinaryProblem]:
        """Return each view with its weights."""
        probabilities, labels = predictions.probabilities, predictions.labels
        groups, count = predictions.groups, predictions.number_of_groups
        problems: dict[Path, BinaryProblem] = {}
        for view in flood_metrics.views(labels, predictions.columns):
            rows = view.rows
            weights = None if (view.weights == 1).all() else view.weights
            problems[view.path] = make_binary_problem(
                probabilities[rows], labels[rows], groups[rows], count, weights
            )
        return problems

    # ---- report

    def summary_metrics(self, metrics: Metrics, intervals: Mapping[str, Any]) -> SummaryMetrics:
        """Return the headline view."""
        evaluation, weighting = metrics["headline"]
        name = f"{evaluation}, {weighting}".replace("_", " ")
        return SummaryMetrics(
            name, metrics["evaluations"][evaluation][weighting], intervals[evaluation][weighting]
        )

    def report_header(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return the headline view beside baselines without a model, and its other weightings."""
        return flood_report.report_header(metrics, intervals)

    def tables(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return the other evaluation, and breakdowns of all."""
        return flood_report.tables(metrics, intervals)

    def figures(
        self,
        predictions: Predictions,
        metrics: Metrics,
        intervals: Mapping[str, Any],
        title: str,
        pictures: Pictures | None = None,
    ) -> Figures:
        """Return curves, confusion matrices, breakdowns and examples of pairs.

        Raises:
          InputError: a picture of `pictures` cannot be drawn.
        """
        return flood_report.figures(predictions, metrics, intervals, title, pictures)

    def example_pictures(
        self, dataset: str, data_dir: str, split: str, extra: Mapping[str, np.ndarray]
    ) -> Pictures | None:
        """Return a function that reads a pair with the true water where the dataset has it.

        All bands of the dataset are shown. None where it cannot be opened.
        """
        try:
            bands = read_dataset_metadata(open_builder(dataset, data_dir).info).bands
            patches = load_task_dataset(self, dataset, data_dir, split, bands).patches
        except InputError as error:
            logging.warning("no pictures of pairs: %s", error)
            return None
        pairs, evidence = patches.pairs, extra.get(EVIDENCE)
        assert pairs is not None
        to_db, truth = TO_DB[patches.unit], None
        if "water" in patches.fields:
            truth = load_patch_dataset(dataset, data_dir, split, bands, ("id", "water")).source

        def picture(row: int) -> PairPicture:
            record = patches.source[row]
            water = None
            if truth is not None:
                was, now = (truth[int(pairs[date][row])]["water"] > 0 for date in DATES)
                water = now.astype(np.uint8) + (was & now)  # 1: new, 2: on both dates
            tiles = None if evidence is None else evidence[row]
            before, after = (np.asarray(to_db(record[date])) for date in DATES)
            return PairPicture(before, after, water, tiles, bands)

        return picture
