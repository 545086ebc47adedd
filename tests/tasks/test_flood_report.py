"""The report on floods: headline, baselines without a model, equal views merged."""

import dataclasses
import json

import numpy as np
import pytest

from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.evaluation_report import write_report
from sar_mixmae_jax.utils.tables import missing_interval_notes
from tests.tasks.test_evaluation_report import paired

pytestmark = pytest.mark.usefixtures("no_drawing")


def flood(logit=None, later=(), gaps=True) -> Predictions:
    """`paired` with other answers, pairs whose flood is no onset, and without gaps."""
    predictions = paired()
    columns = dict(predictions.columns)
    columns["onset"] = columns["onset"] & ~np.isin(np.arange(24), later)
    if not gaps:
        del columns["gap_days"]
    logits = predictions.logits if logit is None else np.tile((0.0, logit), (24, 1))
    return dataclasses.replace(predictions, logits=logits, columns=columns)


@pytest.mark.parametrize(("logit", "answer"), [(3.0, "flood"), (-3.0, "dry")])
def test_a_model_with_one_answer(tmp_path, logit, answer):
    text = write_report(flood(logit), tmp_path / "report", replicates=20)["report.md"].read_text()
    assert f"**Every pair is called {answer}**" in text
    f1 = "0.400" if answer == "flood" else "0.000"
    assert f"**F1 {f1} " in text
    assert "(always flood 0.400)" in text
    assert "**balanced accuracy 0.500" in text


def test_what_the_gap_alone_tells(tmp_path):
    predictions = flood(
        later=(1, 5)
    )  # pair 5 leaves the onsets: floods 4, 10, 11, 16, 17, 22, 23 stay
    paths = write_report(predictions, tmp_path / "report", replicates=20)
    headline, every = json.loads(paths["metrics.json"].read_text())["metrics"]["gap_alone"]
    assert (headline["view"], every["view"]) == (["onset", "by_image"], ["all", "by_pair"])
    gaps, labels = predictions.columns["gap_days"], predictions.labels
    wet, dry = gaps[labels == 1], gaps[labels == 0]
    wins = (wet[:, None] > dry) + 0.5 * (wet[:, None] == dry)
    assert every["auc"] == pytest.approx(wins.mean())
    assert every["rows"] == 24
    assert headline["rows"] == 23
    text = paths["report.md"].read_text()
    line = next(line for line in text.splitlines() if line.startswith("The gap in days alone"))
    assert f"AUC {every['auc']:.3f}, AP {every['average_precision']:.3f}" in line
    assert "(onset, by image)" in line
    assert "(all pairs, by pair)" in line


def test_no_gaps_no_line(tmp_path):
    paths = write_report(flood(gaps=False), tmp_path / "report", replicates=20)
    assert "gap in days" not in paths["report.md"].read_text()
    assert json.loads(paths["metrics.json"].read_text())["metrics"]["gap_alone"] == []


def test_equal_views_are_shown_once(tmp_path):
    text = write_report(flood(), tmp_path / "report", replicates=20)["report.md"].read_text()
    assert "The same as onset: there is no later flooded image" in text
    assert text.count("| by image |") == text.count("| by pair |") == 1
    assert text.count("### By hard case") == 1
    text = write_report(flood(later=(5,)), tmp_path / "report", replicates=20)[
        "report.md"
    ].read_text()
    assert "The same as" not in text
    assert text.count("| by image |") == text.count("| by pair |") == 2
    predictions = paired()
    one_of_each = np.arange(24) % 3 == 2 * (predictions.columns["sequence"] % 2)
    single = dataclasses.replace(
        predictions,
        ids=predictions.ids[one_of_each],
        logits=predictions.logits[one_of_each],
        labels=predictions.labels[one_of_each],
        columns={name: values[one_of_each] for name, values in predictions.columns.items()},
    )
    text = write_report(single, tmp_path / "report", replicates=20)["report.md"].read_text()
    assert text.count("| by image = by pair = by sequence |") == 1
    assert "| by pair |" not in text


def test_reasons_of_missing_intervals_are_short(tmp_path):
    rows = [("a", {"f1": 0.5}, {"f1": {"low": None, "reason": "few", "why": "3 groups"}})]
    rows += [("b", {"f1": 0.5}, {"f1": {"low": None, "reason": "few", "why": "4 groups"}})]
    assert missing_interval_notes(rows, {"f1": "F1"}) == ["", "[-] no interval: few."]
    rows += [(f"c{n}", {"f1": 1.0}, {"f1": {"low": None, "reason": "same"}}) for n in range(9)]
    rows += [("d", {"f1": 1.0}, {"f1": {"low": 0.9, "high": 1.0}})]
    rows += [("e", {"f1": None}, {"f1": {"low": None, "reason": "undefined"}})]
    lines = missing_interval_notes(rows, {"f1": "F1"})
    assert [line for line in lines if line.startswith("-")] == [
        "- few: a, b (F1)", "- same: c0, c1, c2, c3, c4, c5 and 3 more (F1)"
    ]  # fmt: skip
    assert missing_interval_notes(rows[-2:], {"f1": "F1"}) == []
