"""The run from end to end, in the process: what it writes, going on, and stopping."""

import json

import jax
import numpy as np
import pytest

from sar_mixmae_jax.data import RecordSource, open_patches
from sar_mixmae_jax.errors import DivergedError, InputError
from sar_mixmae_jax.pretrain import train
from tests.shrink import small_config


def metrics(workdir, name: str) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def leaves(state) -> list[np.ndarray]:
    tree = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


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
    metadata = json.loads((outcome.files["checkpoint"] / "metadata" / "metadata").read_text())
    assert metadata["variant"] == "tiny"
    assert metadata["architecture"]["width"] == 8
    assert metadata["bands"] == ["VH", "VV"]
    assert metadata["unit"] == "dB"
    assert metadata["statistics"]["mean"] == [-19.2309, -12.5951]
    assert metadata["weighting"]["name"] == "per_channel"
    assert metadata["config"]["batch_size"] == 4
    assert set(metadata["versions"]) >= {"jax", "flax", "orbax-checkpoint", "sar-mixmae-jax"}


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
    before = (workdir / "config.json").read_text()
    with pytest.raises(InputError, match=r"weighting\.scale was 1\.0 and is now 2\.0"):
        train(small_config(built, **{"weighting.scale": 2.0}), workdir)
    assert (workdir / "config.json").read_text() == before


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
