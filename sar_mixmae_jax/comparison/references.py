"""The baselines without a network on the data of a task, with the labels that each seed had."""

from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax import baselines
from sar_mixmae_jax.comparison import darkening
from sar_mixmae_jax.comparison.stages import TEST, Metrics, flat_metrics
from sar_mixmae_jax.data import batches
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.labelled import Labelled, open_labelled, part, predictions
from sar_mixmae_jax.order import InOrder
from sar_mixmae_jax.radiometry import TO_DB
from sar_mixmae_jax.tasks import TASKS

AT_ONCE = 32

Splits = tuple[Labelled, Labelled, Labelled]
"""Of training, validation and test."""


def open_splits(config: ConfigDict, task: str, seed: int) -> Splits:
    """The splits of a task as the fine-tuning with this seed sees them."""
    recipe = config.finetune[task]

    def opened(split: str) -> Labelled:
        return open_labelled(recipe.task, recipe.dataset, config.data_dir, split, recipe.bands)

    training, validation = (
        part(opened(split), recipe.label_fraction, seed, all_classes=False)
        for split in (recipe.train_split, recipe.validation_split)
    )
    return training, validation, opened(TEST)


def measure(config: ConfigDict, task: str) -> dict[str, list[Metrics]]:
    """The metrics of every baseline of a task, by seed."""
    found: dict[str, list[Metrics]] = {}
    for seed in range(config.seeds):
        splits = open_splits(config, task, seed)
        for name, baseline in BASELINES[config.finetune[task].task].items():
            found.setdefault(name, []).append(flat_metrics(baseline(splits)))
    return found


def statistics_of_images(splits: Splits) -> Predictions:
    """Logistic regression on band statistics."""

    def read(split: Labelled) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            (baselines.statistics(batch["backscatter"]), batch["labels"]) for batch in whole(split)
        ]
        return _joined(parts, len(split))

    (x, y), (held_x, held_y), (test_x, test_y) = map(read, splits)
    model = baselines.fit(x, y, held_x, held_y)
    return said(splits[2], baselines.predict(model, test_x), test_y)


def statistics_of_changes(splits: Splits) -> Predictions:
    """Logistic regression on band statistics of both dates and of their difference."""

    def read(split: Labelled) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            (baselines.change_statistics(batch["before"], batch["after"]), batch["labels"])
            for batch in whole(split)
        ]
        return _joined(parts, len(split))

    (x, y), (held_x, held_y), (test_x, test_y) = map(read, splits)
    model = baselines.fit(x, y[:, None], held_x, held_y[:, None])
    return said(splits[2], baselines.two_classes(baselines.predict(model, test_x)), test_y)


def otsu(splits: Splits) -> Predictions:
    """The share that became as dark as water."""
    counts = np.zeros(len(darkening.EDGES) - 1, int)
    for batch in whole(splits[0]):
        flooded = batch["labels"] == 1
        counts += darkening.histogram(batch["before"][flooded], batch["after"][flooded])
    threshold = darkening.otsu(counts)

    def read(split: Labelled) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            (darkening.new_water(batch["before"], batch["after"], threshold), batch["labels"])
            for batch in whole(split)
        ]
        return _joined(parts, len(split))

    (x, y), (held_x, held_y), (test_x, test_y) = map(read, splits)
    model = darkening.fit(threshold, x, y, held_x, held_y)
    return said(splits[2], darkening.predict(model, test_x), test_y)


def prevalence(splits: Splits) -> Predictions:
    """What is said without looking: the frequency of every label in training."""
    labels = np.concatenate([batch["labels"] for batch in whole(splits[0])])[: len(splits[0])]
    share = (labels.sum(0) + 0.5) / (len(labels) + 1)
    test = np.concatenate([batch["labels"] for batch in whole(splits[2])])[: len(splits[2])]
    logits = np.tile(np.log(share / (1 - share)), (len(test), 1)).astype(np.float32)
    return said(splits[2], logits, test)


def always_flood(splits: Splits) -> Predictions:
    """Every image is flooded."""
    test = np.concatenate([batch["labels"] for batch in whole(splits[2])])[: len(splits[2])]
    return said(splits[2], baselines.two_classes(np.ones(len(test))), test)


BASELINES: dict[str, dict[str, Callable[[Splits], Predictions]]] = {
    "classification": {
        "logistic regression on band statistics": statistics_of_images,
        "frequency of the labels": prevalence,
    },
    "flood": {
        "logistic regression on band statistics": statistics_of_changes,
        "Otsu on the log-ratio": otsu,
        "always flood": always_flood,
    },
}
"""By task and name."""


def whole(split: Labelled) -> Iterator[dict[str, np.ndarray]]:
    """All records in their order, in batches, in dB; the last batch is filled up."""
    order, to_db = InOrder(len(split), AT_ONCE), TO_DB[split.patches.unit]
    for batch in batches(split.patches.source, order, 0, order.steps):
        images = TASKS[split.task].images
        yield batch | {name: np.asarray(to_db(batch[name])) for name in images}


def _joined(
    parts: list[tuple[np.ndarray, np.ndarray]], records: int
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = (np.concatenate(column)[:records] for column in zip(*parts, strict=True))
    return features, labels


def said(split: Labelled, logits: np.ndarray, labels: np.ndarray) -> Predictions:
    """Logits of a baseline as predictions."""
    return predictions(split, {"logits": logits, "labels": labels}, {})
