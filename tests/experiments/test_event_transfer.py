"""Leave one event out: no label of an event reaches the model that predicts it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from configs import compare as recipe
from sar_mixmae_jax.data.record_source import read_rows
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.experiments import event_transfer
from sar_mixmae_jax.experiments.event_encoder import (
    RECORD,
    check_encoder,
    continued_config,
    find_encoder,
    record_encoder,
)
from sar_mixmae_jax.experiments.event_scores import compare_confusions, score_confusions
from sar_mixmae_jax.experiments.event_transfer import ENCODERS, EventTransfer, compare
from sar_mixmae_jax.training.encoder_loading import load_encoder_params
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.hashing import pack_ids
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings
from tfds_builders.sen1floods11 import fake_chips

SIDE = 128


@pytest.fixture(scope="module")
def config(encoder_run, tmp_path_factory):
    """`configs/compare.py:events` on six fake chips of four events and a small encoder."""
    raw = fake_chips.write_dataset(tmp_path_factory.mktemp("raw") / "v1.1", SIDE)
    data_dir = tmp_path_factory.mktemp("data")
    settings = BuildSettings(processes=1)
    build("sen1floods11/own", data_dir, raw, options={"size": SIDE}, settings=settings)
    config = recipe.get_config("events")
    config.init, config.data_dir, config.seeds, config.chips = str(encoder_run), str(data_dir), 1, 2
    config.finetune.dataset = "sen1floods11/own"
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
    results = json.loads(paths[1].read_text())
    assert set(results["scores"]) == {
        *ENCODERS,
        "VH < -23.6 dB",
        "VV < -13.45 dB",
        "Otsu on VH, by record",
        "logistic regression on the bands",
    }
    assert set(results["differences"]) == {"pretrained - random", "adapted - pretrained"}
    encoder = json.loads((workdir / RECORD).read_text())
    assert results["encoder"] == encoder
    predicted = {encoder: {} for encoder in ENCODERS}
    for path in (workdir / "predictions").glob("*.npz"):
        predictions = load_predictions(path)
        about = predictions.provenance
        assert set(predictions.columns["event"]) == {about["event"]}
        assert about["source"] == encoder
        assert len(about["training chips"]) == 2
        for name, logits in zip(predictions.ids, predictions.logits, strict=True):
            predicted[about["encoder"]][name] = logits
    names = [set(of_encoder) for of_encoder in predicted.values()]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 6
    logits = [np.stack([of[name] for name in sorted(of)]) for of in predicted.values()]
    assert not np.array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[1], logits[2])  # pretraining went on
    page = paths[0].read_text()
    assert "saw no label of its event" in page
    assert f"{encoder['checkpoint']}, tiny, step 2" in page


@pytest.fixture(scope="module")
def transfer(config, tmp_path_factory):
    return EventTransfer(config, tmp_path_factory.mktemp("transfer"))


def test_the_regression_is_fitted_to_the_training_chips(compared, transfer):
    workdir, _ = compared
    predictions = load_predictions(workdir / "predictions/random-Ghana-0.npz")
    row = {name: number for number, name in enumerate(transfer._chips.ids)}

    def pixels(names):
        records = read_rows(transfer._chips.patches.source, np.array([row[n] for n in names]))
        labels = records["water"].reshape(-1)
        return records["backscatter"].reshape(-1, 2)[labels >= 0], labels[labels >= 0]

    model = LogisticRegression(max_iter=200).fit(*pixels(predictions.provenance["training chips"]))
    values, truth = pixels(predictions.ids)
    expected = np.bincount(2 * truth.astype(int) + model.predict(values), minlength=4)
    counts = predictions.arrays["logistic"].sum(0).ravel()
    np.testing.assert_allclose(counts, expected, atol=5)
    assert np.abs(counts - predictions.arrays["vh_threshold"].sum(0).ravel()).max() > 5


def test_training_chips_are_usable_ones_of_other_events(config, transfer):
    events = transfer._chips.columns["event"]
    for event in transfer.events:
        for seed in range(3):
            rows = transfer._training_rows(event, seed)
            assert len(rows) == config.chips
            assert event not in events[rows]
            names = transfer._chips.ids[rows]
            assert not {"Ghana_3", "Mekong_5"} & set(names)  # no label, no measurement


def test_adapted_encoders_of_all_seeds_are_trained_together(config, transfer, monkeypatch):
    given = []

    def untrained(states, rows, *_):
        given.append(rows)
        return states, None

    monkeypatch.setattr(event_transfer, "train_seeds", untrained)
    adapted = transfer._adapted("Ghana", [0, 1])
    assert [rows.shape for rows in given] == [(1, 2, 2)]
    source = find_source_checkpoint(config.init)
    expected = load_encoder_params(source, source.arch)
    for seed in range(2):
        of_seed = jax.tree.map(lambda leaf, seed=seed: leaf[seed], adapted)
        jax.tree.map(np.testing.assert_array_equal, of_seed, expected)


def with_metadata(source, **changes):
    return dataclasses.replace(source, metadata=dataclasses.replace(source.metadata, **changes))


def test_encoders_that_saw_labels_or_images_are_refused(config, transfer):
    source, chips = find_source_checkpoint(config.init), transfer._chips
    check_encoder(source, chips)
    with pytest.raises(InputError, match="was pretrained on 2 of the 6 images"):
        check_encoder(with_metadata(source, train_ids=pack_ids(chips.ids[:2])), chips)
    model = dataclasses.replace(source.metadata.model, task="flood")
    with pytest.raises(InputError, match="is flood: expected a checkpoint of pretraining"):
        check_encoder(with_metadata(source, model=model), chips)
    weak = dataclasses.replace(source.description, dataset="sen1floods11/weak/1.1.0/train")
    later = dataclasses.replace(source.description, pretrained=weak)
    for description in (weak, later):
        with pytest.raises(InputError, match=r"sen1floods11/weak.*may show the events"):
            check_encoder(dataclasses.replace(source, description=description), chips)


def test_a_comparison_keeps_its_encoder(config, tmp_path):
    run = config.finetune.copy_and_resolve_references()
    run.init = config.init
    latest = find_encoder(run, tmp_path)
    assert latest.description.step == 2
    record_encoder(find_source_checkpoint(latest.path.parent / "1"), tmp_path)
    assert find_encoder(run, tmp_path).description.step == 1
    record = tmp_path / RECORD
    record.write_text(record.read_text().replace('"step": 1', '"step": 3'))
    with pytest.raises(InputError, match="began with step 3 of SHA-256"):
        find_encoder(run, tmp_path)
    record.unlink()
    (tmp_path / "predictions").mkdir()
    with pytest.raises(InputError, match="the encoder of the predictions is not known"):
        find_encoder(run, tmp_path)


def test_pretraining_is_continued_as_it_was(config):
    source = find_source_checkpoint(config.init)
    stored = {**source.metadata.config, "objective": "simmim", "mask_ratio": 0.6}
    arch = dataclasses.replace(source.arch, image_size=64)
    run = continued_config(config.adapt, with_metadata(source, config=stored), arch)
    assert (run.objective, run.mask_ratio, run.model.image_size) == ("simmim", 0.6, 64)
    converted = continued_config(config.adapt, with_metadata(source, config={"seed": 0}), arch)
    assert (converted.objective, converted.mask_ratio) == ("mixmae", 0.5)
    odd = config.adapt.copy_and_resolve_references()
    odd.batch_size = 3
    with pytest.raises(InputError, match="batch_size is 3"):
        continued_config(odd, source, arch)


def test_tiles_are_the_images_cut(transfer):
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


def test_differences_are_paired_by_seed_and_by_chip():
    rng = np.random.default_rng(1)
    first = [rng.integers(1, 50, (12, 2, 2)) for _ in range(3)]
    # Water that is missed is found: the same labels.
    second = [matrix + np.array([[0, 0], [-1, 1]]) for matrix in first]
    counts = {"a": second, "b": first, "c": first[::-1]}
    found = compare_confusions(counts, [("a", "b"), ("b", "c")])

    def iou(matrix):
        return matrix[1, 1] / (matrix.sum() - matrix[0, 0])

    leads = [iou(one.sum(0)) - iou(other.sum(0)) for one, other in zip(second, first, strict=True)]
    half = 6.205347 * np.std(leads, ddof=1) / 3**0.5  # t(2) at 97.5 %, for two differences
    better, same = found.values()
    assert better["seeds"]["mean"] == pytest.approx(np.mean(leads))
    assert better["seeds"]["low"] == pytest.approx(np.mean(leads) - half)
    assert better["seeds"]["verdict"] == "better"
    assert 0 < better["chips"]["low"] < np.mean(leads) < better["chips"]["high"]
    # The same models in another order: on common draws of chips no difference is left.
    assert same["seeds"]["mean"] == pytest.approx(0)
    assert same["chips"]["low"] is None or abs(same["chips"]["low"]) < 1e-12
    assert same["seeds"]["verdict"] == "unresolved"
