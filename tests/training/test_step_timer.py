"""Seconds of a step by section."""

import time

import pytest

from sar_mixmae_jax.training.metric_logger import StepTimer


def test_parts_add_up_and_laps_start_anew(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    timer = StepTimer()
    for seconds in (1.0, 2.0):
        with timer.section("data"):
            now += seconds
    now += 4.0
    assert timer.flush() == (7.0, {"data": 3.0})

    def fail() -> None:
        nonlocal now
        with timer.section("save"):
            now += 0.5
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert timer.flush() == (0.5, {"save": 0.5})
