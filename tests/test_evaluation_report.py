"""The report: what is in it, what it says first, and that it is there whole or not at all."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.evaluation import class_figures, pair_panels, report
from sar_mixmae_jax.evaluation.pairs import KINDS, PairPicture, choose
from sar_mixmae_jax.evaluation.predictions import Predictions, load
from sar_mixmae_jax.evaluation.report import write
from sar_mixmae_jax.pictures import NODATA_COLOUR


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
        "pretraining_overlap": "41 % of the patches", "checkpoint": "runs/a",
    }  # fmt: skip
    made = classified(about=about)
    paths = write(made, tmp_path / "deep" / "report", replicates=50)
    names = {"predictions.npz", "metrics.json", "report.md"}
    pictures = {"precision_recall.png", "classes.png", "confusion.png"}
    assert set(paths) == names | pictures
    assert set(paths) <= set(report.OWN)
    assert {path.name for path in (tmp_path / "deep" / "report").iterdir()} == set(paths)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report"]
    for name in pictures:
        with Image.open(paths[name]) as image:
            image.load()
            assert min(image.size) > 150
    np.testing.assert_array_equal(load(paths["predictions.npz"]).logits, made.logits)
    told = json.loads(paths["metrics.json"].read_text())
    assert told["about"] == about
    assert told["metrics"]["per_class"]["never there"]["f1"] is None
    assert told["intervals"]["macro"]["f1"]["low"] < told["metrics"]["macro"]["f1"]
    assert told["bootstrap"] == {"level": 0.95, "replicates": 50, "seed": 0, "groups": 6}
    text = paths["report.md"].read_text()
    value = f"{told['metrics']['macro']['average_precision']:.3f}"
    order = ["bigearthnet, test", "spatially dependent split", "pretraining overlap: 41 %"]
    order += ["only 6 independent groups", "## Result", value, "## Classes", "## Pictures"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "Without positives, so not evaluated: never there." in text
    assert r"a $very\_long$ \| name" in text
    assert "nan" not in text.lower()


def test_a_report_about_floods(tmp_path):
    paths = write(paired(), tmp_path / "report", picture, replicates=50)
    pairs = {f"pairs_{kind.replace(' ', '_')}.png" for kind in KINDS}
    assert pairs <= set(paths) <= set(report.OWN)
    text = paths["report.md"].read_text()
    told = json.loads(paths["metrics.json"].read_text())
    onset = told["metrics"]["evaluations"]["onset"]["by_image"]
    assert onset["recall"] == pytest.approx(7 / 8)  # one of two pairs of one of four images
    assert text.index(f"recall {onset['recall']:.3f}") < text.index("## All pairs")
    assert all(f"]({name})" in text for name in pairs)
    assert "nan" not in text.lower()
    pixels = np.asarray(Image.open(paths["pairs_floods_found.png"]).convert("RGB")).astype(int)
    colour = np.round(255 * np.array(to_rgb(NODATA_COLOUR))).astype(int)
    assert (np.abs(pixels - colour).max(-1) < 3).mean() > 0.05  # a quarter of five panels of six
    without = write(paired(), tmp_path / "report", replicates=50)
    assert not pairs & set(without)
    assert {path.name for path in (tmp_path / "report").iterdir()} == set(without)


def test_pairs_to_look_at():
    made = paired()
    chosen = choose(made, count=2)
    assert chosen["false alarms"] == [0]
    assert chosen["floods missed"] == [5]
    assert chosen["floods found"] == [23, 17]  # the surest, and not pair 22 of the same sequence
    assert len(chosen["dry and said so"]) == 2
    assert all(made.labels[row] == 0 for row in chosen["dry and said so"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda row: PairPicture(np.zeros((8, 8, 2)), np.zeros((8, 9, 2))), "pair23 has shapes"),
        (lambda row: PairPicture(np.zeros((8, 8)), np.zeros((8, 8))), "pair23 has shapes"),
        (
            lambda row: PairPicture(*np.zeros((2, 8, 8, 2)), water=np.zeros((4, 4), bool)),
            "pair23 has water",
        ),
        (
            lambda row: PairPicture(*np.zeros((2, 8, 8, 2)), evidence=np.full((2, 2), np.nan)),
            "pair23 has evidence",
        ),
    ],
)
def test_pictures_that_cannot_be_drawn(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        write(paired(), tmp_path / "report", wrong, replicates=2)
    assert not list(tmp_path.iterdir())


def test_pictures_of_any_shape_and_of_nodata_alone(tmp_path):
    def odd(row: int) -> PairPicture:
        return PairPicture(*np.full((2, 30, 700, 2), np.nan))

    paths = write(paired(), tmp_path / "report", odd, replicates=2)
    width, height = Image.open(paths["pairs_false_alarms.png"]).size
    assert width > 2 * height


def test_pictures_are_averaged_in_power():
    db = np.full((512, 512), -20.0)
    db[::2, ::2] = 0.0
    db[:2, :2] = np.nan
    small = pair_panels.reduced(db)
    assert small.shape == (256, 256)
    assert np.isnan(small[0, 0])
    np.testing.assert_allclose(small[1:], 10 * np.log10((1 + 3 * 0.01) / 4))


def test_scales_are_those_of_both_dates():
    before, after = np.full((16, 16, 2), -10.0), np.full((16, 16, 2), -30.0)
    scale = pair_panels.scales([PairPicture(before, after, evidence=np.array([[1.0, -7.0]]))])
    assert [(norm.vmin, norm.vmax) for norm in scale.bands] == [(-30.0, -10.0)] * 2
    assert (scale.evidence.vmin, scale.evidence.vmax) == (-7.0, 7.0)


def fail(*_):
    raise OSError("disk full")


def test_a_report_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write(classified(), folder, replicates=2)
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(class_figures, "bars", fail)
    with pytest.raises(InputError, match=r"report cannot be written \(OSError: disk full\)"):
        write(classified(groups=3), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_swap_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    write(classified(), folder, replicates=2)
    rename = type(folder).rename

    def sometimes(path, target):
        if path.name.endswith(".partial"):
            fail()
        return rename(path, target)

    monkeypatch.setattr(type(folder), "rename", sometimes)
    with pytest.raises(InputError, match="disk full"):
        write(classified(groups=5), folder, replicates=2)
    assert json.loads((folder / "metrics.json").read_text())["bootstrap"]["groups"] == 6
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_files_of_others_stay(tmp_path):
    folder = tmp_path / "report"
    write(classified(), folder, replicates=2)
    (folder / "notes.txt").write_text("mine")
    (folder / "pairs_false_alarms.png").write_text("of an earlier report")
    write(classified(groups=5), folder, replicates=2)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "pairs_false_alarms.png").exists()
    assert json.loads((folder / "metrics.json").read_text())["bootstrap"]["groups"] == 5


def test_folders_that_are_no_reports(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: name a folder"):
        write(classified(), tmp_path / "file")
    with pytest.raises(InputError, match=r"holds other things and no metrics\.json"):
        write(classified(), tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        write(classified(), tmp_path / "file" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_floods_have_pictures(tmp_path):
    with pytest.raises(InputError, match="only floods have pairs"):
        write(classified(), tmp_path / "report", picture)


@pytest.mark.parametrize("label", [0, 1])
def test_one_record(tmp_path, label):
    one = Predictions(
        "classification", ("only",), np.array(["a"]), np.array([[1.0]]), np.array([[label]]),
        {"group": np.array(["g"])}, {},
    )  # fmt: skip
    paths = write(one, tmp_path / "report")
    text = paths["report.md"].read_text()
    assert "only 1 independent group:" in text
    assert "undefined" in text
    assert "nan" not in text.lower()
