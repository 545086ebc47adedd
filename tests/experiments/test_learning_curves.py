"""Learning curves: finished results are kept, metrics are those of the saved predictions."""

import json

import numpy as np
import pytest

from configs import compare as recipe
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.experiments import curve_pretraining, learning_curves, seed_training
from sar_mixmae_jax.experiments.curve_files import read_metrics, read_state
from sar_mixmae_jax.experiments.curve_plan import check_curves
from sar_mixmae_jax.experiments.learning_curves import compare
from sar_mixmae_jax.experiments.runner import check_same_comparison
from sar_mixmae_jax.experiments.trials import flat_metrics
from sar_mixmae_jax.utils.errors import InputError
from tests.shrink import SMALL_MODEL
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings

MEASURED = ("land_cover_10_frozen", "water", "water_frozen")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """`configs/compare.py:quick` on tiny data: two arms, two shares, two measurements."""
    data_dir = tmp_path_factory.mktemp("data")
    one = BuildSettings(processes=1)
    build("synthetic_s1/compare", data_dir, options={"patches": 16, "size": 32}, settings=one)
    build("flood_pairs/compare", data_dir, options={"pairs": 4, "size": 128}, settings=one)
    config = recipe.get_config("quick")
    config.data_dir, config.seeds, config.compared = str(data_dir), 2, ("random", "none")
    config.shares, config.measured_batches = (0.5, 1.0), 1
    config.tasks = {"land_cover": MEASURED[:1], "water": MEASURED[1:]}
    for name in list(config.finetune):
        if name not in MEASURED:
            del config.finetune[name]
        else:
            config.finetune[name].label_fraction = 1.0
    short = {"total_steps": 4, "batch_size": 4, "warmup_epochs": 0.0}
    config.pretrain.update_from_flattened_dict({**SMALL_MODEL, **short})
    config.finetune.water.update_from_flattened_dict(
        {"total_steps": 1, "batch_size": 4, "crop_size": 64, "segmentation.decoder_width": 8}
    )
    config.finetune[MEASURED[0]].probe.steps = 20
    return config.lock()


@pytest.fixture(scope="module", autouse=True)
def accelerator():
    """Train the seeds together, two steps at a time, as on an accelerator."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (seed_training, learning_curves):
            patch.setattr(module, "is_accelerator", lambda: True)
        patch.setattr(seed_training, "STEPS_TOGETHER", 3)
        patch.setattr(curve_pretraining, "POLL_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def compared(small, accelerator, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("curves")
    return workdir, compare(small, workdir, lambda: False)


def test_every_share_is_measured_and_reported(compared):
    workdir, paths = compared
    shares = [("none", 0.5), ("none", 1)]
    expected = {f"{name}-random-0-{seed}" for name in MEASURED for seed in (0, 1)} | {
        f"{name}-{arm}-{share:g}-{seed}"
        for name in ("pretraining", *MEASURED)
        for arm, share in shares
        for seed in (0, 1)
    }
    assert {path.stem for path in (workdir / "results").glob("*.json")} == expected
    page = paths[0].read_text()
    for word in ("Does pretraining help?", "not resolved", "VH < -23.6 dB", "logistic regression"):
        assert word in page
    assert {path.name for path in paths[3:]} == {"curves-land_cover.png", "curves-water.png"}
    curves = json.loads(paths[1].read_text())["curves"]
    errors = [c["metrics"]["0"]["error"] for c in curves if c["name"] == "pretraining"]
    assert len(errors) == 2
    assert errors[0] != errors[1]  # of other parameters


def test_metrics_are_those_of_the_saved_predictions(compared):
    workdir, _ = compared
    for path in (workdir / "predictions").glob("*.npz"):
        stored = json.loads((workdir / "results" / f"{path.stem}.json").read_text())
        assert flat_metrics(load_predictions(path)) == stored


def test_a_stopped_pretraining_continues_bit_by_bit(compared, small, tmp_path):
    workdir, _ = compared
    calls = []

    def stop() -> bool:
        calls.append(None)
        return len(calls) == 1

    pretraining = curve_pretraining.CurvePretraining(small, tmp_path, stop)
    assert not pretraining.run("none", [0, 1])
    assert (tmp_path / "pretraining" / "none.npz").exists()
    assert pretraining.run("none", [0, 1])
    assert not (tmp_path / "pretraining" / "none.npz").exists()
    for share in ("0.5", "1"):
        whole, continued = (
            np.load(folder / "encoders" / f"none-{share}-0.npz") for folder in (workdir, tmp_path)
        )
        assert set(whole.files) == set(continued.files)
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], continued[name])


def test_a_finished_comparison_computes_nothing(compared, small, monkeypatch):
    workdir, paths = compared
    monkeypatch.setattr(learning_curves.Comparison, "_measure", lambda *given: pytest.fail("again"))
    before = paths[0].read_text()
    assert compare(small, workdir, lambda: False) == paths
    assert paths[0].read_text() == before


def test_a_damaged_file_is_named(compared, small, tmp_path):
    workdir, _ = compared
    setup = curve_pretraining.CurvePretraining(small, workdir, lambda: False).setup("none")
    broken = tmp_path / "none.npz"
    broken.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"none\.npz cannot be read"):
        read_state(broken, [0], setup.init_params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": (0.5, 0.25, 1.0)}, "expected rising numbers"),
        ({"shares": (0.5,)}, "the last of them 1"),
        ({"shares": (0.0001, 0.0002, 1.0)}, "two of them are the same step"),
        ({"arms.none.pretrain.dataset": "other"}, "arms.none changes pretrain.dataset"),
        ({"compared": ("none",)}, "expected random among them"),
        ({"arms.none.init": "runs/mine"}, "expected pretrain"),
        ({"tasks.water": ()}, "expected every one of finetune once"),
        ({"tasks.floods": ("water_frozen", "floods_frozen")}, "tasks has the measurements"),
        ({"tasks.other": ()}, "tasks.other has no measurement"),
        (
            {"arms.none_lee.pretrain.speckle.apply_to": "input_and_target"},
            "changes pretrain.speckle.apply_to",
        ),
    ],
)
def test_fields_that_cannot_be_used(changes, message):
    config = recipe.get_config("gpu")
    with config.unlocked():
        for name, value in changes.items():
            *groups, field = name.split(".")
            parent = config
            for group in groups:
                parent = parent[group]
            parent[field] = value
    with pytest.raises(InputError, match=message):
        check_curves(config)


@pytest.mark.parametrize("scale", ["quick", "cpu", "gpu"])
def test_shipped_scales_can_be_compared(scale):
    config = recipe.get_config(scale)
    check_curves(config)
    assert {name for names in config.tasks.values() for name in names} == set(config.finetune)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "null",
        '{"iou": NaN}',
        '{"iou": "a"}',
        '{"iou": "0.5"}',
        "[",
        '{"iou": []}',
        '{"iou": ' + 400 * "1" + "}",
    ],
)
def test_damaged_metrics_are_named(content, tmp_path):
    path = tmp_path / "water-none-1-0.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"water-none-1-0\.json cannot be read .* remove it"):
        read_metrics(path)


def test_a_comparison_that_was_stored_without_questions_continues(compared, small, tmp_path):
    workdir, _ = compared
    content = json.loads((workdir / "comparison.config.json").read_text())
    assert ["Does pretraining help?", [["none", "random"]]] in content.pop("questions")
    (tmp_path / "comparison.config.json").write_text(json.dumps(content))
    check_same_comparison(small, tmp_path)


@pytest.mark.parametrize(
    "content", [None, "", "[" * 200_000, '{"compared": 5}', '{"compared": ["gone"]}']
)
def test_results_without_their_configuration_are_refused(content, small, tmp_path):
    (tmp_path / "results").mkdir()
    if content is not None:
        (tmp_path / "comparison.config.json").write_text(content)
    with pytest.raises(InputError, match=r"comparison\.config\.json.* restore it, or choose"):
        compare(small, tmp_path, lambda: False)
    assert not (tmp_path / "encoders").exists()


def test_another_build_of_a_dataset_is_refused(compared, small, tmp_path):
    workdir, _ = compared
    content = json.loads((workdir / "comparison.config.json").read_text())
    assert set(content["checksums"]) == {"synthetic_s1/compare", "flood_pairs/compare"}
    content["checksums"]["flood_pairs/compare"] = "other"
    (tmp_path / "comparison.config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"checksums\.flood_pairs/compare was 'other'"):
        compare(small, tmp_path, lambda: False)
    assert not (tmp_path / "results").exists()
