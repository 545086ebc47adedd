"""Metrics against torchmetrics' golden values and against sums by hand; what is undefined."""

import json

import numpy as np
import pytest

from sar_mixmae_jax.evaluation.metrics import (
    RATES,
    binary_metrics,
    multilabel_metrics,
    published_score,
    released_averages,
)
from sar_mixmae_jax.tasks.flood_metrics import compute_flood_metrics, shared_weights
from tests.reference import Golden


def average_precision_by_hand(scores, labels, weights) -> float:
    """The sum over thresholds, from the highest, of precision times gain in recall."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        probabilities = scores >= threshold
        true = weights[probabilities & (labels == 1)].sum()
        recall = true / weights[labels == 1].sum()
        total += (recall - before) * true / weights[probabilities].sum()
        before = recall
    return total


def test_golden_values(golden: Golden):
    arrays = golden.finetune
    labels = arrays["metrics/labels"]
    metrics = multilabel_metrics(
        arrays["metrics/probabilities"], labels, [str(n) for n in range(labels.shape[1])]
    )
    names = [name for name in arrays if name.startswith("metrics/") and arrays[name].ndim == 0]
    assert len(names) == 8
    for name in names:
        metric, average = name.removeprefix("metrics/").rsplit("_", 1)
        assert metrics[average][metric] == pytest.approx(float(arrays[name]), abs=1e-7), name
    macro, micro = metrics["macro"], metrics["micro"]
    assert metrics["published_score"] == pytest.approx(
        1.3 * macro["f1"] + 1.1 * micro["f1"] + 1.2 * macro["average_precision"]
        + 1.2 * macro["precision"]
    )  # fmt: skip
    released = released_averages(metrics)  # every class occurs
    assert released.pop("published_score") == pytest.approx(metrics["published_score"])
    assert released == pytest.approx({name: macro[name] for name in released})


def test_classes_that_the_released_code_counts():
    """Without positives as 0; without negatives as AP 1; the others as everywhere."""
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    probabilities = np.array([[0.9, 0.9, 0.9], [0.8, 0.1, 0.3], [0.7, 0.1, 0.6], [0.1, 0.1, 0.1]])
    metrics = multilabel_metrics(probabilities, labels, ["seen", "absent", "always"])
    seen = (1 + 2 / 3) / 2  # precision at its two positives
    micro = 2 * 4 / (6 + 6)  # 4 of 6 positives among 6 predicted
    released = released_averages(metrics)
    expected = {
        "average_precision": (seen + 0 + 1) / 3,
        "f1": (0.8 + 0 + 2 * 2 / (2 + 4)) / 3,
        "precision": (2 / 3 + 0 + 1) / 3,
    }
    score = (
        1.3 * expected["f1"]
        + 1.1 * micro
        + 1.2 * expected["average_precision"]
        + 1.2 * expected["precision"]
    )
    assert released == pytest.approx(expected | {"published_score": score})


def test_one_question_by_hand():
    probabilities = np.array([0.9, 0.8, 0.5, 0.6, 0.2, 0.1])
    labels = np.array([1, 0, 1, 1, 0, 0])
    weights = np.array([1.0, 2.0, 1.0, 0.5, 3.0, 1.0])
    metrics = binary_metrics(probabilities, labels, weights)
    assert metrics["confusion"] == {"tn": 4.0, "fp": 2.0, "fn": 1.0, "tp": 1.5}  # .5 is not above
    expected = {
        "precision": 1.5 / 3.5,
        "recall": 1.5 / 2.5,
        "f1": 3.0 / 6.0,
        "false_alarm_rate": 2 / 6,
        "balanced_accuracy": (1.5 / 2.5 + 4 / 6) / 2,
        "accuracy": 5.5 / 8.5,
        "prevalence": 2.5 / 8.5,
        "average_precision": (1.0 * 1 + 0.5 * 1.5 / 3.5 + 1.0 * 2.5 / 4.5) / 2.5,
    }
    assert {name: metrics[name] for name in RATES} == pytest.approx(expected)


def test_ties_are_one_threshold():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 80) / 6, rng.integers(0, 2, 80)
    weights = rng.uniform(0, 2, 80)
    by_hand = average_precision_by_hand(scores, labels, weights)
    assert binary_metrics(scores, labels, weights)["average_precision"] == pytest.approx(by_hand)
    backwards = binary_metrics(scores[::-1], labels[::-1], weights[::-1])["average_precision"]
    assert backwards == pytest.approx(by_hand)  # the order of the rows says nothing


@pytest.mark.parametrize(
    ("probabilities", "labels", "defined"),
    [
        ([0.9, 0.1], [0, 0], {"false_alarm_rate", "accuracy", "prevalence"}),
        ([0.9, 0.1], [1, 1], {"recall", "accuracy", "prevalence"}),
        ([0.4, 0.1], [1, 0], set(RATES) - {"precision"}),
        ([0.9], [1], {"recall", "accuracy", "prevalence"}),
        ([], [], set()),
    ],
)
def test_what_is_undefined_is_none(probabilities, labels, defined):
    metrics = binary_metrics(np.array(probabilities), np.array(labels))
    assert {name for name in RATES if metrics[name] is not None} == defined
    json.dumps(metrics, allow_nan=False)


def test_rows_without_weight_are_not_there():
    metrics = binary_metrics(
        np.array([0.9, 0.8, 0.2]), np.array([1, 0, 0]), np.array([1.0, 0.0, 0.0])
    )
    assert metrics["recall"] == 1
    assert metrics["precision"] is None
    assert metrics["average_precision"] is None


def test_macro_means_say_over_how_many_classes():
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    probabilities = np.array([[0.9, 0.9, 0.4], [0.8, 0.1, 0.3], [0.7, 0.1, 0.2], [0.1, 0.1, 0.1]])
    metrics = multilabel_metrics(probabilities, labels, ["seen", "absent", "never said"])
    macro = metrics["macro"]
    assert metrics["per_class"]["absent"]["f1"] is None
    assert metrics["per_class"]["never said"]["precision"] is None
    assert macro["precision"] == pytest.approx((2 / 3 + 0) / 2)  # never said: 0, absent: left out
    assert macro["precision_where_predicted"] == pytest.approx(2 / 3)
    assert macro["f1"] == pytest.approx((0.8 + 0) / 2)
    assert macro["n_classes"]["precision"] == macro["n_classes"]["f1"] == 2
    assert macro["n_classes"]["precision_where_predicted"] == 1
    assert metrics["micro"]["precision"] == pytest.approx(2 / 4)  # the absent class's alarm counts
    assert metrics["labels_per_record"] == 1.0
    assert published_score(metrics) == metrics["published_score"] is not None


def test_no_positives_at_all():
    metrics = multilabel_metrics(np.full((3, 2), 0.9), np.zeros((3, 2)), ["a", "b"])
    assert metrics["published_score"] is None
    assert metrics["macro"]["f1"] is None
    assert metrics["macro"]["n_classes"]["f1"] == 0
    json.dumps(metrics, allow_nan=False)


def sequences() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Wet: dry images 0, 1, 2, flooded 3 (onset) and 4. Dry: 0, 1, 2. Every pair of a dry one."""
    pairs = [("w", b, a) for b in (0, 1, 2) for a in range(b + 1, 5)]
    pairs += [("d", 0, 1), ("d", 0, 2), ("d", 1, 2)]
    sequence = np.array([name for name, *_ in pairs])
    after = np.array([a for *_, a in pairs])
    labels = ((sequence == "w") & (after >= 3)).astype(int)
    columns = {
        "group": sequence,
        "sequence": sequence,
        "before": np.array([f"{name}{b}" for name, b, _ in pairs]),
        "after": np.array([f"{name}{a}" for name, _, a in pairs]),
        "onset": (sequence == "w") & (after == 3),
        "flooded_fraction": np.where(labels == 1, np.where(after == 3, 0.01, 0.2), np.nan),
        "hard_case": np.where(sequence == "d", "snow", ""),
    }
    return np.array([0.1] * len(pairs)), labels, columns


def test_onset_takes_the_onset_and_all_dry_pairs():
    probabilities, labels, columns = sequences()
    probabilities[columns["after"] == "w3"] = (
        0.9,
        0.9,
        0.2,
    )  # found from two of three dates before
    probabilities[columns["after"] == "d2"] = (0.9, 0.1)
    metrics = compute_flood_metrics(probabilities, labels, columns)
    onset = metrics["evaluations"]["onset"]
    assert metrics["headline"] == ["onset", "by_image"]
    assert onset["by_pair"]["rows"] == 9  # three pairs each: onset, dry of wet, dry
    assert onset["by_pair"]["recall"] == pytest.approx(2 / 3)
    assert onset["by_pair"]["confusion"] == {"tn": 5.0, "fp": 1.0, "fn": 1.0, "tp": 2.0}
    image = onset["by_image"]["confusion"]  # dry images w1, w2, d1, d2, flooded w3
    assert image == pytest.approx({"tn": 3.5, "fp": 0.5, "fn": 1 / 3, "tp": 2 / 3})
    assert onset["by_image"]["images"] == 5
    sequence = onset["by_sequence"]["confusion"]
    assert sequence == pytest.approx({"tn": 3 / 6 + 2 / 3, "fp": 1 / 3, "fn": 1 / 6, "tp": 2 / 6})
    everything = metrics["evaluations"]["all"]
    assert everything["by_pair"]["rows"] == len(labels) == 12
    assert everything["by_pair"]["recall"] == pytest.approx(2 / 6)
    json.dumps(metrics, allow_nan=False)


def test_breakdowns():
    probabilities, labels, columns = sequences()
    probabilities[columns["after"] == "w4"] = 0.9
    probabilities[columns["after"] == "d1"] = 0.9
    metrics = compute_flood_metrics(probabilities, labels, columns)["evaluations"]
    fractions = metrics["all"]["by_flooded_fraction"]
    recall = {name: one["recall"] for name, one in fractions.items()}
    assert recall == {"below 1 %": None, "1 to 5 %": 0.0, "5 to 15 %": None, "15 % and more": 1.0}
    assert fractions["1 to 5 %"]["precision"] is None  # floods alone: nothing could be wrong
    assert metrics["onset"]["by_flooded_fraction"]["15 % and more"]["rows"] == 0
    assert metrics["all"]["by_hard_case"]["snow"]["false_alarm_rate"] == pytest.approx(1 / 2)
    assert metrics["all"]["by_hard_case"]["snow"]["recall"] is None
    assert metrics["all"]["by_hard_case"]["plain"]["recall"] == pytest.approx(1 / 2)


def test_unknown_fractions_are_a_bin_of_their_own():
    probabilities, labels, columns = sequences()
    columns["flooded_fraction"][:] = np.nan
    bins = compute_flood_metrics(probabilities, labels, columns)["evaluations"]["all"][
        "by_flooded_fraction"
    ]
    assert bins["unknown"]["rows"] == labels.sum()


def test_without_onset_all_pairs_are_the_headline():
    probabilities, labels, columns = sequences()
    for name in ("onset", "hard_case", "flooded_fraction"):
        del columns[name]
    metrics = compute_flood_metrics(probabilities, labels, columns)
    assert metrics["headline"] == ["all", "by_image"]
    assert set(metrics["evaluations"]["all"]) == {"by_pair", "by_image", "by_sequence"}


def test_shared_weights():
    assert shared_weights(np.array(["b", "a", "b", "b"])) == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
