"""Baselines are measured once for equal labels, and a dead process is named."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from configs import compare
from sar_mixmae_jax.experiments.curve_baselines import BaselineProcesses, read_stored
from sar_mixmae_jax.utils.errors import InputError


class Processes:
    """Processes that return when they are told to."""

    def __init__(self) -> None:
        self.futures: list[Future] = []
        self.called = threading.Event()

    def submit(self, *arguments) -> Future:
        """Return a result that the test sets."""
        self.futures.append(Future())
        self.called.set()
        return self.futures[-1]


@pytest.fixture
def processes(monkeypatch):
    baselines = BaselineProcesses(compare.get_config("quick"))
    monkeypatch.setattr(baselines, "_pool", Processes())
    return baselines


def test_equal_labels_are_measured_once(processes, tmp_path):
    path = tmp_path / "land_cover-0.json"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(processes.store, path, "land_cover", 0, tmp_path)
        processes._pool.called.wait()
        processes.store(path, "land_cover_frozen", 0, tmp_path)
        (future,) = processes._pool.futures
        future.set_result({"logistic": {"iou": 0.5}})
        first.result()
    assert read_stored(path) == {"logistic": {"iou": 0.5}}


def test_a_dead_process_is_named(processes, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(processes.store, tmp_path / "a.json", "floods", 0, tmp_path)
        processes._pool.called.wait()
        processes._pool.futures[0].set_exception(BrokenProcessPool())
        with pytest.raises(InputError, match="the same command continues"):
            call.result()
    assert list(tmp_path.iterdir()) == []
