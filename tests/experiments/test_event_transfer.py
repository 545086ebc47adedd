"""Leave one event out: no label of an event reaches the model that predicts it."""

import json

import numpy as np
import pytest

from configs import compare as recipe
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.experiments import event_transfer
from sar_mixmae_jax.experiments.event_scores import score_confusions
from sar_mixmae_jax.experiments.event_transfer import ENCODERS, EventTransfer, compare
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings
from tfds_builders.sen1floods11 import fake_chips

SIDE = 128


@pytest.fixture(scope="module")
def config(encoder_run, tmp_path_factory):
    """`configs/compare.py:events` on six fake chips of five events and a small encoder."""
    raw = fake_chips.write_dataset(tmp_path_factory.mktemp("raw") / "v1.1", SIDE)
    data_dir = tmp_path_factory.mktemp("data")
    settings = BuildSettings(processes=1)
    build("sen1floods11/own", data_dir, raw, options={"size": SIDE}, settings=settings)
    config = recipe.get_config("events")
    config.init, config.data_dir, config.seeds, config.chips = str(encoder_run), str(data_dir), 1, 2
    config.finetune.dataset = config.adapt.dataset = "sen1floods11/own"
    short = {"total_steps": 1, "batch_size": 2}
    config.finetune.update_from_flattened_dict({**short, "segmentation.decoder_width": 0})
    config.adapt.update_from_flattened_dict(short)
    return config.lock()


@pytest.fixture(scope="module")
def compared(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("events")
    return workdir, compare(config, workdir, lambda: False)


def test_every_chip_is_predicted_once_by_every_encoder(compared):
    workdir, paths = compared
    scores = json.loads(paths[1].read_text())
    assert set(scores) == {*ENCODERS, "VH < -23.6 dB", "VV < -13.45 dB", "Otsu on VH, by record"}
    predicted = {encoder: {} for encoder in ENCODERS}
    for path in (workdir / "predictions").glob("*.npz"):
        predictions = load_predictions(path)
        about = predictions.provenance
        assert set(predictions.columns["event"]) == {about["event"]}
        for name, logits in zip(predictions.ids, predictions.logits, strict=True):
            predicted[about["encoder"]][name] = logits
    names = [set(of_encoder) for of_encoder in predicted.values()]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 6
    logits = [np.stack([of[name] for name in sorted(of)]) for of in predicted.values()]
    assert not np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[1], logits[2])  # pretraining went on
    assert "saw no label of its event" in paths[0].read_text()


def test_training_chips_are_of_other_events(config, tmp_path):
    transfer = EventTransfer(config, tmp_path)
    events = transfer._chips.columns["event"]
    for event in transfer.events:
        for seed in range(3):
            rows = transfer._training_rows(event, seed)
            assert len(rows) == config.chips
            assert event not in events[rows]


def test_tiles_are_the_images_cut(config, tmp_path):
    transfer = EventTransfer(config, tmp_path)
    side = transfer._objective.model.arch.image_size
    source = transfer._chips.patches.source
    image = source[0]["backscatter"]
    records, chip = transfer._tiles
    tiles = np.asarray(records.columns["backscatter"])[chip == 0]
    expected = [
        image[row : row + side, column : column + side].ravel()
        for row in range(0, SIDE, side)
        for column in range(0, SIDE, side)
    ]
    np.testing.assert_array_equal(tiles, [tile for tile in expected if np.isfinite(tile).any()])


def test_finished_predictions_are_kept(compared, config, monkeypatch):
    workdir, paths = compared
    monkeypatch.setattr(event_transfer, "train_seeds", lambda *given: pytest.fail("again"))
    assert compare(config, workdir, lambda: False) == paths


def test_scores_are_pooled_over_chips_then_averaged_over_seeds():
    rng = np.random.default_rng(0)
    seeds = [rng.integers(1, 50, (12, 2, 2)) for _ in range(3)]
    events = np.repeat(["a", "b"], 6)
    scores = score_confusions({"model": seeds}, events)["model"]

    def iou(matrices):
        total = matrices.sum(0)
        return total[1, 1] / (total[1, 1] + total[0, 1] + total[1, 0])

    assert scores["iou"] == pytest.approx(np.mean([iou(m) for m in seeds]))
    assert scores["std"] == pytest.approx(np.std([iou(m) for m in seeds], ddof=1))
    assert scores["by_event"]["b"] == pytest.approx(np.mean([iou(m[6:]) for m in seeds]))
    assert scores["low"] < scores["iou"] < scores["high"]
