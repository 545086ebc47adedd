"""A task with per-pixel labels, defined in this file alone, from training to the report."""

# ruff: noqa: D102 (`Task` describes its methods)

import dataclasses
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.evaluation.bootstrap import make_binary_problem
from sar_mixmae_jax.evaluation.metrics import SummaryMetrics, binary_metrics
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.models.heads import Classifier
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.tasks import registry
from sar_mixmae_jax.tasks.base import LabelUnits, Task, mean_per_record
from sar_mixmae_jax.tasks.registry import get_task, register_task, task_names
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    prepare_batch,
    prepare_labels,
)
from sar_mixmae_jax.tasks.task_dataset import load_task_dataset, take_label_fraction
from sar_mixmae_jax.training import finetune
from sar_mixmae_jax.utils.errors import InputError
from tests.shrink import small_tuning

NAME = "bright_pixels"


class BrightSource:
    """Records whose labels are 1 where a pixel is brighter than a threshold."""

    def __init__(self, source, threshold: float) -> None:
        self._source, self._threshold = source, threshold

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        record = self._source[index]
        labels = record["backscatter"][..., 0] > self._threshold
        return {**record, "labels": labels.astype(np.uint8)}


class PixelClassifier(Classifier):
    """A linear head on each token, repeated to the pixels."""

    def __call__(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, band) -> (batch, height, width, outputs) logits."""
        logits = self.head(self.encoder(image, None, None).astype(jnp.float32))
        stride = image.shape[1] // logits.shape[1]
        return logits.repeat(stride, 1).repeat(stride, 2)


class BrightPixels(Task):
    """Pixels brighter than the mean of the dataset; bright records have a majority of them."""

    name = NAME
    labels_per_pixel = True
    exclusive = True
    fixed_classes = ("dark", "bright")
    score_names = ("accuracy", "recall")
    score_titles: ClassVar = {"accuracy": "accuracy"}

    def load_records(self, dataset):
        source = BrightSource(dataset.source, dataset.statistics.mean[0])
        return dataclasses.replace(dataset, source=source)

    def class_names(self, dataset):
        return self.fixed_classes

    def label_units(self, dataset):
        records = [dataset.source[row]["labels"] for row in range(len(dataset.source))]
        bright = np.array([labels.mean() > 0.5 for labels in records])
        return LabelUnits(np.stack([~bright, bright], 1).astype(np.uint8), np.arange(len(bright)))

    def make_model(self, arch, outputs, config, **settings):
        return PixelClassifier(arch, outputs, **settings)

    def loss(self, logits, labels):
        valid = labels >= 0
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(valid, labels, 0)
        )
        return mean_per_record(losses, valid)

    def pool_logits(self, logits):
        return logits.mean((1, 2))

    def pool_labels(self, labels):
        return (labels == 1).sum((1, 2)) > (labels == 0).sum((1, 2))

    def metrics(self, predictions):
        return {"bright": binary_metrics(predictions.probabilities, predictions.labels)}

    def scores(self, metrics):
        return {name: metrics["bright"][name] for name in self.score_names}

    def bootstrap_targets(self, predictions):
        groups, count = predictions.groups, predictions.number_of_groups
        values = predictions.probabilities, predictions.labels
        return {("bright",): make_binary_problem(*values, groups, count)}

    def summary_metrics(self, metrics, intervals):
        return SummaryMetrics("bright", metrics["bright"], intervals["bright"])

    def report_header(self, metrics, intervals):
        return [f"Accuracy {metrics['bright']['accuracy']:.3f}"]


@pytest.fixture
def task(monkeypatch) -> Task:
    """The task, registered for one test."""
    task_names()  # the modules of the package are imported before the copy
    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))
    register_task(BrightPixels)
    return get_task(NAME)


@pytest.mark.usefixtures("no_drawing")
def test_it_is_trained_and_evaluated_by_its_name(task, built, encoder_run, tmp_path):
    config = small_tuning(built, f"task={NAME},init={encoder_run}", total_steps=2)
    outcome = finetune.train(config, tmp_path / "run")
    assert outcome.finished
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert "validation/accuracy" in lines[-1] or "validation/accuracy" in lines[-2]
    files = evaluate(tmp_path / "run", out=tmp_path / "report")
    predictions = load_predictions(files["predictions.npz"])
    assert predictions.task == NAME
    split = load_task_dataset(task, "bigearthnet_s1", str(built), "test", ("VH", "VV"))
    assert predictions.ids.tolist() == split.ids.tolist()
    assert predictions.logits.shape == (2, 2)
    units = task.label_units(split.patches)
    np.testing.assert_array_equal(predictions.labels, units.labels[:, 1])
    assert "Accuracy " in files["report.md"].read_text()
    metrics = json.loads(files["metrics.json"].read_text())
    assert metrics["lead"]["of"] == "bright"
    assert metrics["intervals"]["bright"]["accuracy"]["reason"].startswith("rests on fewer")


def test_a_fraction_of_its_labels(task, built):
    whole = load_task_dataset(task, "bigearthnet_s1", str(built), "train", ("VH", "VV"))
    half = take_label_fraction(whole, 0.5, seed=0, all_classes=False)
    assert 3 <= len(half) <= 5


def objective(task: Task, built, **settings) -> tuple[FinetuneObjective, dict[str, np.ndarray]]:
    """Objective and batch of the training split, standardised by mean 0 and deviation 1."""
    split = load_task_dataset(task, "bigearthnet_s1", str(built), "train", ("VH", "VV"))
    records = [split.patches.source[row] for row in range(8)]
    batch = {name: np.stack([record[name] for record in records]) for name in records[0]}
    preprocessing = Preprocessing(128, (0.0, 0.0), (1.0, 1.0), **settings)
    del batch["id"]
    return FinetuneObjective(task, None, preprocessing), batch


def test_labels_are_padded_and_flipped_with_the_images(task, built):
    setting, batch = objective(task, built, resize_mode="pad")
    threshold = batch["backscatter"][batch["labels"] == 1][:, 0].min()
    for key in (None, jax.random.key(3)):
        (images,) = prepare_batch(batch, key, setting)
        labels = np.asarray(prepare_labels(batch["labels"], key, setting))
        assert labels.shape == (8, 128, 128)
        inside, band = labels != NOT_LABELLED, np.asarray(images[..., 0])
        assert inside.sum() == 8 * 120 * 120
        measured = inside & (band != 0)  # nodata is 0, brighter than any dB here
        assert measured.mean() > 0.5
        np.testing.assert_array_equal((band >= threshold)[measured], (labels == 1)[measured])
    flipped, plain = (prepare_labels(batch["labels"], k, setting) for k in (key, None))
    assert not np.array_equal(flipped, plain)


def test_labels_are_resized_to_the_nearest_pixel(task, built):
    setting, batch = objective(task, built, random_flip=False)
    labels = np.asarray(prepare_labels(batch["labels"], jax.random.key(0), setting))
    assert labels.shape == (8, 128, 128)
    rows = np.floor((np.arange(128) + 0.5) * 120 / 128).astype(int)
    np.testing.assert_array_equal(labels, batch["labels"][:, rows][:, :, rows])
    with pytest.raises(InputError, match=r"labels are of shape \(8,\): expected \(batch, height"):
        prepare_labels(batch["labels"][:, 0, 0], None, setting)


def test_the_loss_leaves_ignored_pixels_out(task):
    logits = np.zeros((2, 3, 3, 2), np.float32)
    logits[0, 0, 0] = (9.0, 0.0)
    labels = np.zeros((2, 3, 3), np.int32)
    labels[0, 0, 0] = 1
    assert task.loss(logits, labels)[0] > 1
    labels[0, 0, 0] = NOT_LABELLED
    np.testing.assert_allclose(task.loss(logits, labels), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(task.loss(logits[:, 1, 1], labels[:, 1, 1]), np.log(2), rtol=1e-6)


def test_tasks_are_equal_by_class_and_names_are_unique(task):
    assert task == BrightPixels() != get_task("flood")
    assert hash(task) == hash(BrightPixels())
    assert NAME in task_names()
    with pytest.raises(ValueError, match="registered twice"):
        register_task(BrightPixels)
