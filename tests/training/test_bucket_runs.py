"""Workdirs in a bucket: the numbers of a run on a disk, also after a killed process or server."""

import json
import threading
import time

import pytest

from configs import finetune
from sar_mixmae_jax.cli import evaluate, train
from sar_mixmae_jax.run_report.page import PAGE
from sar_mixmae_jax.training.metric_logger import METRICS, MetricLogger
from sar_mixmae_jax.training.workdir import RECORD
from sar_mixmae_jax.utils import files, object_store
from sar_mixmae_jax.utils.errors import StorageError, name_buckets
from sar_mixmae_jax.utils.files import local_path
from sar_mixmae_jax.utils.lease import hold_lease
from tests.launch import call, finish, start_together
from tests.shrink import SHORT_TUNING, flags

COMPLETE = "metadata/metadata"
LENGTH = {"total_steps": 16, "checkpoint_every": 4}
pytestmark = pytest.mark.usefixtures("no_drawing_in_module")


def arrays(workdir, step: int) -> dict[str, str]:
    """Checksums of the arrays of a checkpoint."""
    return json.loads((workdir / f"checkpoints/{step}" / COMPLETE).read_text())["arrays"]


def losses(workdir) -> dict[int, float]:
    lines = map(json.loads, (workdir / METRICS).read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def train_anew(*arguments: object) -> tuple[int, str, str]:
    """Train without the mirrors of earlier runs, as another process does."""
    files.MIRRORS.clear()
    return call(train.main, *arguments)


def open_anew(url: str):
    files.MIRRORS.clear()
    return local_path(url)


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """The workdir of a local run of 16 steps."""
    workdir = tmp_path_factory.mktemp("whole")
    status, _, errors = call(train.main, *flags(built, **LENGTH), f"--workdir={workdir}")
    assert status == 0, errors
    return workdir


@pytest.fixture(scope="module")
def data_dir(bucket_server, built) -> str:
    """Address of a folder with `bigearthnet_s1`."""
    url = "gs://runs/built"
    for path in built.rglob("*"):
        if path.is_file():
            object_store.write(f"{url}/{path.relative_to(built)}", path.read_bytes())
    return url


@pytest.fixture
def steps_and_requests(monkeypatch):
    """A list of "step" and the paths of requests, in their order."""
    events: list[str] = []
    fs = object_store.file_system("gs")
    request, advance = fs._request, MetricLogger.advance

    async def note_request(method, path, *args, **kwargs):
        events.append(f"{method} {path}")
        return await request(method, path, *args, **kwargs)

    def note_step(self):
        events.append("step")
        advance(self)

    monkeypatch.setattr(fs, "_request", note_request)
    monkeypatch.setattr(MetricLogger, "advance", note_step)
    return events


def test_a_run_with_a_server_that_comes_and_goes(whole, data_dir, buckets, steps_and_requests):
    """Steps make no request, and the resumed run is bitwise the same as a local one."""
    url = "gs://runs/parts"
    arguments = flags(data_dir, total_steps=4, checkpoint_every=4)
    status, output, errors = train_anew(*arguments, f"--workdir={url}")
    assert status == 0, errors
    assert f"checkpoint: {url}/checkpoints/4" in output
    first, last = (
        steps_and_requests.index("step"),
        len(steps_and_requests) - steps_and_requests[::-1].index("step"),
    )
    assert steps_and_requests[first:last] == ["step"] * 4
    assert any("/o" in event for event in steps_and_requests[last:])

    buckets.kill()
    threading.Timer(0.3, buckets.start).start()
    status, output, errors = train_anew(*flags(data_dir, **LENGTH), f"--workdir={url}")
    assert status == 0, errors
    assert "resuming after step 4" in output
    workdir = open_anew(url)
    for step in (12, 16):
        assert arrays(workdir, step) == arrays(whole, step)
    assert losses(workdir) == losses(whole)
    record = json.loads((workdir / RECORD).read_text())
    assert (record["saved"], record["config"]["data_dir"]) == (16, data_dir)
    assert (workdir / PAGE).exists()
    assert not (workdir / "checkpoints/16/state").exists()  # fetched when it is read


def test_what_cannot_be_verified_is_not_used(whole, data_dir, buckets, monkeypatch):
    url = "gs://runs/verified"
    for path in (path for path in whole.rglob("*") if path.is_file()):
        object_store.write(f"{url}/{path.relative_to(whole)}", path.read_bytes())
    arguments = (*flags(data_dir, total_steps=20, checkpoint_every=4), f"--workdir={url}")

    with monkeypatch.context() as patch:
        patch.setattr(object_store, "download", _fail_for_arrays(object_store.download))
        status, _, errors = train_anew(*arguments)
    assert (status, errors.splitlines()[-1]) == (2, "error: the server is gone")

    (name,) = [
        name
        for name, found in object_store.list_objects(f"{url}/checkpoints/16/state").items()
        if name.startswith("d/") and found.size > 10_000
    ][:1]
    content = object_store.read(f"{url}/checkpoints/16/state/{name}")
    object_store.write(f"{url}/checkpoints/16/state/{name}", content[:-5000] + bytes(5000))
    status, output, errors = train_anew(*arguments)
    assert status == 0, errors
    assert "resuming after step 12" in output
    assert f"{url}/checkpoints/16 is not used" in name_buckets(errors)
    workdir = open_anew(url)
    assert arrays(workdir, 16) == arrays(whole, 16)
    assert f"checkpoints_damaged/16-0/{COMPLETE}" in object_store.list_objects(url)


def _fail_for_arrays(download):
    def fail(url, folder, objects, *rest):
        if any("/state/" in name for name in objects):
            raise StorageError("the server is gone")
        download(url, folder, objects, *rest)

    return fail


def test_a_second_run_is_refused(data_dir, buckets):
    url = "gs://runs/held"
    with hold_lease(url):
        status, _, errors = train_anew(*flags(data_dir), f"--workdir={url}")
    assert status == 2
    assert "error: gs://runs/held is in use by process " in errors
    assert list(object_store.list_objects(url)) == ["lease.json"]


def test_fine_tuning_and_evaluation_stay_in_the_bucket(encoder_run, data_dir, buckets):
    source, url = "gs://runs/encoder", "gs://runs/tuned"
    for path in (path for path in encoder_run.rglob("*") if path.is_file()):
        object_store.write(f"{source}/{path.relative_to(encoder_run)}", path.read_bytes())
    settings = {**SHORT_TUNING, "data_dir": data_dir}
    arguments = (
        f"--config={finetune.__file__}:dataset=bigearthnet_s1,init={source}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
        f"--workdir={url}",
    )
    status, _, errors = train_anew(*arguments)
    assert status == 0, errors
    files.MIRRORS.clear()
    status, output, errors = call(evaluate.main, f"--workdir={url}")
    assert status == 0, errors
    assert f"{url}/evaluation/" in output
    stored = object_store.list_objects(url)
    assert any(name.endswith("report.md") for name in stored)
    record = json.loads(object_store.read(f"{url}/{RECORD}"))
    assert record["model"]["pretrained"]["checkpoint"] == f"{source}/checkpoints/2"


def wait_for(condition, processes) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert all(process.poll() is None for process in processes), finish(processes[0])
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_processes_that_are_killed_go_on_bitwise(whole, built, buckets):
    """Two processes share nothing but the bucket, and compute what one with two devices does."""
    url = "gs://runs/processes"
    arguments = (*flags(built, **LENGTH), f"--workdir={url}")
    processes = start_together(2, *arguments)
    wait_for(lambda: f"checkpoints/4/{COMPLETE}" in object_store.list_objects(url), processes)
    processes[1].kill()
    killed = time.monotonic()
    status, _, errors = finish(processes[0], timeout=60)
    assert time.monotonic() - killed < 60
    assert status != 0
    assert "process 1 of 2 on " in errors
    assert "start all of them again" in errors
    finish(processes[1])
    assert f"checkpoints/16/{COMPLETE}" not in object_store.list_objects(url)

    results = [finish(process) for process in start_together(2, *arguments)]
    assert [status for status, *_ in results] == [0, 0], results
    assert "resuming after step" in results[0][1]
    workdir = open_anew(url)
    assert arrays(workdir, 16) == arrays(whole, 16)
    assert losses(workdir) == losses(whole)
