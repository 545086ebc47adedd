"""The comparison: finished trials are kept, all arms see the same data, one page of results."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from configs import compare as recipe
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.experiments import baselines, runner, trials
from sar_mixmae_jax.experiments.reconstruction_metrics import PRETRAINING
from sar_mixmae_jax.experiments.trials import Trial, TrialResult
from sar_mixmae_jax.objectives.reconstruction import OBJECTIVES
from sar_mixmae_jax.training.config import make_objective, make_schedule
from sar_mixmae_jax.utils.errors import InputError
from tests.shrink import SMALL_ENCODER, SMALL_MODEL, TWO_STAGES, undrawn
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings

RUN = {"total_steps": 2, "batch_size": 4, "log_every": 1}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """`configs/compare.py` on tiny data: one arm, one seed."""
    data_dir = tmp_path_factory.mktemp("data")
    one = BuildSettings(processes=1)
    build("synthetic_s1/compare", data_dir, options={"patches": 16, "size": 32}, settings=one)
    build("flood_pairs/compare", data_dir, options={"pairs": 8, "size": 128}, settings=one)
    config = recipe.get_config("bigearthnet")
    config.pretrain.dataset = config.finetune.land_cover.dataset = "synthetic_s1/compare"
    config.finetune.floods.dataset = "flood_pairs/compare"
    config.data_dir, config.seeds, config.compared = str(data_dir), 1, ("none",)
    config.measured_batches = 1
    side = {"model.image_size": 128, "resize_mode": "resize"}
    config.pretrain.update_from_flattened_dict({**SMALL_MODEL, **TWO_STAGES, **RUN, **side})
    for task in config.finetune.values():
        task.update_from_flattened_dict({**RUN, "label_fraction": 1.0, "validate_every": 2})
    for arm in config.arms.values():
        if arm.init == "random":
            arm.finetune.update({"model": _nested(SMALL_ENCODER)})
    return config.lock()


def _nested(flat):
    return {name.removeprefix("model."): value for name, value in flat.items()}


@pytest.fixture(scope="module")
def compared(small, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compare")
    with undrawn():  # of every run
        return workdir, runner.compare(small, workdir, lambda: False)


def test_the_table_and_the_figure(compared, small):
    _, files = compared
    assert [path.name for path in files] == [
        "comparison.md",
        "comparison.json",
        "comparison.png",
    ]
    page = files[0].read_text()
    for word in ("none", "Otsu on the log-ratio", "logistic regression", "hard case"):
        assert word in page
    tables = json.loads(files[1].read_text())["tables"]
    assert [row["name"] for row in tables[0]["rows"] if not row["baseline"]] == ["none"]


def test_numbers_are_those_of_the_saved_predictions(compared, small):
    workdir, _ = compared
    for task in small.finetune:
        trial = Trial(task, "none", 0)
        predicted = load_predictions(trials.run_dir(workdir, trial) / "predictions-test.npz")
        assert trials.flat_metrics(predicted) == trials.read_trial(workdir, trial).metrics
        assert predicted.provenance["split"] == "test"


@pytest.mark.usefixtures("no_drawing")
def test_finished_trials_are_kept_and_missing_ones_run(compared, small, monkeypatch):
    workdir, _ = compared
    made = []
    tuned = trials.run_finetuning
    monkeypatch.setattr(
        trials, "run_finetuning", lambda *given: made.append(given[2]) or tuned(*given)
    )
    monkeypatch.setattr(trials, "run_pretraining", lambda *given: pytest.fail("made again"))
    lost = Trial("floods", "none", 0)
    before = trials.read_trial(workdir, lost)
    (workdir / "cells" / f"{lost.name}.json").unlink()
    runner.compare(small, workdir, lambda: False)
    assert made == [lost]
    assert trials.read_trial(workdir, lost).metrics == before.metrics  # of the run that was there


def test_all_arms_see_the_same_labels_and_random_has_fair_rates(small, tmp_path):
    made = {
        arm: trials.finetuning_config(small, tmp_path, Trial("land_cover", arm, 3))
        for arm in ("random", "none", "per_channel_physical")
    }
    assert {one.label_seed for one in made.values()} == {3}
    assert {one.seed for one in made.values()} == {3}
    assert {one.total_steps for one in made.values()} == {2}
    published = recipe.get_config("bigearthnet")  # layer-wise rates, but not from scratch
    decays = {"random": 1.0, "none": 0.7}
    for arm, decay in decays.items():
        one = trials.finetuning_config(published, tmp_path, Trial("land_cover", arm, 0))
        assert one.optimizer.layer_decay == decay
    assert made["none"].init.endswith("runs/pretraining/none/3")
    first = trials.pretraining_config(small, Trial(PRETRAINING, "per_channel_standardised", 1))
    assert (first.weighting.name, first.weighting.domain) == ("per_channel", "standardised")
    assert first.seed == 1


def test_arms_of_other_runs_are_taken_by_seed(small, tmp_path):
    other = small.copy_and_resolve_references()
    other.arms.none.init = "runs/mine-{seed}"
    assert (
        trials.finetuning_config(other, tmp_path, Trial("floods", "none", 4)).init == "runs/mine-4"
    )
    assert not trials.is_pretrained(other, "none")


def test_another_comparison_is_refused_and_more_seeds_and_arms_are_not(compared, small):
    workdir, _ = compared
    other = small.copy_and_resolve_references()
    other.pretrain.total_steps = 3
    with pytest.raises(InputError, match=r"pretrain.total_steps was 2 and is now 3"):
        runner.check_same_comparison(other, workdir)
    other.pretrain.total_steps, other.seeds = 2, 7
    with other.unlocked():
        other.arms.new = {"init": "runs/mine-{seed}"}
    other.compared = (*other.compared, "new")
    runner.check_same_comparison(other, workdir)
    other.compared = ("none",)  # without the arm that was compared meanwhile
    assert runner.check_same_comparison(other, workdir).compared == ("none", "new")
    path = workdir / runner.CONFIG
    stored = json.loads(path.read_text())
    del stored["compared"]
    path.write_text(json.dumps(stored))
    assert runner.check_same_comparison(other, workdir).compared == ("none",)
    with pytest.raises(InputError, match=r"arms\.new\.init"):  # and it stays
        runner.check_same_comparison(small, workdir)


def test_a_damaged_result_is_named(tmp_path):
    trial = Trial("floods", "none", 0)
    trials.write_trial(tmp_path, TrialResult(trial, {"headline/f1": None, "x": 0.5}, 2.0))
    assert trials.read_trial(tmp_path, trial) == TrialResult(
        trial, {"headline/f1": None, "x": 0.5}, 2.0
    )
    path = tmp_path / "cells" / "floods-none-0.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(InputError, match=r"floods-none-0.json cannot be read"):
        trials.read_trial(tmp_path, trial)


def test_baselines_learn_from_the_labels_of_the_seed(small):
    """On the simulator even these few patches are not guessed; test labels do not enter."""
    splits = baselines.load_baseline_splits(small, "land_cover", 0)
    assert [len(split) for split in splits] == [16, 2, 2]
    said = baselines.logistic_of_images(splits)
    assert said.logits.shape == (2, len(splits[2].classes))
    assert np.isfinite(said.logits).all()


def test_constant_baselines(small):
    """The frequency of every label in training, and that every image is flooded."""
    splits = baselines.load_baseline_splits(small, "land_cover", 0)
    said = baselines.label_frequency(splits)
    labels = np.stack([splits[0].patches.source[i]["labels"] for i in range(len(splits[0]))])
    expected = (labels.sum(0) + 0.5) / (len(labels) + 1)
    np.testing.assert_allclose(said.probabilities, np.tile(expected, (2, 1)), rtol=1e-5)
    floods = baselines.always_flood(baselines.load_baseline_splits(small, "floods", 0))
    found = trials.flat_metrics(floods)
    assert (found["recall"], found["balanced_accuracy"]) == (1.0, 0.5)


@pytest.mark.usefixtures("no_drawing")
def test_stopping_keeps_what_is_finished(compared, small, tmp_path):
    """The first trial stops after its second and last step; the next one is cut short."""
    shutil.copy(compared[0] / runner.REFERENCES, tmp_path)
    stopped = iter([False] + [True] * 1000)
    files = runner.compare(small, tmp_path, lambda: next(stopped))
    assert files[0].exists()
    kept = [path.name for path in (tmp_path / "cells").iterdir()]
    assert kept == ["pretraining-none-0.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"compared": ()}, "expected at least one arm"),
        ({"compared": ("none", "nothing")}, "unknown arm 'nothing'"),
        ({"reference": "nothing"}, "unknown arm 'nothing'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_built(changes, message):
    config = recipe.get_config()
    config.update(changes)
    with pytest.raises(InputError, match=message):
        trials.check_comparison_config(config)


@pytest.mark.parametrize("arm", [name for name, arm in recipe.ARMS.items() if "pretrain" in arm])
def test_every_arm_is_a_pretraining(arm, small):
    """The settings of an arm are accepted and reach the objective."""
    config = recipe.get_config()
    config.compared = (arm,)
    trials.check_comparison_config(config)
    settings = trials.pretraining_config(config, Trial("pretraining", arm, 0))
    patches = load_patch_dataset("synthetic_s1/compare", small.data_dir, "train", ("VH", "VV"))
    objective = make_objective(settings, patches)
    changed = recipe.ARMS[arm]["pretrain"]
    weighting, speckle = objective.preprocessing.weighting, objective.preprocessing.speckle
    assert changed.get("weighting", {}).items() <= dataclasses.asdict(weighting).items()
    assert changed.get("speckle", {}).items() <= dataclasses.asdict(speckle).items()
    assert isinstance(objective.model, OBJECTIVES[changed.get("objective", "mixmae")])


def test_rates_fall_over_what_is_trained(small):
    """For any number of labels the last step is at the lowest rate, the middle one is not."""
    config = recipe.get_config().finetune.floods
    order = ShuffleSampler(102, config.batch_size, 0)
    rate = make_schedule(config, order)
    peak = config.optimizer.base_learning_rate * config.batch_size / 256
    assert rate(config.total_steps // 2) > 0.3 * peak
    assert rate(config.total_steps) == pytest.approx(config.optimizer.end_learning_rate, rel=1e-3)


def test_arms_are_standardised_alike(small, tmp_path):
    random = trials.finetuning_config(small, tmp_path, Trial("floods", "random", 0))
    assert random.statistics == small.pretrain.dataset
