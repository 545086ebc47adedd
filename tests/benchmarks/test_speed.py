"""The benchmark runs and its numbers are consistent; how fast this machine is, is no test."""

import json

import numpy as np
import pytest

from benchmarks import measure, speed, training
from benchmarks.speed import measure_all, table
from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.task_dataset import TaskDataset
from sar_mixmae_jax.training.config import make_arch
from tests.shrink import small_config


def test_measures_and_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "READ_BATCHES", 5)
    config = small_config(tmp_path)
    results = measure_all(config, steps=2, count=8, pairs=2, side=256)
    json.dumps(results)
    assert results["step_flops"] == architecture.train_step_flops(make_arch(config), 4)
    for name in (
        "reading_images_per_second",
        "per_sample_images_per_second",
        "step_images_per_second",
        "flops_per_second",
        "matrix_flops_per_second",
        "compile_seconds",
        "peak_memory_bytes",
    ):
        assert results[name] > 0
    loop = results["loops"]["none"]
    per_step = loop["over_step"] * results["step_images_per_second"]
    assert loop["images_per_second"] == pytest.approx(per_step)
    for task, size in (("classification", 4), ("flood", 2)):
        assert results[f"{task}_batch_size"] == size
        step, evaluation = (results[f"{task}_{what}_per_second"] for what in ("step", "evaluation"))
        assert step > 0
        assert results[f"{task}_evaluation_over_step"] == pytest.approx(evaluation / step)
    shown = table(results)
    assert "GFLOP/s" in shown
    assert f"{results['flood_evaluation_per_second']:.2f} pairs/s" in shown
    assert "floods, 2 x 128 px" in shown
    assert all(line.count("|") == 3 for line in shown.splitlines())


def test_fine_tuning_is_timed_with_all_that_the_published_recipe_does(tmp_path):
    config = small_config(tmp_path)
    recipe = training.published_finetuning(config, "flood", "flood_pairs/benchmark")
    assert (recipe.drop_path, recipe.optimizer.layer_decay, recipe.random_flip) == (0.1, 0.7, True)
    assert dict(recipe.model).items() <= dict(config.model).items()
    assert recipe.model.embed_dim == 8


@pytest.mark.parametrize(
    ("batch", "pairs", "expected"),
    [(256, None, 256), (256, 256, 32), (7, None, 8), (4, 256, 2), (48, 512, 2)],
)
def test_batches_of_pairs_hold_as_many_images_as_those_of_patches(tmp_path, batch, pairs, expected):
    """A pair of 256 px is eight images of 128 px; there are two devices, which share a batch."""
    config = small_config(tmp_path, batch_size=batch, **{"model.image_size": 128})
    patches = PatchDataset(
        source=[],
        name="x",
        bands=("VH", "VV"),
        unit="dB",
        statistics=Statistics((0.0, 0.0), (1.0, 1.0), "x"),
        pairs={} if pairs else None,
        size=pairs or 120,
    )
    one = TaskDataset(get_task("flood"), patches, np.array([]), {}, ())
    assert training.batch_size(config, one) == expected


def test_parts_take_turns_and_the_median_counts(monkeypatch):
    called, now = [], [0.0]
    durations = {"a": iter([1.0, 50.0, 3.0]), "b": iter([7.0, 6.0, 8.0])}
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def part(name):
        called.append(name)
        now[0] += next(durations[name])

    parts = {name: lambda name=name: part(name) for name in durations}
    assert measure.in_turns(parts, 3, "") == {"a": 3.0, "b": 7.0}
    assert called == ["a", "b"] * 3


def test_the_loop_that_is_compared_with_resizes_as_it_should():
    ramp = np.broadcast_to(np.arange(4.0)[:, None, None], (4, 4, 1))
    found = speed.resize(ramp, 8)
    expected = [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    np.testing.assert_allclose(found[:, 3, 0], expected)
