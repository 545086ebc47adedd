"""The report: content, order of its parts, and atomic replacement of an earlier one."""

import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from sar_mixmae_jax.evaluation.predictions import Predictions, load_predictions
from sar_mixmae_jax.tasks import classification_figures, evaluation_report
from sar_mixmae_jax.tasks.evaluation_report import write_report
from sar_mixmae_jax.tasks.flood_panels import OUTCOMES, PairPicture
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.plotting import NODATA_COLOUR

NAN = re.compile(r"\bnan\b", re.IGNORECASE)


def classified(groups=6, about=None) -> Predictions:
    rng = np.random.default_rng(0)
    labels = rng.random((90, 3)) < (0.3, 0.2, 0.0)
    return Predictions(
        "classification", ("water", "a $very_long$ | name", "never there"),
        np.arange(90).astype(str), rng.normal(size=(90, 3)) + 2 * labels, labels,
        {"group": np.arange(90) % groups}, {"dataset": "bigearthnet"} if about is None else about,
    )  # fmt: skip


def paired() -> Predictions:
    """Eight sequences with dates 0, 1 (dry) and 2, of which half are flooded; one of each kind."""
    sequence = np.repeat(np.arange(8), 3)
    before, after = np.tile((0, 0, 1), 8), np.tile((1, 2, 2), 8)
    flooded = (sequence % 2 == 1) & (after == 2)
    evidence = np.where(flooded, 2.0, -2.0) + 0.05 * np.arange(24)
    evidence[[0, 5]] = 3.0, -4.0  # a false alarm, a miss
    return Predictions(
        "flood", ("dry", "flood"), np.array([f"pair{n}" for n in range(24)]),
        np.stack([-evidence / 2, evidence / 2], 1), flooded,
        {
            "group": sequence, "sequence": sequence,
            "before": np.array([f"s{s}d{d}" for s, d in zip(sequence, before, strict=True)]),
            "after": np.array([f"s{s}d{d}" for s, d in zip(sequence, after, strict=True)]),
            "onset": flooded, "gap_days": 12.0 * (after - before),
            "flooded_fraction": np.where(flooded, 0.03, np.nan),
            "hard_case": np.where(sequence == 4, "wet snow", ""),
        },
        {"dataset": "simulated floods", "split": "test"},
    )  # fmt: skip


def picture(row: int) -> PairPicture:
    dates = np.random.default_rng(row).normal(-15, 3, (2, 40, 40, 2))
    dates[:, :10] = np.nan
    return PairPicture(*dates, water=np.eye(40, dtype=bool), evidence=np.full((2, 2), row - 9.0))


def test_a_report_about_labels(tmp_path):
    about = {
        "dataset": "bigearthnet", "split": "test", "caveats": ["spatially dependent split"],
        "pretraining_overlap": "41 % of the patches", "checkpoint": "runs/a/checkpoints/7",
    }  # fmt: skip
    predictions = classified(about=about)
    paths = write_report(predictions, tmp_path / "deep" / "report", replicates=50)
    names = {"predictions.npz", "metrics.json", "report.md"}
    pictures = {"precision_recall.png", "classes.png", "confusion.png"}
    assert set(paths) == names | pictures
    assert set(paths) <= set(evaluation_report.report_files())
    assert {path.name for path in (tmp_path / "deep" / "report").iterdir()} == set(paths)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report"]
    for name in pictures:
        with Image.open(paths[name]) as image:
            image.load()
            assert min(image.size) > 150
    np.testing.assert_array_equal(
        load_predictions(paths["predictions.npz"]).logits, predictions.logits
    )
    content = json.loads(paths["metrics.json"].read_text())
    assert content["about"] == about
    assert content["metrics"]["per_class"]["never there"]["f1"] is None
    assert content["intervals"]["macro"]["f1"]["low"] < content["metrics"]["macro"]["f1"]
    assert content["bootstrap"] == {"level": 0.95, "replicates": 50, "seed": 0, "groups": 6}
    text = paths["report.md"].read_text()
    value = f"{content['metrics']['macro']['average_precision']:.3f}"
    order = ["# a, step 7: bigearthnet, test", "> **Caveat:** spatially dependent split"]
    order += ["> **Caveat:** pretraining overlap: 41 %", "only 6 independent groups"]
    order += ["## Result", value, "## Classes", "## Pictures"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "Without positives, so not evaluated: never there." in text
    assert r"a \$very_long\$ \| name" in text
    shares = predictions.labels.mean(0)
    assert f"AP of random scores {shares[(shares > 0) & (shares < 1)].mean():.3f}" in text
    assert not NAN.search(text)


def test_a_report_about_floods(tmp_path):
    paths = write_report(paired(), tmp_path / "report", picture, replicates=50)
    pairs = {f"pairs_{outcome}.png" for outcome in OUTCOMES}
    assert pairs <= set(paths) <= set(evaluation_report.report_files())
    text = paths["report.md"].read_text()
    content = json.loads(paths["metrics.json"].read_text())
    onset = content["metrics"]["evaluations"]["onset"]["by_image"]
    assert onset["recall"] == pytest.approx(7 / 8)  # one of two pairs of one of four images
    assert (
        text.index(f"AP {onset['average_precision']:.3f}")
        < text.index("F1")
        < text.index("| onset")
    )
    # 4 floods among 16 images: 8 first, 8 third dates; 20 pairs, dry ones of the same image shared
    assert onset["prevalence"] == pytest.approx(4 / 16)
    assert "(always flood 0.400)" in text  # 2 / 4 / (1 + 1 / 4)
    assert f"false-alarm rate {onset['false_alarm_rate']:.3f}" in text
    assert "Every pair is called" not in text
    assert all(f"]({name})" in text for name in pairs)
    assert not NAN.search(text)
    pixels = np.asarray(Image.open(paths["pairs_floods_found.png"]).convert("RGB")).astype(int)
    colour = np.round(255 * np.array(to_rgb(NODATA_COLOUR))).astype(int)
    assert (np.abs(pixels - colour).max(-1) < 3).mean() > 0.05  # a quarter of five panels of six
    without = write_report(paired(), tmp_path / "report", replicates=50)
    assert not pairs & set(without)
    assert {path.name for path in (tmp_path / "report").iterdir()} == set(without)


def fail(*_):
    raise OSError("disk full")


@pytest.mark.usefixtures("no_drawing")
def test_a_report_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report(classified(), folder, replicates=2)
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(classification_figures, "bars", fail)
    with pytest.raises(InputError, match=r"report cannot be written \(OSError: disk full\)"):
        write_report(classified(groups=3), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("no_drawing")
def test_a_swap_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write_report(classified(), folder, replicates=2)
    rename = type(folder).rename

    def sometimes(path, target):
        if path.name.endswith(".partial"):
            fail()
        return rename(path, target)

    monkeypatch.setattr(type(folder), "rename", sometimes)
    with pytest.raises(InputError, match="disk full"):
        write_report(classified(groups=5), folder, replicates=2)
    assert json.loads((folder / "metrics.json").read_text())["bootstrap"]["groups"] == 6
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("no_drawing")
def test_files_of_others_stay(tmp_path):
    folder = tmp_path / "report"
    write_report(classified(), folder, replicates=2)
    (folder / "notes.txt").write_text("mine")
    (folder / "pairs_false_alarms.png").write_text("of an earlier report")
    write_report(classified(groups=5), folder, replicates=2)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "pairs_false_alarms.png").exists()
    assert json.loads((folder / "metrics.json").read_text())["bootstrap"]["groups"] == 5


def test_folders_that_are_no_reports(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: name a folder"):
        write_report(classified(), tmp_path / "file")
    with pytest.raises(InputError, match=r"is not empty and holds no metrics\.json"):
        write_report(classified(), tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        write_report(classified(), tmp_path / "file" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("no_drawing")
def test_only_floods_have_pictures(tmp_path):
    with pytest.raises(InputError, match="found pictures for classification: expected none"):
        write_report(classified(), tmp_path / "report", picture)


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("label", [0, 1])
def test_one_record(tmp_path, label):
    predictions = Predictions(
        "classification", ("only",), np.array(["a"]), np.array([[1.0]]), np.array([[label]]),
        {"group": np.array(["g"])}, {},
    )  # fmt: skip
    paths = write_report(predictions, tmp_path / "report")
    text = paths["report.md"].read_text()
    assert "only 1 independent group:" in text
    assert "undefined" in text
    assert not NAN.search(text)


@pytest.mark.usefixtures("no_drawing")
def test_further_arrays_are_part_of_the_report(tmp_path, monkeypatch):
    folder, evidence = tmp_path / "report", np.arange(90.0)
    paths = write_report(classified(), folder, extra={"evidence": evidence}, replicates=2)
    stored = np.load(paths["evidence.npz"])
    np.testing.assert_array_equal(stored["evidence"], evidence)
    np.testing.assert_array_equal(stored["ids"], classified().ids)
    with monkeypatch.context() as patched:
        patched.setattr(classification_figures, "bars", fail)
        with pytest.raises(InputError, match="disk full"):
            write_report(classified(), folder, extra={"evidence": np.zeros(90)})
    np.testing.assert_array_equal(np.load(paths["evidence.npz"])["evidence"], evidence)
    assert "evidence.npz" not in write_report(classified(), folder, replicates=2)
    assert not paths["evidence.npz"].exists()
    with pytest.raises(InputError, match=r"unknown file of arrays 'x\.npz'"):
        write_report(classified(), folder, extra={"x": evidence})


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize("held", [(), (0,)])
def test_labels_of_no_class_and_of_one(tmp_path, held):
    predictions = classified()
    predictions.labels[:, [number for number in range(3) if number not in held]] = 0
    paths = write_report(predictions, tmp_path / "report", replicates=20)
    content = json.loads(paths["metrics.json"].read_text())
    text = paths["report.md"].read_text()
    assert (content["metrics"]["macro"]["f1"] is None) == (not held)
    assert (content["intervals"]["published_score"]["low"] is None) == (not held)
    assert ("Score by the published formula: **undefined**" in text) == (not held)
    assert "resamples a class is missing" not in text
    assert not NAN.search(text)
