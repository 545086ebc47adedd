"""The schedule's corners; its values and AdamW's are compared in test_golden."""

import pytest

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.training.optimizer import learning_rate, peak_learning_rate


def order(steps_per_epoch: int) -> ShuffleSampler:
    return ShuffleSampler(records=steps_per_epoch, batch_size=1, seed=0)


def test_corners_of_the_schedule():
    rate = learning_rate(
        peak=2.0,
        end_learning_rate=0.5,
        warmup_epochs=2,
        schedule_epochs=10,
        sampler=order(100),
    )
    assert rate(0) == 0
    assert rate(100) == pytest.approx(1.0)
    assert rate(200) == pytest.approx(2.0)
    assert rate(600) == pytest.approx(1.25)
    assert rate(1000) == pytest.approx(0.5)
    assert rate(5000) == pytest.approx(0.5)


def test_no_warmup_starts_at_the_peak():
    rate = learning_rate(
        peak=2.0,
        end_learning_rate=0.0,
        warmup_epochs=0,
        schedule_epochs=10,
        sampler=order(10),
    )
    assert rate(0) == pytest.approx(2.0)


def test_published_peak():
    assert peak_learning_rate(1.5e-4, 2048) == pytest.approx(1.2e-3)


def test_the_rate_follows_the_epochs_when_the_batch_changes():
    """Two of ten epochs in steps of 10 records, then steps of 20: the rate goes on smoothly."""
    before = ShuffleSampler(records=100, batch_size=10, seed=0)
    after = before.go_on(20, 20)
    settings = {"peak": 2.0, "end_learning_rate": 0.0, "warmup_epochs": 1, "schedule_epochs": 10}
    one, other = (learning_rate(**settings, sampler=order) for order in (before, after))
    assert float(other(20)) == pytest.approx(float(one(20)))
    assert float(other(25)) == pytest.approx(float(one(30)))  # 3 epochs done, either way
