"""Segmentation from training to the report, its loss and its counts."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.data.patch_dataset import PatchDataset, ReadOptions
from sar_mixmae_jax.data.record_cache import pack
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.inference.map_model import ModelChoice, load_map_model
from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.inference.scene_pipeline import MapScene, predict_rows
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.segmentation import Segmentation
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES, baseline_confusions
from sar_mixmae_jax.tasks.segmentation_metrics import BINS
from sar_mixmae_jax.tasks.segmentation_report import ChipPicture, draw_chips, report_header
from sar_mixmae_jax.tasks.task_dataset import load_task_dataset, take_label_fraction
from sar_mixmae_jax.training import finetune
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import escape_markdown
from tests.shrink import small_tuning

ARGUMENTS = "task=segmentation,dataset=flood_pairs/own"
SMALL = {"crop_size": 64, "model.image_size": 64, "segmentation.decoder_width": 8}


@pytest.fixture(scope="module")
def report(floods, tmp_path_factory):
    """Files of an evaluation after two steps on crops of a tile; images have four tiles."""
    workdir = tmp_path_factory.mktemp("water")
    config = small_tuning(
        floods, ARGUMENTS, total_steps=2, freeze_encoder=True, **SMALL,
        **{"segmentation.dice": 1.0, "data.cache": "host", "label_fraction": 0.5},
    )  # fmt: skip
    first = finetune.set_up(config, workdir).init_state().params
    outcome = finetune.train(config, workdir)
    return first, outcome.state.params, evaluate(workdir, out=workdir / "report")


def test_scores_are_those_of_scikit_learn_on_the_saved_maps(report):
    files = report[2]
    metrics = json.loads(files["metrics.json"].read_text())["metrics"]
    with np.load(files["predicted.npz"]) as file:
        predicted = file["predicted"].ravel()
    with np.load(files["truth.npz"]) as file:
        truth = file["truth"].ravel()
    assert (truth >= 0).all()  # the simulation labels and measures every pixel
    for name, score in {
        "iou": jaccard_score,
        "f1": f1_score,
        "precision": precision_score,
        "recall": recall_score,
        "accuracy": accuracy_score,
    }.items():
        expected = score(truth, predicted)
        assert metrics["pooled"][name] == pytest.approx(expected, rel=1e-12), name
    expected = jaccard_score(truth, predicted, average="macro")
    assert metrics["pooled"]["mean_iou"] == pytest.approx(expected, rel=1e-12)


def test_its_baselines_are_those_of_the_backscatter(report, floods):
    predictions = load_predictions(report[2]["predictions.npz"])
    task = get_task("segmentation")
    split = load_task_dataset(task, "flood_pairs/own", str(floods), "test", ("VH", "VV"))
    record = split.patches.source[3]
    dark, water = record["backscatter"][..., 0] < -23.6, record["water"] == 1
    expected = [[(~dark & ~water).sum(), (dark & ~water).sum()]]
    expected += [[(~dark & water).sum(), (dark & water).sum()]]
    np.testing.assert_array_equal(predictions.arrays["vh_threshold"][3], expected)
    for name in BASELINES:
        np.testing.assert_array_equal(
            predictions.arrays[name].sum(2), predictions.arrays["confusion"].sum(2)
        )
    train = load_task_dataset(task, "flood_pairs/own", str(floods), "train", ("VH", "VV"))
    half = take_label_fraction(train, 0.5, seed=0, all_classes=True).patches
    regression = baseline_confusions(
        split.patches, lambda: (half, "water"), ("backscatter",), "water", ("", "")
    )
    np.testing.assert_array_equal(predictions.arrays["logistic"], regression["logistic"])
    text = report[2]["report.md"].read_text()
    assert all(escape_markdown(title) in text for title in BASELINES.values())
    content = json.loads(report[2]["metrics.json"].read_text())
    for precision, is_constant in ((0.5, False), (None, True)):
        content["metrics"]["pooled"]["precision"] = precision
        header = "\n".join(report_header(content["metrics"], content["intervals"]))
        assert ("**No pixel is predicted as water at threshold 0.5.**" in header) == is_constant
    sequences = [name.rsplit("_", 1)[0] for name in predictions.ids]
    assert predictions.columns["group"].tolist() == sequences


def test_a_frozen_encoder_does_not_change(report):
    first, last, files = report
    before, after = (jax.tree.leaves(jax.device_get(params["encoder"])) for params in (first, last))
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    kernel = "classify", "kernel"
    changed = [params["head"][kernel[0]][kernel[1]] for params in (first, last)]
    assert not np.array_equal(*map(np.asarray, changed))
    assert files["chips.png"].stat().st_size > 10_000


def test_counts_leave_unlabelled_and_count_unmeasured_pixels_apart():
    task = Segmentation()
    logits = jnp.zeros((1, 2, 3, 2)).at[0, 0, :, 1].set(2.0)  # row 0 is water, row 1 is not
    labels = jnp.array([[[1, 0, NOT_LABELLED], [1, 0, 1]]])
    valid = jnp.array([[[True, True, True], [True, True, False]]])
    outputs = jax.device_get(task.record_outputs(logits, labels, valid))
    assert outputs["confusion"].tolist() == [[[1, 1], [1, 1]]]
    assert outputs["unmeasured"].tolist() == [[0, 1]]
    assert outputs["predicted"].tolist() == [[[1, 1, 1], [0, 0, 255]]]
    curve = outputs["curve"][0]
    place = int(BINS / (1 + np.exp(-2)))
    assert {tuple(found): int(curve[tuple(found)]) for found in np.argwhere(curve)} == {
        (0, 50): 1,
        (0, place): 1,
        (1, 0): 1,  # not measured: probability 0
        (1, 50): 1,
        (1, place): 1,
    }


def test_the_loss_has_dice_and_focal_terms_and_no_ignored_pixels():
    logits = np.array([[[[0.0, 1.0], [2.0, 0.0], [9.0, 0.0]]]])
    labels = np.array([[[1, 0, NOT_LABELLED]]])
    right = 1 / (1 + np.exp([-1.0, -2.0]))
    plain = Segmentation()
    np.testing.assert_allclose(plain.loss(logits, labels), [-np.log(right).mean()], rtol=1e-5)
    focal = plain._with(focal=2.0)
    expected = (-np.log(right) * (1 - right) ** 2).mean()
    np.testing.assert_allclose(focal.loss(logits, labels), [expected], rtol=1e-5)
    water = np.array([right[0], 1 - right[1]])
    overlap = [
        (2 * (1 - water)[1] + 1) / ((1 - water).sum() + 2),
        (2 * water[0] + 1) / (water.sum() + 2),
    ]
    dice = plain._with(dice=0.5).loss(logits, labels) - plain.loss(logits, labels)
    np.testing.assert_allclose(dice, [0.5 * (1 - np.mean(overlap))], rtol=1e-5)
    unlabelled = plain._with(dice=0.5).loss(logits, np.full((1, 1, 3), NOT_LABELLED))
    np.testing.assert_array_equal(unlabelled, [0.0])
    assert plain != focal
    assert plain == Segmentation()


def test_pairs_are_labelled_by_the_second_date(floods):
    task = get_task("pair_segmentation")
    split = load_task_dataset(task, "flood_pairs/own", str(floods), "test", ("VH", "VV"))
    images = load_task_dataset(
        get_task("segmentation"), "flood_pairs/own", str(floods), "test", ("VH", "VV")
    )
    assert split.classes == ("no water", "water")
    pair = split.patches.source[1]
    after = images.patches.source[images.ids.tolist().index(split.columns["after"][1])]
    np.testing.assert_array_equal(pair["labels"], after["water"])
    np.testing.assert_array_equal(pair["after"], after["backscatter"])
    rows = split.patches.source.read_rows(np.array([1, 0]))
    np.testing.assert_array_equal(rows["labels"][0], after["water"])


def test_a_regression_is_fitted_to_the_masks_of_its_own_dataset(floods):
    """The records it was fitted to may name their mask otherwise than those that it predicts."""
    task = get_task("segmentation")._with(mask="land_cover")
    assert task.for_other_dataset(PatchDataset([], "", (), "", None, masks={"mask": ("a",)})) == (
        get_task("segmentation")
    )
    arguments = "flood_pairs/own", str(floods), "validation", ("VH", "VV")
    split = load_task_dataset(get_task("segmentation"), *arguments)
    assert load_task_dataset(task, *arguments, is_other=True).task.label_field == "land_cover"
    records = map(split.patches.source.__getitem__, range(len(split)))
    renamed = [{"backscatter": r["backscatter"], "mask": r["water"]} for r in records]
    other = dataclasses.replace(split.patches, source=renamed)
    choice = ("backscatter",), "water", ("", "")
    same = baseline_confusions(split.patches, lambda: (split.patches, "water"), *choice)
    named = baseline_confusions(split.patches, lambda: (other, "mask"), *choice)
    assert list(same) == ["logistic"]
    np.testing.assert_array_equal(same["logistic"], named["logistic"])


def test_masks_are_kept_in_memory_and_in_files(floods, tmp_path):
    task = get_task("segmentation")
    source = load_task_dataset(
        task, "flood_pairs/own", str(floods), "validation", ("VV",)
    ).patches.source
    for folder in (None, tmp_path):
        packed = pack(source, ReadOptions(), folder)
        for row in range(len(source)):
            np.testing.assert_array_equal(packed[row]["water"], source[row]["water"])
    assert len(list(tmp_path.rglob("water.npy"))) == 1


def test_what_cannot_be_segmented_is_refused(built, floods, tmp_path):
    with pytest.raises(InputError, match="has no masks: choose a dataset with labels per pixel"):
        load_task_dataset(
            get_task("segmentation"), "bigearthnet_s1", str(built), "test", ("VH", "VV")
        )
    for message, changes in {
        "unknown segmentation.mask 'wter': did you mean 'water'": {"segmentation.mask": "wter"},
        "segmentation.dice is -1.0: expected": {"segmentation.dice": -1.0},
        "segmentation.decoder_width is -1: expected": {"segmentation.decoder_width": -1},
        "crop_size is 96: expected a multiple of the tiles of 64 px": {"crop_size": 96},
    }.items():
        with pytest.raises(InputError, match=message):
            finetune.set_up(small_tuning(floods, ARGUMENTS, **{**SMALL, **changes}), tmp_path)


def test_pictures_have_a_column_for_every_band():
    maps = np.zeros((8, 8), np.int8), np.zeros((8, 8), np.uint8)
    widths = []
    for bands in (("HH",), ("HV", "HH")):
        chip = ChipPicture(np.zeros((8, 8, len(bands))), *maps, bands)
        png = draw_chips({"a record": chip}, ("dry", "water"), "title")
        widths.append(Image.open(io.BytesIO(png)).width)
    assert widths == [2.6 * 110 * 4, 2.6 * 110 * 5]


def test_a_map_of_records_is_what_their_evaluation_predicted(report, floods):
    """Three records side by side, in windows of their size without overlap."""
    files = report[2]
    with np.load(files["predicted.npz"]) as file:
        predicted = file["predicted"]
    task = get_task("segmentation")
    split = load_task_dataset(task, "flood_pairs/own", str(floods), "test", ("VH", "VV"))
    scene_db = np.concatenate([split.patches.source[n]["backscatter"] for n in range(3)], axis=1)
    workdir = files["metrics.json"].parents[1]
    model = load_map_model(ModelChoice(workdir, "best", window=128, overlap=0, batch_size=2))
    transform = (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)
    read = (lambda first, last: scene_db[first:last],)
    scene = MapScene("scene", Grid(scene_db.shape[:2], "", transform), ("",), read)
    mapped = np.concatenate(list(predict_rows(scene, model.predictor, model.overlap)))
    assert (model.classes, model.predictor.channels) == (("no water", "water"), ("water",))
    np.testing.assert_array_equal(mapped[..., 0] > 0.5, np.concatenate(predicted[:3], axis=1) == 1)
    assert model.tags["TASK"] == "segmentation"
    assert load_map_model(ModelChoice(workdir, "best")).overlap == 32  # half a tile
