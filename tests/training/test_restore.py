"""Damaged checkpoints: named, put away, and the one before taken; never wrong values."""

import hashlib
import json
import logging
import shutil

import numpy as np
import pytest

from sar_mixmae_jax.training.checkpoint import (
    CheckpointManager,
    RetentionPolicy,
    array_checksums,
    read_metadata,
)
from sar_mixmae_jax.training.restore import read_checkpoint, restore_newest_valid
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.utils.errors import InputError
from tests.descriptions import describe, metadata
from tests.training.test_checkpoint import kept, state_of

RUN = describe()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("pristine")
    checkpoints = CheckpointManager(folder, RetentionPolicy(3))
    for step in (2, 4, 6):
        checkpoints.save(step, replicate(state_of(step)), metadata(), {})
    checkpoints.close()
    return folder


@pytest.fixture
def workdir(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "run")


def flip(path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def array_file(folder):
    return max((folder / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def test_a_flipped_bit_is_seen_and_the_one_before_is_taken(workdir, caplog):
    path = array_file(workdir / "checkpoints/6")
    flip(path, path.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        saved = restore_newest_valid(workdir, state_of(0), RUN, known=6)
    assert saved.step == 4
    np.testing.assert_array_equal(saved.state.params["encoder"]["kernel"], np.full((64, 64), 4))
    told = caplog.text
    assert "checkpoints/6 is not used" in told
    assert "step 6 was saved and is missing or damaged: resuming from step 4" in told
    assert kept(workdir) == [2, 4]
    assert [path.name for path in (workdir / "checkpoints_damaged").iterdir()] == ["6-0"]


def test_a_second_damage_of_the_same_step_loses_nothing(workdir):
    for _ in range(2):
        shutil.copytree(workdir / "checkpoints/4", workdir / "checkpoints/6", dirs_exist_ok=True)
        restore_newest_valid(workdir, state_of(0), RUN)
    assert {path.name for path in (workdir / "checkpoints_damaged").iterdir()} == {"6-0", "6-1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "state"), "arrays cannot be read"),
        (lambda folder: shutil.rmtree(folder / "metadata"), "metadata cannot be read"),
        (lambda folder: flip(folder / "metadata/metadata", 20), "metadata"),
        (lambda folder: (folder / "metadata/metadata").write_text("[]"), "metadata cannot be"),
        (lambda folder: array_file(folder).write_bytes(b""), "arrays cannot be read"),
        (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "metadata cannot be read"),
    ],
)
def test_what_is_wrong_is_told(workdir, change, message):
    change(workdir / "checkpoints/6")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(workdir / "checkpoints/6", state_of(0))
    assert restore_newest_valid(workdir, state_of(0), RUN).step == 4


def test_a_digit_of_the_metadata_matters(workdir):
    path = workdir / "checkpoints/6/metadata/metadata"
    content = json.loads(path.read_text())
    content["config"]["seed"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="do not have their checksum"):
        read_metadata(workdir / "checkpoints/6")


def test_exchanged_steps_are_seen(workdir):
    folder = workdir / "checkpoints"
    (folder / "4").rename(folder / "x")
    (folder / "6").rename(folder / "4")
    (folder / "x").rename(folder / "6")
    assert restore_newest_valid(workdir, state_of(0), RUN).step == 2


def test_a_checkpoint_of_another_run_is_not_taken(workdir, tmp_path):
    checkpoints = CheckpointManager(tmp_path / "other", RetentionPolicy(1))
    checkpoints.save(8, replicate(state_of(8)), metadata(seed=1), {})
    checkpoints.close()
    shutil.copytree(tmp_path / "other/checkpoints/8", workdir / "checkpoints/8")
    assert restore_newest_valid(workdir, state_of(0), RUN).step == 6


def test_a_model_of_another_size_is_refused(workdir):
    with pytest.raises(InputError, match="found no valid checkpoint"):
        restore_newest_valid(workdir, state_of(0, side=32), RUN)
    assert kept(workdir) == [2, 4, 6]  # nothing is moved where nothing is taken


def test_none_sound_is_an_error_that_names_each(workdir):
    for step in (2, 4, 6):
        shutil.rmtree(workdir / f"checkpoints/{step}/state")
    with pytest.raises(InputError, match=r"found no valid checkpoint \(6: .*; 4: .*; 2: .*\)"):
        restore_newest_valid(workdir, state_of(0), RUN)


def test_checkpoints_that_are_gone_are_no_fresh_start(workdir):
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(InputError, match="step 6 was saved, and the folder is empty or gone"):
        restore_newest_valid(workdir, state_of(0), RUN, known=6)


def test_a_checksum_is_that_of_the_bytes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = {"a": {"b": array}, "c": np.int32(3)}
    assert array_checksums(tree) == {
        "a/b": hashlib.sha256(array.tobytes()).hexdigest(),
        "c": hashlib.sha256(np.int32(3).tobytes()).hexdigest(),
    }
    transposed = np.asfortranarray(array)
    assert array_checksums({"a": transposed})["a"] == array_checksums({"a": array})["a"]
