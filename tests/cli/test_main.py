"""The command line as a user runs it, without TensorFlow, and what it says to bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sar_mixmae_jax.cli import train
from tests.launch import call
from tests.shrink import flags
from tfds_builders.bigearthnet_s1.fake_patches import write_lists, write_patches

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def no_tensorflow(tmp_path_factory) -> dict[str, str]:
    """An environment in which importing TensorFlow raises."""
    folder = tmp_path_factory.mktemp("poison")
    (folder / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')\n")
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "JAX_PLATFORMS": "cpu"}


def run(environment, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_raw_patches_to_checkpoint_and_picture_without_tensorflow(no_tensorflow, tmp_path):
    """Six patches, one command to build, one to train, one more to find it done."""
    raw, data = write_patches(tmp_path / "raw", 6), tmp_path / "data"
    write_lists(raw, {"train": range(4), "validation": [4], "test": [5]})
    built = run(
        no_tensorflow,
        "tfds_builders.build",
        "bigearthnet_s1",
        f"--manual_dir={raw}",
        f"--data_dir={data}",
    )
    assert built.returncode == 0, built.stderr
    assert "bigearthnet_s1/v1/2.0.0: train, 4 patches" in built.stdout

    settings = flags(data, total_steps=2, checkpoint_every=2, picture_patches=1)
    arguments = ("sar_mixmae_jax.main", *settings, f"--workdir={tmp_path / 'run'}")
    trained = run(no_tensorflow, *arguments)
    assert trained.returncode == 0, trained.stderr
    assert "done: 2 steps of tiny on bigearthnet_s1/v1/2.0.0/train+validation" in trained.stdout
    assert "(spatially dependent split)" in trained.stdout
    assert "step 2/2" in trained.stderr
    named = [line.split(": ")[1] for line in trained.stdout.splitlines() if line[:2] == "  "]
    assert len(named) == 6
    assert all(Path(path).exists() for path in named)
    losses = (tmp_path / "run/metrics.jsonl").read_text()
    assert json.loads(losses.splitlines()[1])["step"] == 1

    again = run(no_tensorflow, *arguments)
    passing = ("compiling the step", "records:")  # lines about what is done only once
    kept = [line for line in trained.stdout.splitlines() if not line.startswith(passing)]
    assert again.stdout.splitlines() == kept
    assert (tmp_path / "run/metrics.jsonl").read_text() == losses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/pretrain.py:variant=bse"],
            "unknown variant 'bse': did you mean 'base'",
        ),
        (["--config=configs/pretrain.py:size=base"], "unknown config argument 'size'"),
        (["--config=configs/pretrain.py", "--config.weighting.nme=none"], "did you mean 'name'"),
        (["--config=configs/pretrain.py", "--config.bath_size=4"], "did you mean 'batch_size'"),
        (["--config=configs/pretrain.py", "--config.batch_size=four"], "four"),
        (["--config=configs/pretrian.py"], "pretrian"),
        (["--config=configs/pretrain.py", "stray"], "stray"),
        (["--config=configs/pretrain.py", "--config.data_dir=nowhere"], "sar-mixmae build"),
        (
            ["--config=configs/pretrain.py", "--config.data_dir=gs://bucket/data"],
            "mount the bucket",
        ),
        ([], "config"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, arguments, message):
    workdir = tmp_path / "run"
    status, _, errors = call(train.main, *arguments, f"--workdir={workdir}")
    assert status == 2
    lines = errors.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not workdir.exists()


def start_and_stop(environment, data_dir, workdir, sent) -> tuple[int, int]:
    """Start a run, send a signal after its next step; return its status and its last step."""
    settings = flags(data_dir, total_steps=5000, checkpoint_every=5000, picture_every=5000)
    process = subprocess.Popen(
        [sys.executable, "-m", "sar_mixmae_jax.main", *settings, f"--workdir={workdir}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    metrics = workdir / "metrics.jsonl"
    before = metrics.read_text().count('"loss"') if metrics.exists() else 0
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count('"loss"') > before):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=100)
    return process.returncode, int(
        re.search(r"stopped after step (\d+), which is saved", output)[1]
    )


def test_asked_to_stop_it_saves_and_goes_on_from_there(no_tensorflow, built, tmp_path):
    """Before the first regular checkpoint, where there would be nothing to go on from."""
    workdir = tmp_path / "run"
    status, first = start_and_stop(no_tensorflow, built, workdir, signal.SIGINT)
    assert status == 130
    assert (workdir / "checkpoints" / str(first)).is_dir()
    status, second = start_and_stop(no_tensorflow, built, workdir, signal.SIGTERM)
    assert status == 0
    assert first < second
    assert (workdir / "checkpoints" / str(second)).is_dir()

    settings = flags(built, total_steps=second + 2, checkpoint_every=5000, picture_every=5000)
    again = run(no_tensorflow, "sar_mixmae_jax.main", *settings, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    assert f"resuming after step {second}" in again.stdout
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in lines if '"loss"' in line]
    assert [line["step"] for line in losses] == list(range(1, second + 3))


def test_a_full_disk_is_said_in_one_line_and_loses_nothing(no_tensorflow, built, tmp_path):
    """No file may become larger than a checkpoint's; then there is room, and the run goes on."""
    workdir = tmp_path / "run"
    settings = flags(built, total_steps=4, picture_every=100, **{"model.decoder_embed_dim": 256})
    command = [sys.executable, "-m", "sar_mixmae_jax.main", *settings, f"--workdir={workdir}"]
    failed = subprocess.run(
        ["bash", "-c", 'ulimit -f 1000 && exec "$@"', "bash", *command],  # in KiB
        cwd=ROOT,
        env=no_tensorflow,
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 2, failed.stderr
    told = [line for line in failed.stderr.splitlines() if "error:" in line]
    assert len(told) == 1, failed.stderr
    assert "a checkpoint cannot be written" in told[0], failed.stderr
    assert "see that the disk has room and start again" in told[0]
    assert "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1] == told[0]

    again = run(no_tensorflow, *command[2:])
    assert again.returncode == 0, again.stderr
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
