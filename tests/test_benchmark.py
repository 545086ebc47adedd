"""The benchmark runs and its numbers are consistent; how fast this machine is, is no test."""

import json

from sar_mixmae_jax import benchmark, flops
from sar_mixmae_jax.configuration import model
from tests.shrink import small_config


def test_measures_and_prints(tmp_path):
    config = small_config(tmp_path)
    results = benchmark.measure(config, steps=2, count=8, side=256)
    json.dumps(results)
    assert results["step_flops"] == flops.train_step(model(config).size, 4)
    for name in (
        "reading_images_per_second",
        "per_sample_images_per_second",
        "step_images_per_second",
        "loop_images_per_second",
        "flops_per_second",
        "matrix_flops_per_second",
        "compile_seconds",
        "peak_memory_bytes",
    ):
        assert results[name] > 0
    table = benchmark.table(results)
    assert "GFLOP/s" in table
    assert all(line.count("|") == 3 for line in table.splitlines())
