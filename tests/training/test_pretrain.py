"""The run from end to end, in the process: what it writes, going on, and stopping."""

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable

import jax
import numpy as np
import pytest

from configs import repeat
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.data.record_source import RecordSource
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.training import setup, trainer
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.pretrain import train
from sar_mixmae_jax.utils.errors import DivergedError, InputError
from tests.shrink import TWO_STAGES, small_config


def metrics(workdir, name: str) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def leaves(state) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """Six steps in one go."""
    workdir = tmp_path_factory.mktemp("whole")
    return train(small_config(built, picture_patches=1), workdir), workdir


@pytest.mark.parametrize(
    ("side", "mode", "warned"), [(256, "resize", True), (255, "resize", False), (64, "pad", False)]
)
def test_images_that_are_averaged_to_half_their_size(side, mode, warned, caplog):
    setup.warn_of_shrinking(Preprocessing(128, (0.0,), (1.0,), resize_mode=mode), side)
    assert ("averaged in dB to 128 px" in caplog.text) == warned


def test_a_run_writes_what_it_names(whole):
    outcome, workdir = whole
    assert int(outcome.state.step) == 6
    assert set(outcome.files) == {
        "checkpoint",
        "TensorBoard log",
        "metrics",
        "reconstruction picture",
        "record of the run",
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
    assert metadata.model.variant == "tiny"
    assert metadata.model.architecture.embed_dim == 8
    assert metadata.model.weighting.name == "per_channel"
    assert metadata.dataset.bands == ("VH", "VV")
    assert metadata.dataset.unit == "dB"
    assert metadata.dataset.statistics.mean == (-19.2309, -12.5951)
    assert metadata.dataset.name == "bigearthnet_s1/v1/2.0.0/train+validation"
    assert metadata.config["batch_size"] == 4
    assert set(metadata.versions) >= {"jax", "flax", "orbax-checkpoint", "sar-mixmae-jax"}
    kernel = outcome.state.params["encoder"]["patch_embed"]["proj"]["kernel"]
    digest = hashlib.sha256(np.asarray(kernel).tobytes()).hexdigest()
    assert metadata.arrays["params/encoder/patch_embed/proj/kernel"] == digest


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
    assert start["kernels"] == {"attention": "plain", "norm": "plain"}


def test_the_log_says_where_the_time_went(whole):
    _, workdir = whole
    for part in ("data", "compute"):
        seconds = metrics(workdir, f"seconds/{part}")
        assert list(seconds) == [1, 2, 3, 4, 5, 6]
        assert all(value >= 0 for value in seconds.values())
    assert set(metrics(workdir, "seconds/save")) == {3, 5}  # told by the line after the save
    assert set(metrics(workdir, "checkpoint_blocked_seconds")) == {2, 4, 6}


@pytest.mark.usefixtures("no_drawing")
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
    try:
        other = small_config(  # compiled here
            built, total_steps=7, picture_every=2, picture_patches=1, mask_ratio=0.25
        )
        train(other, tmp_path, note)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert compilations[0] > 0
    assert not [step for step in compilations if step > 2]


def test_interrupted_and_started_again_is_bitwise_the_same(whole, built, tmp_path):
    """Stopped after four steps, with a stale line in the log as a killed run leaves it."""
    outcome, workdir = whole
    train(small_config(built, total_steps=4), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 99.0}\n{"step": 5, "lo')
    again = train(small_config(built), tmp_path)
    for ours, theirs in zip(leaves(again.state), leaves(outcome.state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert metrics(tmp_path, "loss") == metrics(workdir, "loss")


def test_a_finished_run_does_nothing_but_name_its_files(whole, built):
    outcome, workdir = whole

    def files() -> dict[str, bytes]:
        found = (path for path in workdir.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path): path.read_bytes() for path in found}

    before = files()
    again = train(small_config(built), workdir)
    assert again.files == outcome.files
    assert files() == before


def test_a_finished_run_is_done_with_another_batch_too(built, tmp_path):
    train(small_config(built, total_steps=None, epochs=1.0), tmp_path)
    again = train(small_config(built, total_steps=None, epochs=1.0, batch_size=8), tmp_path)
    assert again.state.step == 2


def test_a_workdir_of_another_configuration_is_refused(whole, built):
    _, workdir = whole
    before = (workdir / "run.json").read_text()
    with pytest.raises(InputError, match=r"weighting\.scale was 1\.0 and is now 2\.0"):
        train(small_config(built, **{"weighting.scale": 2.0}), workdir)
    assert (workdir / "run.json").read_text() == before


def test_another_order_of_records_is_refused_and_the_version_named(whole, built, monkeypatch):
    monkeypatch.setattr(trainer, "next_records", lambda *_: ())
    version = read_metadata(whole[1] / "checkpoints/6").versions["sar-mixmae-jax"]
    message = f"records after step 6 differ .*: resume with sar-mixmae-jax {version}, which wrote"
    with pytest.raises(InputError, match=message):
        train(small_config(built), whole[1])


def test_an_odd_share_of_the_batch_is_refused_before_anything_is_written(built, tmp_path):
    with pytest.raises(InputError, match=r"batch_size is 6 on 2 device.*choose a multiple of 4"):
        train(small_config(built, batch_size=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_patches_that_do_not_fit_are_refused_before_anything_is_written(built, tmp_path):
    changes = {"resize_mode": "pad", "model.image_size": 64}
    with pytest.raises(InputError, match="cannot pad images of 120x120 px to 64 px"):
        train(small_config(built, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_cache_is_refused_before_anything_is_written(built, tmp_path):
    with pytest.raises(InputError, match=r"unknown data\.cache 'gpu'"):
        train(small_config(built, **{"data.cache": "gpu"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_few_patches_are_refused_before_anything_is_written(built, tmp_path):
    with pytest.raises(InputError, match="found 10 records"):
        train(small_config(built, batch_size=16), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_names_step_and_patches(built, tmp_path, monkeypatch):
    """One absurd value (1e30 dB) in one patch: power overflows, and the loss with it."""
    read = RecordSource.read_rows

    def poisoned(self, rows):
        columns = read(self, rows)
        columns["backscatter"][rows == 5] = 1e30
        columns["backscatter"][rows == 5, 0, 0] = -1e30
        return columns

    source = load_patch_dataset("bigearthnet_s1", built, "train", ("VH", "VV")).source
    name = source[5]["id"].decode()
    monkeypatch.setattr(RecordSource, "read_rows", poisoned)
    with pytest.raises(DivergedError, match=r"step [12]: found .*loss nan") as stopped:
        train(small_config(built, total_steps=8), tmp_path)
    assert name in str(stopped.value)
    assert str(stopped.value).count("S1A_") <= 2  # it and perhaps its partner, not the whole batch
    assert "\n" not in str(stopped.value)


@pytest.mark.usefixtures("no_drawing")
def test_the_loss_falls_and_a_rate_of_zero_is_told(built, tmp_path, caplog):
    """The last epoch would look like training."""
    config = small_config(
        built,
        total_steps=60,
        schedule_epochs=29.0,
        norm_pix_loss=False,
        random_flip=False,
        log_every=10,
        checkpoint_every=60,
        picture_every=60,
        **TWO_STAGES,
        **{"optimizer.base_learning_rate": 0.2},
    )
    with caplog.at_level(logging.WARNING):
        train(config, tmp_path)
    losses = metrics(tmp_path, "loss")
    assert losses[60] < 0.8 * losses[10]
    assert metrics(tmp_path, "explained_variance")[60] > 0.1
    assert "the learning rate reaches 0 at epoch 29, the run has 30 epochs" in caplog.text


def at_step(wanted: int, action: Callable[[], object]) -> Callable[[], bool]:
    """A `stop` that never stops, and does something after a step."""
    steps = iter(range(1, 1000))

    def stop() -> bool:
        if next(steps) == wanted:
            action()
        return False

    return stop


def test_a_clock_that_jumps_does_no_harm(whole, built, tmp_path, monkeypatch):
    """A day back after three steps, as when the time is set on a machine that has started."""
    _, undisturbed = whole
    now, offset = time.time, 0.0

    def set_back() -> None:
        nonlocal offset
        offset = -86_400.0

    monkeypatch.setattr(time, "time", lambda: now() + offset)
    train(small_config(built), tmp_path, at_step(3, set_back))
    assert metrics(tmp_path, "loss") == metrics(undisturbed, "loss")
    assert all(rate > 0 for rate in metrics(tmp_path, "images_per_second").values())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("checksum", "0" * 64, r"dataset\.checksum was '\w{64}' and is now '0{64}'"),
        (
            "statistics",
            {"mean": [-18.0, -12.0], "std": [3.0, 3.0], "of": "train"},
            r"dataset\.statistics\.mean was \[-19\.2309, -12\.5951\] and is now \[-18\.0, -12\.0\]",
        ),
    ],
)
def test_a_dataset_that_was_exchanged_is_noticed(whole, built, tmp_path, field, value, message):
    """Built again from other files, or with other statistics, under the same name."""
    data = shutil.copytree(built, tmp_path / "data")
    shutil.copytree(whole[1], tmp_path / "run")
    path = data / "bigearthnet_s1/v1/2.0.0/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    before = (tmp_path / "run/run.json").read_text()
    with pytest.raises(InputError, match=message):
        train(small_config(data, total_steps=8), tmp_path / "run")
    assert (tmp_path / "run/run.json").read_text() == before


def test_a_dataset_that_vanished_is_named(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "run")
    with pytest.raises(InputError, match="found no dataset 'bigearthnet_s1'"):
        train(small_config(tmp_path / "gone", total_steps=8), tmp_path / "run")


def test_a_patch_without_a_single_measurement_does_no_harm(built, tmp_path, monkeypatch):
    read = RecordSource.read_rows

    def empty(self, rows):
        columns = read(self, rows)
        columns["backscatter"][rows == 5] = np.nan
        return columns

    monkeypatch.setattr(RecordSource, "read_rows", empty)
    outcome = train(small_config(built), tmp_path)
    assert all(np.isfinite(loss) for loss in metrics(tmp_path, "loss").values())
    assert all(np.isfinite(leaf).all() for leaf in leaves(outcome.state))


def test_another_batch_goes_on_at_the_next_record_and_then_in_microbatches(built, tmp_path, caplog):
    """Ten records: two batches of four are an epoch, and its last two are left out."""
    train(small_config(built, total_steps=1), tmp_path)
    with caplog.at_level(logging.WARNING):
        outcome = train(small_config(built, total_steps=3, batch_size=8), tmp_path)
    assert "batch_size was 4 and is now 8: the learning rate" in caplog.text
    order = read_metadata(outcome.files["checkpoint"]).order
    assert order == {
        "records": 10, "batch_size": 8, "seed": 0, "step": 1, "epoch": 0, "offset": 4
    }  # fmt: skip
    assert metrics(tmp_path, "epoch") == {1: 0.5, 2: 2.0, 3: 3.0}  # four records do not fill eight
    with caplog.at_level(logging.WARNING):
        train(small_config(built, total_steps=4, batch_size=8, grad_accum_steps=2), tmp_path)
    assert "the batch was cut into 2 microbatch(es) and is now cut into 4" in caplog.text
    assert list(metrics(tmp_path, "loss")) == [1, 2, 3, 4]


def test_a_checkpoint_folder_that_is_gone_is_no_fresh_start(whole, built, tmp_path):
    shutil.copytree(whole[1], tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(InputError, match="step 6 was saved, and the folder is empty or gone"):
        train(small_config(built, total_steps=8), tmp_path / "run")


@pytest.mark.usefixtures("no_drawing")
def test_a_run_can_be_repeated_from_its_record(whole, tmp_path):
    outcome, workdir = whole
    again = train(repeat.get_config(str(workdir / "run.json")), tmp_path)
    assert metrics(tmp_path, "loss") == metrics(workdir, "loss")
    for ours, theirs in zip(leaves(again.state), leaves(outcome.state), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_record_that_is_none_cannot_be_repeated(tmp_path):
    (tmp_path / "run.json").write_text('{"config": {"bacth_size": 4}}')
    for name in ("run.json", "missing.json"):
        with pytest.raises(InputError, match=r"cannot be used .* expected the run\.json of a run"):
            repeat.get_config(str(tmp_path / name))
