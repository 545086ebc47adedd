"""The page about a tuned model: its scores, its best checkpoint, its encoder, its evaluations."""

import json

import numpy as np
import pytest
from PIL import Image

from sar_mixmae_jax.data.metadata import DatasetDescription, Statistics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.run_report import plots
from sar_mixmae_jax.run_report.history import find_best_checkpoint, read_history
from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.tasks import evaluation_report
from sar_mixmae_jax.training.downstream import shared_splits
from sar_mixmae_jax.training.run_description import CheckpointMetadata, ModelDescription
from sar_mixmae_jax.utils import hashing
from tests.run_report.test_page import HOSTILE, RUN, Page, fill
from tests.shrink import undrawn

METRIC = "validation/average_precision_macro"
BEFORE = {
    "checkpoint": "/runs/base/checkpoints/4000",
    "step": 4000,
    "trainer": "pretrain",
    "dataset": "bigearthnet_s1/v1/2.0.0/train+validation",
    "dataset_checksum": 32 * "4d",
    "caveats": ["spatially dependent split"],
    "weighting": {"name": "per_channel", "domain": "physical", "scale": 1.0, "clip": None},
    "seed": 3,
    "sha256": 32 * "b7",
}
TUNED = {
    "config": {
        "trainer": "finetune",
        "task": "classification",
        "validation_split": "validation",
        "label_fraction": 0.1,
        "batch_size": 128,
        "epochs": 4.0,
        "best_metric": METRIC,
    },
    "dataset": {**RUN["dataset"], "name": "bigearthnet_s1/v2/2.0.0/train", "caveats": []},
    "model": {
        "variant": "base",
        "task": "classification",
        "classes": ["water", "forest"],
        "pretrained": BEFORE,
    },
    "starts": RUN["starts"][:1],
}
SCORES = {10: 0.41, 20: 0.52, 30: 0.48, 40: 0.5}
"""By step; the checkpoints 20 and 40 are kept."""


def lines(nan_at: int | None = None) -> list[dict]:
    """Four epochs of ten steps."""
    logged = []
    for step, score in SCORES.items():
        logged += [
            {"step": step, "loss": 0.7 - step / 1000, "gradient_norm": 1.0, "epoch": step / 10},
            {
                "step": step,
                "validation/loss": None if step == nan_at else 0.6 + step / 1000,
                METRIC: score,
                "validation/average_precision_micro": score + 0.2,
                "validation/f1_macro": 1.3 * score,
                "validation/published_score": 4 * score,
            },
        ]
    return logged


def keep(workdir, steps=(20, 40)) -> None:
    """Write checkpoints without their arrays."""
    for step in steps:
        write_metadata(workdir, step, TUNED["config"], {METRIC: SCORES[step]})


def write_metadata(workdir, step: int, config: dict, metrics: dict) -> None:
    """Write the metadata of a checkpoint."""
    mean, std = (0.0, 0.0), (1.0, 1.0)
    architecture = Architecture(96, (3, 6, 12, 24))
    model = ModelDescription(
        "base", architecture, "float32", ("VH", "VV"), "dB", Statistics(mean, std, "train")
    )
    metadata = CheckpointMetadata(
        config, DatasetDescription("test"), model, step, metrics, {}, hashing.pack_ids(())
    )
    folder = workdir / f"checkpoints/{step}/metadata"
    folder.mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps(hashing.add_checksum(metadata.to_json())))


def classified() -> Predictions:
    rng = np.random.default_rng(0)
    labels = rng.random((40, 2)) < (0.3, 0.6)
    about = {
        "dataset": "bigearthnet_s1/v2/2.0.0/test",
        "split": "test",
        "caveats": ["a caveat of the test split"],
        "checkpoint": "/runs/tuned/checkpoints/20",
        "overlap with pretraining": "7 of 40 images were seen",
    }
    logits = rng.normal(size=(40, 2)) + labels
    columns = {"group": np.arange(40) % 10}
    ids = np.arange(40).astype(str)
    return Predictions("classification", ("water", "forest"), ids, logits, labels, columns, about)


def flooded() -> Predictions:
    labels = np.arange(24) % 2
    logits = np.random.default_rng(1).normal(size=(24, 2)) + np.eye(2)[labels]
    names = np.arange(24).astype(str)
    columns = {
        "group": np.arange(24) // 2,
        "sequence": np.arange(24) // 2,
        "before": np.char.add("before", names),
        "after": np.char.add("after", names),
        "onset": labels == 1,
    }
    return Predictions("flood", ("dry", "flood"), names, logits, labels, columns, {})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with two checkpoints, its picture, and a report of each task."""
    folder = fill(tmp_path_factory.mktemp("tuned"), TUNED, lines())
    keep(folder)
    Image.new("RGB", (30, 50), "blue").save(folder / "validation.png")
    with undrawn():
        for name, predictions in {
            "land-cover-test": classified(),
            "floods-test": flooded(),
        }.items():
            out = folder / "evaluation" / name
            evaluation_report.write_report(predictions, out, replicates=20)
    return folder


@pytest.fixture(scope="module")
def page(workdir) -> Page:
    return Page(write_page(workdir))


def test_the_title_says_task_and_encoder_and_the_first_line_the_labels(page):
    title = "classification: base of step 4,000, weighting per_channel (physical) on bigearthnet"
    assert title in page.text
    assert "labels: 10 %; batch size 128" in page.text


def test_the_best_checkpoint_is_told_with_what_chose_it(page, workdir):
    """The best of those that are kept, which the last one is not."""
    found = find_best_checkpoint(read_history(workdir), workdir)
    assert found == (20, METRIC, 0.52, "highest", 2)
    assert "best: step 20 average precision macro 0.5200, the highest of the" in page.text
    assert (
        "is step 20, selected by average precision macro 0.5200, the highest of the 2" in page.text
    )
    assert page.row("average precision macro") == ["0.5000", "40", "0.5200", "20", "0.5200"]
    assert page.row("loss") == ["0.6400", "40", "0.6100", "10", "0.6200"]


def test_the_lowest_is_best_where_less_is_better(tmp_path):
    config = {**TUNED["config"], "best_metric": "validation/loss"}
    fill(tmp_path, {**TUNED, "config": config}, lines())
    write_metadata(tmp_path, 10, config, {"validation/loss": 0.61})
    assert find_best_checkpoint(read_history(tmp_path), tmp_path) == (
        10,
        "validation/loss",
        0.61,
        "lowest",
        1,
    )


@pytest.mark.usefixtures("no_drawing")
def test_a_validation_split_that_is_trained_on_is_told(tmp_path):
    config = {
        **TUNED["config"],
        "train_split": "train+validation",
        "validation_split": "validation[:50%]",
    }
    page = Page(write_page(fill(tmp_path, {**TUNED, "config": config}, lines())))
    assert "validation[:50%], is part of the training split, train+validation" in page.text
    assert shared_splits("train[:90%]", "train[90%:]") == shared_splits("train", "") == []


@pytest.mark.usefixtures("no_drawing")
def test_without_checkpoints_the_scores_stay(tmp_path):
    page = Page(write_page(fill(tmp_path, TUNED, lines())))
    assert "There is no checkpoint selected by average precision macro." in page.text
    assert page.row("average precision macro") == ["0.5000", "40", "0.5200", "20"]
    assert "Missing: validation.png." in page.text
    assert "reconstruction" not in page.text


def test_the_origin_of_the_encoder_is_told_with_its_caveats(page):
    assert page.row("checkpoint")[0] == "/runs/base/checkpoints/4000"
    assert page.row("trained by") == ["pretrain, step 4,000"]
    assert page.row("loss weighting") == ["per_channel (domain physical, scale 1.0, clip none)"]
    assert "Caveat of its training: spatially dependent split" in page.notices


@pytest.mark.usefixtures("no_drawing")
def test_an_encoder_that_was_tuned_before_tells_of_the_one_before_it(tmp_path):
    tuned = {"checkpoint": "x", "step": 50, "trainer": "finetune", "dataset": "other"}
    tuned["pretrained"] = BEFORE
    run = {**TUNED, "model": {**TUNED["model"], "pretrained": tuned}}
    page = Page(write_page(fill(tmp_path, run, lines())))
    found = [row[1] for row in page.rows if row[0] == "trained by"]
    assert found == ["finetune, step 50", "pretrain, step 4,000"]
    assert "That checkpoint was initialised from:" in page.text


@pytest.mark.usefixtures("no_drawing")
def test_a_random_encoder_is_said_to_be_random(tmp_path):
    run = {**TUNED, "model": {**TUNED["model"], "pretrained": None}}
    page = Page(write_page(fill(tmp_path, run, lines())))
    assert "classification: a random base encoder on" in page.text
    assert "Random, not pretrained." in page.text


def test_nothing_is_said_of_what_such_a_run_has_not(page):
    for absent in ("Loss weights and reconstruction", "reconstruction.png", "Other metrics"):
        assert absent not in page.text
    assert "validation.png" in page.text
    images = page.images()
    assert len(images) == 3  # training, scores, the picture
    assert images[-1].convert("RGB").getpixel((1, 1)) == (0, 0, 255)


def test_reports_of_evaluations_are_linked_with_their_headline_numbers(page, workdir):
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert links == ["evaluation/floods-test/report.md", "evaluation/land-cover-test/report.md"]
    assert all((workdir / link).exists() for link in links)
    for name, of in (("land-cover-test", "macro"), ("floods-test", "onset, by image")):
        report = json.loads((workdir / f"evaluation/{name}/metrics.json").read_text())
        values, intervals = report["metrics"], report["intervals"]
        for key in ("macro",) if of == "macro" else ("evaluations", "onset", "by_image"):
            values, intervals = values[key], intervals.get(key, intervals)
        (row,) = (row for row in page.rows if row[0].startswith(name))
        assert of in row[0]
        for cell, rate in zip(row[1:], ("average_precision", "f1"), strict=False):
            low, high = intervals[rate]["low"], intervals[rate]["high"]
            assert cell == f"{values[rate]:.3f} [{low:.3f}, {high:.3f}]"
    assert "40 records; checkpoint 20; macro" in page.text
    assert "land-cover-test: caveat: a caveat of the test split" in page.text
    assert "overlap with pretraining: 7 of 40 images were seen" in page.text


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"about": {}}', '{"about": 3, "task": "x"}'])
def test_a_report_that_is_broken_leaves_a_sentence(content, tmp_path):
    workdir = fill(tmp_path, TUNED, lines())
    folder = workdir / "evaluation" / "<b>"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(content)
    page = Page(write_page(workdir))
    assert "evaluation/<b>/metrics.json cannot be read" in page.text
    assert not any(tag in ("a", "b onerror") for tag, _ in page.elements)


@pytest.mark.usefixtures("no_drawing")
def test_names_of_reports_and_origins_are_no_markup(tmp_path):
    name = '"><script>alert(1)<'
    before = dict.fromkeys(BEFORE, HOSTILE) | {
        "step": 50,
        "caveats": [HOSTILE],
        "weighting": {"name": HOSTILE},
    }
    model = {"task": HOSTILE, "variant": HOSTILE, "pretrained": before}
    workdir = fill(tmp_path, {**TUNED, "model": model}, lines())
    evaluation_report.write_report(classified(), workdir / "evaluation" / name, replicates=20)
    page = Page(write_page(workdir))
    assert "script" not in {tag for tag, _ in page.elements}
    (link,) = (attrs["href"] for tag, attrs in page.elements if tag == "a")
    assert link == "evaluation/%22%3E%3Cscript%3Ealert%281%29%3C/report.md"
    assert page.text.count("<script>alert(1)</script>") >= 6


def test_losses_of_both_splits_share_an_axis_and_gaps_are_told(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "figure_to_png", lambda figure: figures.append(figure) or b"")
    workdir = fill(tmp_path, TUNED, lines(nan_at=30))
    keep(workdir)
    page = Page(write_page(workdir))
    assert "Not finite (red crosses): loss at step 30." in page.notices
    training, scored = figures
    labels = [text.get_text() for text in training.axes[0].get_legend().get_texts()]
    assert labels == ["training", "validation"]
    titles = [axis.get_title(loc="left") for axis in scored.axes]
    assert titles == ["average precision", "F1", "published score"]  # first what chooses
    circles = [
        line.get_xydata().tolist() for line in scored.axes[0].lines if line.get_mfc() == "none"
    ]
    assert circles == [[[20, 0.52]]]
    assert [line.get_label() for line in scored.axes[0].lines][0:3:2] == ["macro", "micro"]


def test_flood_scores_have_no_means_and_no_legend(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "figure_to_png", lambda figure: figures.append(figure) or b"")
    metrics = [{"step": s, "validation/f1": s / 10, "validation/accuracy": 0.5} for s in (1, 2)]
    write_page(fill(tmp_path, TUNED, metrics))
    assert [axis.get_title(loc="left") for axis in figures[0].axes] == ["accuracy", "F1"]
    assert all(axis.get_legend() is None for axis in figures[0].axes)
