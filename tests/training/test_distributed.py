"""Several processes as one run, over the loopback device: the same numbers, and no hanging."""

import json
import shutil
import signal
import time

import jax
import pytest

from sar_mixmae_jax.training.distributed import join_processes as join
from sar_mixmae_jax.utils.errors import InputError
from tests.launch import finish, start, start_together
from tests.shrink import flags
from tfds_builders.bigearthnet_s1.fake_patches import write_patches
from tfds_builders.build import build

DATASET = "bigearthnet_s1/v1_unsplit"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Flags of a run on 20 patches in batches of 8: more than three epochs in eight steps."""
    folder = tmp_path_factory.mktemp("processes")
    build(DATASET, folder / "data", write_patches(folder / "raw", 20))

    def make(**changes) -> list[str]:
        changes = {"total_steps": 8, "picture_every": 100, "checkpoint_every": 100, **changes}
        return flags(folder / "data", dataset=DATASET, split="train", batch_size=8, **changes)

    return make


def losses(workdir) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def wait_for_step(workdir, step: int, processes) -> None:
    """Wait until a step was logged."""
    deadline = time.monotonic() + 200
    while max(losses(workdir)) < step:
        assert all(process.poll() is None for process in processes), finish(processes[0])
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_and_devices_may_come_and_go(settings, tmp_path):
    """One process of four devices, then two of two until one is told to stop, then one of four.

    The records are read from disk, then on the devices of each process, then in host memory.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = settings(total_steps=40, checkpoint_every=20, **{"data.cache": "none"})
    status, *_ = finish(start(*arguments, f"--workdir={whole}", devices=4))
    assert status == 0
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints/40")
    lines = (parts / "metrics.jsonl").read_text().splitlines(keepends=True)
    before = [line for line in lines if json.loads(line)["step"] <= 20]
    (parts / "metrics.jsonl").write_text("".join(before))
    folder = {"data.cache_dir": tmp_path / "cache"}

    arguments = settings(total_steps=5000, **folder, **{"data.cache": "device"})
    processes = start_together(2, *arguments, f"--workdir={parts}", devices=2, fork=False)
    wait_for_step(parts, 22, processes)
    processes[1].send_signal(signal.SIGTERM)
    results = [finish(process) for process in processes]
    assert [status for status, *_ in results] == [0, 0], results
    stopped = json.loads((parts / "run.json").read_text())["saved"]
    assert 22 <= stopped <= 38
    message = f"stopped after step {stopped}, which is saved: continue with the same command"
    assert [message in output for _, output, _ in results] == [True, False]

    arguments = settings(total_steps=stopped + 2, **folder, **{"data.cache": "host"})
    status, output, errors = finish(start(*arguments, f"--workdir={parts}", devices=4))
    assert status == 0, errors
    assert f"done: {stopped + 2} steps" in output
    assert list(losses(parts)) == list(range(1, stopped + 3))
    for step, loss in losses(parts).items():
        assert losses(whole)[step] == pytest.approx(loss, abs=1e-6)
    record = json.loads((parts / "run.json").read_text())
    assert [(entry["step"], entry["processes"]) for entry in record["starts"]] == [
        (0, 1),
        (20, 2),
        (stopped, 1),
    ]


def test_a_process_that_fails_ends_the_others_with_its_reason(settings, tmp_path):
    arguments = (*settings(), f"--workdir={tmp_path}")
    processes = start_together(
        2, *arguments, devices=2, last_arguments=["--config.mask_ratio=0.25"]
    )
    (status, _, errors), (other_status, _, other_errors) = map(finish, processes)
    assert other_status == 2
    assert "another configuration or dataset than the first one" in other_errors
    assert status == 2
    assert "process 1 of 2 on " in errors
    assert "failed: this process has another configuration" in errors


def test_processes_with_workdirs_of_their_own_are_refused(settings, tmp_path):
    """Each would save a part, and wait for ever for the others'."""
    arguments = (*settings(), f"--workdir={tmp_path / 'one'}")
    processes = start_together(
        2, *arguments, devices=2, last_arguments=[f"--workdir={tmp_path / 'two'}"]
    )
    (status, _, errors), (other_status, _, other_errors) = map(finish, processes)
    assert (status, other_status) == (2, 2)
    assert "two is not the folder of the primary process" in other_errors
    assert "process 1 of 2 on " in errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("127.0.0.1:1", None, 0), "expected all three"),
        ((None, 2, None), "expected all three"),
        (("127.0.0.1:1", 2, 2), "--process_id is 2 and --num_processes 2: expected"),
        (("127.0.0.1:1", 0, 0), "expected at least one process"),
        (("nonsense", 2, 0), "expected host:port"),
        (("host.invalid:1", 2, 1), "which cannot be resolved on this host"),
    ],
)
def test_half_a_description_of_the_processes_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        join(*given)


def test_alone_nothing_is_joined(monkeypatch):
    """Neither without a cluster nor in a Slurm job of one task."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    join(None, None, None)
    job = {"JOB_ID": "1", "STEP_NODELIST": "a", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    join(None, None, None)


def test_a_cluster_tells_how_many_there_are(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **__: joined.append(args))
    job = {"JOB_ID": "1", "STEP_NODELIST": "a", "NTASKS": "4", "PROCID": "2", "LOCALID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    join(None, None, None)
    assert joined == [(None, None, None)]
