"""Weak scaling is measured on one and two devices; how well this machine scales is no test."""

import json

import pytest

from benchmarks.weak_scaling import measure_weak_scaling, table
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.training.config import make_arch
from sar_mixmae_jax.training.cost import count_parameters
from tests.shrink import small_config


def test_the_share_of_a_device_is_fixed_and_gradients_are_sent(tmp_path):
    config = small_config(tmp_path)
    results = measure_weak_scaling(config, steps=2, side=64)
    json.dumps(results)
    one, two = results["rows"]
    assert (one["devices"], two["devices"]) == (1, 2)
    assert results["images"] == 2
    for row in (one, two):
        assert row["images_per_second"] == pytest.approx(2 * row["devices"] / row["step_seconds"])
        assert row["all_reduce_seconds"] > 0
    assert two["efficiency"] == pytest.approx(
        two["images_per_second"] / one["images_per_second"] / 2
    )
    assert results["gradient_bytes"] == 4 * count_parameters(MixMAE(make_arch(config)))
    assert (one["sent_bytes"], two["sent_bytes"]) == (0, results["gradient_bytes"])
    shown = table(results)
    assert "2 images on each" in shown
    assert len({line.count("|") for line in shown.splitlines()}) == 1
