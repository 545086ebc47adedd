"""Parts are measured once, timed alone, and shown in one table."""

import fcntl
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import accelerator
from benchmarks.accelerator_table import results_table, step_row
from benchmarks.measure import CacheHits

MACHINE = {
    "device": "GPU",
    "devices": 1,
    "processor": "CPU",
    "cores": 16,
    "python": "3.12.0",
    "jax": "0.11.2",
}
STEP = {
    "machine": MACHINE,
    "variant": "base",
    "batch_size": 1024,
    "kernels": "fused",
    "dtype": "bfloat16",
    "step_seconds": 0.16,
    "step_images_per_second": 6400.0,
    "flops_per_second": 2e14,
    "peak_memory_bytes": 51.5e9,
    "compile_seconds": 100.0,
    "compile_cpu_seconds": 400.0,
    "loops": {"device": {"images_per_second": 6336.0, "over_step": 0.99}},
}
GOLDEN = {"tests": 60, "failures": 1, "errors": 0, "skipped": 2, "machine": MACHINE}
RESULTS = {
    "base_1024_fused": STEP,
    "golden": GOLDEN | {"arrays": 358, "worst_relative_error": 1.5e-6, "failed": ["a.py::test_b"]},
    "products": {"machine": MACHINE, "matrix_side": 8192, "matrix_flops_per_second": 8e14},
    "kernels": {
        "machine": MACHINE,
        "worst_relative_errors": {"attention": {"float32": 2.6e-7, "bfloat16": 2.9e-3}},
    },
    "resume": {"machine": MACHINE, "steps": 60, "stopped_after": 7, "equal": True},
}


def run(part, out):
    accelerator.main(["accelerator", part, f"--out={out}"])


def test_a_part_is_measured_once_and_tabulated(tmp_path, capsys, monkeypatch):
    measured = []

    def measure_small(dtype, side):
        measured.append(side)
        return {"matrix_side": side, "matrix_flops_per_second": 1e12}

    monkeypatch.setattr(accelerator, "measure_matrix_products", measure_small)
    run("products", tmp_path)
    content = (tmp_path / "products.json").read_text()
    assert json.loads(content)["machine"]["devices"] == 2
    run("products", tmp_path)
    assert "skipped" in capsys.readouterr().out
    assert measured == [512]
    run("table", tmp_path)
    assert "| 512³ matrix products | 1 TFLOP/s |" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text()) == {"products": json.loads(content)}


def test_a_part_that_fails_leaves_no_result(tmp_path, monkeypatch):
    def fail(dtype, side):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(accelerator, "measure_matrix_products", fail)
    with pytest.raises(RuntimeError):
        run("products", tmp_path)
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("part", "message"), [("product", "did you mean"), ("table", "no results")]
)
def test_bad_input_gets_one_line(tmp_path, capsys, part, message):
    with pytest.raises(SystemExit):
        run(part, tmp_path)
    assert message in capsys.readouterr().err


def test_the_lock_is_shared_until_something_is_timed_and_then_kept(tmp_path):
    path = tmp_path / "lock"
    lock = accelerator.DeviceLock(path)
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_UN)
        with lock:
            pass
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_the_lock_outlives_a_part_that_needs_none(tmp_path, monkeypatch):
    def part(out, lock):
        del lock
        with (out / "device.lock").open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return {}

    monkeypatch.setitem(accelerator.PARTS, "golden", part)
    run("golden", tmp_path)
    assert (tmp_path / "golden.json").exists()


def test_the_table_shows_all_results_and_names_what_is_missing():
    lines = results_table(RESULTS, ["loop", "start"]).splitlines()
    assert lines[0] == "1 x GPU; CPU, 16 cores; Python 3.12.0, jax 0.11.2"
    for line in (
        "| base, fused, bfloat16 | 1,024 | 160.0 | 6,400 | 200 | 25% | 51.5 | 100 | 400 |",
        "| base, fused, batch 1,024, cache device | 6,336 | 99.0% |",
        "| 8192³ matrix products | 800 TFLOP/s |",
        "| fused attention | worst relative error, with gradients: float32 2.6e-07, "
        "bfloat16 2.9e-03 |",
        "| golden tests, float32 | 57 passed, 1 failed, 2 skipped; worst of 358 arrays 1.5e-06; "
        "a.py::test_b |",
        "| deterministic resume | stopped after 7 of 60 steps: losses equal |",
    ):
        assert line in lines
    assert lines[-1] == "Without results, see the log of each: loop, start."


def test_a_program_from_the_cache_is_no_compilation():
    def compile_again():
        jax.jit(lambda x: 3.25 * x + 7).lower(jnp.zeros(5)).compile()

    compile_again()
    hits = CacheHits()
    compile_again()
    assert hits.count == 1
    assert step_row(STEP | {"compile_cached": True}, None)[-2:] == ("cached", "cached")
