"""Tables of a comparison in Markdown and JSON, and its figure."""

import json

import numpy as np
import pytest
from matplotlib import image

from sar_mixmae_jax.experiments.comparison_report import draw_comparison
from sar_mixmae_jax.experiments.comparison_tables import (
    Section,
    discrimination_sentence,
    make_table,
    to_json,
    to_markdown,
)
from sar_mixmae_jax.experiments.seed_statistics import Metric, Result

AP = Metric("land_cover", "ap", "AP macro")
RECALL = Metric("flood", "recall/low", "recall, low", ".1f", compared=False)
ARMS = ("random", "none", "per_channel")
RESULTS = [
    Result("none", 0, "land_cover", {"ap": 0.50}),
    Result("none", 1, "land_cover", {"ap": 0.54}),
    Result("none", 2, "land_cover", {"ap": 0.52}),
    Result("per_channel", 0, "land_cover", {"ap": 0.60}),
    Result("per_channel", 1, "land_cover", {"ap": 0.65}),
    Result("per_channel", 2, "land_cover", {"ap": 0.61}),
    Result("none", 0, "flood", {"recall/low": 0.5}),
]
BASELINES = [Result("a|b", None, "land_cover", {"ap": 0.45})]


def table(section=Section("Test", (AP, RECALL), "A note.", judged=True), **given):  # noqa: B008
    return make_table(section, given.get("results", RESULTS), BASELINES, ARMS)


def cells(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split(" | ")] for line in lines]


def test_the_rows_of_a_table():
    """Differences of per_channel: 0.10, 0.11, 0.09, so 0.10 ± 4.303 * 0.01 / sqrt(3)."""
    page = to_markdown("Comparison", [table()], ["Of simulated data."])
    assert cells(page) == [
        ["", "AP macro", "Δ to none", "recall, low"],
        ["---", "---:", "---:", "---:"],
        ["random", "–", "–", "–"],
        ["none", "0.520 ± 0.020 (3)", "–", "0.5 (1)"],
        ["per_channel", "0.620 ± 0.026 (3)", "+0.100 [+0.075, +0.125] (3) better", "–"],
        ["*a\\|b*", "0.450", "–", "–"],
    ]
    assert (
        "AP macro: the best baseline, a\\|b, has 0.450; resolved above it: `per_channel`." in page
    )
    assert "A note." in page
    assert "Seeds per entry: 1 to 3, as some runs are missing." in page
    assert "of the 1 on this page" in page
    assert page.endswith("- Of simulated data.\n")


def test_metrics_as_rows():
    transposed = Section("Test", (AP, RECALL), transposed=True)
    assert cells(to_markdown("Comparison", [table(transposed)])) == [
        ["", "random", "none", "per_channel", "*a\\|b*"],
        ["---", "---:", "---:", "---:", "---:"],
        ["AP macro", "–", "0.520 ± 0.020 (3)", "0.620 ± 0.026 (3)", "0.450"],
        ["Δ to none", "–", "–", "+0.100 [+0.075, +0.125] (3) better", "–"],
        ["recall, low", "–", "0.5 (1)", "–", "–"],
    ]


def test_a_test_that_does_not_discriminate_is_marked():
    strong = [Result("logistic", None, "land_cover", {"ap": 0.56})]
    arms = ("none", "per_channel")
    weak = make_table(Section("Test", (AP,), judged=True), RESULTS, strong, arms)
    page = to_markdown("Comparison", [weak])
    assert "0.560; **with these seeds no arm is resolved as different from it**" in page
    assert "(3) better †" in page
    assert "marked †" in page
    silent = make_table(Section("Test", (AP,)), RESULTS, strong, ARMS)
    assert "†" not in to_markdown("Comparison", [silent]).split("## How")[0]


def test_one_seed_is_too_few():
    (found,) = table(results=RESULTS[3:4]).discriminations
    assert "arms or seeds are missing" in discrimination_sentence(found)
    page = to_markdown("Comparison", [table(results=[RESULTS[0], RESULTS[3]])])
    assert "+0.100 (1) unresolved" in page
    assert "Seeds per entry: 1." in page


def test_a_page_without_runs():
    page = to_markdown("Comparison", [table(results=[])])
    assert "no run is finished yet" in page
    assert ["none", "–", "–", "–"] in cells(page)


def test_a_sign_of_the_format_is_not_of_the_spread():
    bias = AP._replace(form="+.2f")
    page = to_markdown("Comparison", [table(Section("Bias", (bias,)))])
    assert "+0.62 ± 0.03 (3) | +0.10 [+0.08, +0.12] (3)" in page


def test_json_has_the_same_numbers():
    found = json.loads(json.dumps(to_json([table()]), allow_nan=False))
    (one,) = found["tables"]
    rows = {row["name"]: row for row in one["rows"]}
    assert [*rows] == [*ARMS, "a|b"]
    assert rows["a|b"]["baseline"] is True
    ap = rows["per_channel"]["values"][0]
    assert (ap["task"], ap["metric"], ap["n"]) == ("land_cover", "ap", 3)
    assert ap["mean"] == pytest.approx(0.62)
    assert ap["std"] == pytest.approx(np.std([0.60, 0.65, 0.61], ddof=1))
    assert ap["difference"]["mean"] == pytest.approx(0.10)
    assert ap["difference"]["verdict"] == "better"
    assert rows["random"]["values"][0]["mean"] is None
    assert rows["random"]["values"][0]["difference"]["verdict"] == "unresolved"
    assert rows["none"]["values"][0]["difference"] is None
    assert one["discriminates"] == [
        {
            "task": "land_cover",
            "metric": "ap",
            "best_baseline": "a|b",
            "value": 0.45,
            "arms_above": ["per_channel"],
            "verdict": "above",
        }
    ]


def test_the_figure_is_written_whatever_is_there(tmp_path):
    sizes = set()
    for number, results in enumerate((RESULTS, RESULTS[:1], [])):
        path = tmp_path / f"{number}.png"
        draw_comparison((AP, RECALL), results, BASELINES, ARMS, path, title="A test")
        pixels = image.imread(path)
        sizes.add(pixels.shape)
        # Runs are drawn in their blue, and nothing else is.
        blue = np.abs(pixels[:380, :, :3] - [0, 0x72 / 255, 0xB2 / 255]).max(-1) < 0.02
        assert blue.any() == bool(results)
    assert len(sizes) == 1
    assert len(list(tmp_path.iterdir())) == 3
