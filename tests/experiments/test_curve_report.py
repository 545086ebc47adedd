"""Questions of the comparison: answers are paired, corrected, and follow from the numbers."""

import json

import numpy as np
import pytest
from scipy import stats

from configs import compare as recipe
from sar_mixmae_jax.experiments.curve_figure import RANDOM, CurveResult
from sar_mixmae_jax.experiments.curve_report import answer_questions, curve_table, write_report
from sar_mixmae_jax.experiments.seed_statistics import Metric, Result

SCORES = {name: Metric(name, "iou", name, bounded=True) for name in ("water_frozen", "water")}
TASKS = {"water": ("water_frozen", "water")}
QUESTIONS = tuple(recipe.QUESTIONS.items())


def results(**values):
    """Results of both measurements by arm: (frozen, tuned) values of the seeds."""
    return [
        Result(arm, seed, name, {"iou": value})
        for arm, by_name in values.items()
        for name, of_seeds in zip(SCORES, by_name, strict=True)
        for seed, value in enumerate(of_seeds)
    ]


def verdicts(found):
    return {answer.question: answer.verdict for answer in found}


EQUAL = (0.5, 0.51, 0.49, 0.5)
BETTER = (0.6, 0.612, 0.588, 0.601)


@pytest.mark.parametrize(
    ("frozen", "tuned", "verdict"),
    [
        (BETTER, (0.51, 0.5, 0.5, 0.49), "yes"),
        ((0.51, 0.5, 0.5, 0.49), (0.48, 0.5, 0.51, 0.5), "not resolved"),
        ((0.4, 0.411, 0.388, 0.4), (0.51, 0.5, 0.5, 0.49), "no"),
        (BETTER, (0.4, 0.411, 0.388, 0.4), "mixed"),
    ],
)
def test_an_answer_follows_from_resolved_differences(frozen, tuned, verdict):
    found = results(random=(EQUAL, EQUAL), none=(frozen, tuned))
    found = answer_questions(QUESTIONS, found, TASKS, SCORES, ("random", "none"))
    assert verdicts(found) == {"Does pretraining help?": verdict}


def test_intervals_are_corrected_for_the_comparisons_of_an_answer():
    arms = {
        "none": (EQUAL, EQUAL),
        "shared_average": (BETTER, EQUAL[::-1]),
        "per_channel_physical": (EQUAL[::-1], BETTER),
    }
    planned = (*arms, "per_channel_db_clipped")  # not finished, and corrected for
    (answer,) = answer_questions(QUESTIONS, results(**arms), TASKS, SCORES, planned)
    assert answer.question == "Do weights of physical values help?"
    assert len(answer.comparisons) == 6
    name, arm, reference, values = next(c for c in answer.comparisons if c[1] == "shared_average")
    assert (name, arm, reference) == ("water_frozen", "shared_average", "none")
    gain = np.subtract(BETTER, EQUAL)
    half = stats.t.ppf(1 - 0.05 / 6 / 2, 3) * gain.std(ddof=1) / 2
    assert (values.low, values.high) == pytest.approx((gain.mean() - half, gain.mean() + half))


def test_the_page_has_answers_curves_and_figures(tmp_path):
    config = recipe.get_config("quick")
    config.compared, config.tasks = (RANDOM, "none"), {"water": ("water_frozen", "water")}
    rng = np.random.default_rng(0)
    curves = [
        CurveResult(
            name,
            arm,
            share,
            {n: {"iou": v} for n, v in enumerate(rng.normal(0.5 + level, 0.01, 3))},
        )
        for name in SCORES
        for arm, share, level in ((RANDOM, 0.0, 0), ("none", 0.25, 0.05), ("none", 1.0, 0.2))
    ]
    references = {"water": {"Otsu on VH": {seed: {"iou": 0.4} for seed in range(3)}}}
    paths = write_report(config, tmp_path, curves, references, SCORES, ["a note"])
    assert {path.name for path in paths} == {
        "comparison.md",
        "comparison.json",
        "comparison.png",
        "curves-water.png",
    }
    page = (tmp_path / "comparison.md").read_text()
    assert "| Does pretraining help? | water | **yes** |" in page
    means = [np.mean([m["iou"] for m in curve.metrics.values()]) for curve in curves[:3]]
    assert f"| water_frozen | none | {' | '.join(f'{mean:.3f}' for mean in means)} |" in page
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    assert numbers["answers"][0]["verdict"] == "yes"
    assert len(numbers["curves"]) == 6


def test_reconstructions_of_other_targets_are_not_compared(tmp_path):
    """Their error is relative to the variance of the data, not to that within a mask unit."""
    config = recipe.get_config("quick")
    config.compared = (RANDOM, "none", "none_unnormalised", "bright")
    config.tasks = {"water": ("water_frozen", "water")}
    errors = {"none": 0.98, "none_unnormalised": 0.67, "bright": 0.99}
    curves = [
        CurveResult("pretraining", arm, 1.0, {0: {"error": error, "rmse_db": 3.0}})
        for arm, error in errors.items()
    ]
    measured = ((RANDOM, 0.0), ("none", 1.0))
    curves += [CurveResult(n, *point, {0: {"iou": 0.5}}) for n in SCORES for point in measured]
    page = write_report(config, tmp_path, curves, {}, SCORES, [])[0].read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    cells = {row[1].strip(): row[2].strip() for row in rows}  # of the last table
    assert (cells["none"], cells["none_unnormalised"], cells["bright"]) == (
        "0.9800 (1)",
        "–",
        "0.9900 (1)",
    )
    listed = json.loads((tmp_path / "comparison.json").read_text())["curves"]
    assert {curve["arm"] for curve in listed if curve["name"] == "pretraining"} == {
        "none",
        "bright",
    }


def test_a_page_of_one_share_has_no_table_of_curves():
    points = {0: {"iou": 0.4}, 1: {"iou": 0.5}}
    curves = [CurveResult("water", RANDOM, 0.0, points), CurveResult("water", "none", 1.0, points)]
    assert curve_table(curves, SCORES) == ""
    halfway = CurveResult("water", "none", 0.5, points)
    assert "| none | 0.450 | 0.450 | 0.450 |" in curve_table([*curves, halfway], SCORES)


def test_the_questions_are_about_arms_that_exist():
    assert {arm for _, pairs in QUESTIONS for pair in pairs for arm in pair} <= set(recipe.ARMS)
