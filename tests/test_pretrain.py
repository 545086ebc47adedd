"""The run from end to end, in the process: what it writes, going on, and stopping."""

import hashlib
import json
from collections import Counter

import jax
import numpy as np
import pytest

from sar_mixmae_jax.data import RecordSource, open_patches
from sar_mixmae_jax.errors import DivergedError, InputError
from sar_mixmae_jax.pretrain import train
from sar_mixmae_jax.restore import read_metadata
from tests.shrink import small_config


def metrics(workdir, name: str) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def leaves(state) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """Six steps in one go."""
    workdir = tmp_path_factory.mktemp("whole")
    return train(small_config(built), workdir), workdir


def test_a_run_writes_what_it_names(whole):
    outcome, workdir = whole
    assert int(outcome.state.step) == 6
    assert set(outcome.files) == {
        "checkpoint",
        "TensorBoard log",
        "metrics",
        "reconstruction picture",
        "record of the run",
        "summary",
    }
    assert all(path.exists() for path in outcome.files.values())
    for name in ("loss", "learning_rate", "gradient_norm", "images_per_second"):
        assert list(metrics(workdir, name)) == [1, 2, 3, 4, 5, 6]
    assert list(metrics(workdir, "weight_cv/VV")) == [0, 6]
    assert metrics(workdir, "learning_rate")[1] == 0  # the warm-up starts at zero
    assert list((workdir / "tensorboard").glob("events.*"))
    assert not list(workdir.rglob("*partial*"))


def test_a_checkpoint_describes_itself(whole):
    outcome, _ = whole
    metadata = read_metadata(outcome.files["checkpoint"])
    assert metadata["model"]["variant"] == "tiny"
    assert metadata["model"]["architecture"]["width"] == 8
    assert metadata["model"]["weighting"]["name"] == "per_channel"
    assert metadata["dataset"]["bands"] == ["VH", "VV"]
    assert metadata["dataset"]["unit"] == "dB"
    assert metadata["dataset"]["statistics"]["mean"] == [-19.2309, -12.5951]
    assert metadata["dataset"]["name"] == "bigearthnet_s1/v1/2.0.0/train+validation"
    assert metadata["config"]["batch_size"] == 4
    assert set(metadata["versions"]) >= {"jax", "flax", "orbax-checkpoint", "sar-mixmae-jax"}
    kernel = outcome.state.params["encoder"]["patch_embed"]["proj"]["kernel"]
    digest = hashlib.sha256(np.asarray(kernel).tobytes()).hexdigest()
    assert metadata["arrays"]["params/encoder/patch_embed/proj/kernel"] == digest


def test_the_record_says_what_is_needed_to_repeat_the_run(whole, built):
    _, workdir = whole
    record = json.loads((workdir / "run.json").read_text())
    stored = json.loads((built / "bigearthnet_s1/v1/2.0.0/metadata.json").read_text())
    assert record["dataset"]["checksum"] == stored["checksum"]
    assert record["dataset"]["records"] == 10
    assert record["config"]["seed"] == 0
    assert record["saved"] == 6
    (start,) = record["starts"]
    assert start["step"] == 0
    assert start["versions"]["jax"] == jax.__version__
    assert (start["device"], start["devices"], start["processes"]) == ("cpu", 2, 1)


def test_the_log_says_where_the_time_went(whole):
    _, workdir = whole
    for part in ("data", "compute"):
        seconds = metrics(workdir, f"seconds/{part}")
        assert list(seconds) == [1, 2, 3, 4, 5, 6]
        assert all(value >= 0 for value in seconds.values())
    assert set(metrics(workdir, "seconds/save")) == {3, 5}  # told by the line after the save
    assert set(metrics(workdir, "checkpoint_blocked_seconds")) == {2, 4, 6}


def test_nothing_compiles_after_the_first_steps(built, tmp_path):
    """Neither the step nor a picture, a log line or a checkpoint."""
    compilations: dict[int, int] = Counter()
    reached = 0

    def count(event: str, duration: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compilations[reached] += 1

    def note() -> bool:
        nonlocal reached
        reached += 1
        return False

    jax.monitoring.register_event_duration_secs_listener(count)
    train(small_config(built, max_steps=9, picture_every=2), tmp_path, note)
    assert compilations[0] > 0
    assert not [step for step in compilations if step > 2]


def test_interrupted_and_started_again_is_bitwise_the_same(whole, built, tmp_path):
    """Stopped after four steps, with a stale line in the log as a killed run leaves it."""
    outcome, workdir = whole
    train(small_config(built, max_steps=4), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 99.0}\n{"step": 5, "lo')
    again = train(small_config(built), tmp_path)
    for ours, theirs in zip(leaves(again.state), leaves(outcome.state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert metrics(tmp_path, "loss") == metrics(workdir, "loss")


def test_a_finished_run_does_nothing_but_name_its_files(whole, built):
    outcome, workdir = whole
    before = outcome.files["metrics"].read_text()
    again = train(small_config(built), workdir)
    assert again.files == outcome.files
    assert outcome.files["metrics"].read_text() == before


def test_a_workdir_of_another_configuration_is_refused(whole, built):
    _, workdir = whole
    before = (workdir / "run.json").read_text()
    with pytest.raises(InputError, match=r"weighting\.scale was 1\.0 and is now 2\.0"):
        train(small_config(built, **{"weighting.scale": 2.0}), workdir)
    assert (workdir / "run.json").read_text() == before


def test_an_odd_share_of_the_batch_is_refused_before_anything_is_written(built, tmp_path):
    with pytest.raises(InputError, match=r"batch_size is 6 on 2 device.*choose a multiple of 4"):
        train(small_config(built, batch_size=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_patches_that_do_not_fit_are_refused_before_anything_is_written(built, tmp_path):
    changes = {"fit": "pad", "model.image_size": 64}
    with pytest.raises(InputError, match="cannot pad patches of 120x120 px to 64 px"):
        train(small_config(built, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_few_patches_are_refused_before_anything_is_written(built, tmp_path):
    with pytest.raises(InputError, match="found 10 patches"):
        train(small_config(built, batch_size=16), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_names_step_and_patches(built, tmp_path, monkeypatch):
    """One absurd value (1e30 dB) in one patch: power overflows, and the loss with it."""
    read = RecordSource.__getitem__

    def poisoned(self, index):
        record = read(self, index)
        if index == 5:
            record["backscatter"] = np.full_like(record["backscatter"], 1e30)
            record["backscatter"][0, 0] = -1e30
        return record

    source = open_patches("bigearthnet_s1", built, "train", ("VH", "VV")).source
    name = source[5]["id"].decode()
    monkeypatch.setattr(RecordSource, "__getitem__", poisoned)
    with pytest.raises(DivergedError, match=r"step [12]: found .*loss nan") as stopped:
        train(small_config(built, max_steps=8), tmp_path)
    assert name in str(stopped.value)
    assert str(stopped.value).count("S1A_") <= 2  # it and perhaps its partner, not the whole batch
    assert "\n" not in str(stopped.value)


def test_the_loss_falls(built, tmp_path):
    config = small_config(
        built,
        max_steps=60,
        norm_pix=False,
        log_every=10,
        checkpoint_every=60,
        picture_every=60,
        **{"optimizer.base_learning_rate": 0.2},
    )
    config.flips = False
    train(config, tmp_path)
    losses = metrics(tmp_path, "loss")
    assert losses[60] < 0.8 * losses[10]
    assert metrics(tmp_path, "explained")[60] > 0.15
