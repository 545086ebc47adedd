"""The schedule's corners; its values and AdamW's are compared in test_golden."""

import pytest

from sar_mixmae_jax.optimizer import learning_rate, peak_learning_rate


def test_corners_of_the_schedule():
    rate = learning_rate(
        peak=2.0, floor=0.5, warmup_epochs=2, schedule_epochs=10, steps_per_epoch=100
    )
    assert rate(0) == 0
    assert rate(100) == pytest.approx(1.0)
    assert rate(200) == pytest.approx(2.0)
    assert rate(600) == pytest.approx(1.25)
    assert rate(1000) == pytest.approx(0.5)
    assert rate(5000) == pytest.approx(0.5)


def test_no_warmup_starts_at_the_peak():
    rate = learning_rate(
        peak=2.0, floor=0.0, warmup_epochs=0, schedule_epochs=10, steps_per_epoch=10
    )
    assert rate(0) == pytest.approx(2.0)


def test_published_peak():
    assert peak_learning_rate(1.5e-4, 2048) == pytest.approx(1.2e-3)
