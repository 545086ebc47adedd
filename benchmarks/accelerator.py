"""Measure one part of what `accelerator.sh` measures on a GPU machine, into a folder.

  python -m benchmarks.accelerator products --out=DIR

Parts: data, which the others need; those of `PARTS`; list, which prints their names; and table,
which writes table.md and results.json. A part whose PART.json exists is skipped. Parts that run at
the same time compile side by side and are timed one at a time. Without a GPU sizes are small.
"""

import dataclasses
import fcntl
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from benchmarks.accelerator_table import results_table
from benchmarks.measure import Results, describe_machine, measure_matrix_products, peak_memory
from benchmarks.training import measure_finetuning, measure_training
from configs import pretrain as pretrain_recipe
from sar_mixmae_jax.models.fused_attention import fused_attention
from sar_mixmae_jax.models.fused_norm import fused_norm
from sar_mixmae_jax.models.layers import PLAIN, Kernels
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training.config import KERNEL_FIELDS, compute_dtype
from sar_mixmae_jax.training.kernel_choice import attention_trial, measure_deviation, norm_trial
from sar_mixmae_jax.training.metric_logger import METRICS, read_metrics
from sar_mixmae_jax.training.train_step import CacheablePartial
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.errors import InputError, look_up
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors
from sar_mixmae_jax.utils.processes import available_cores
from tfds_builders.bigearthnet_s1.fake_patches import write_patch
from tfds_builders.build import build

FLAGS = flags.FlagValues()
OUT = flags.DEFINE_string("out", None, "folder of the results", flag_values=FLAGS)

ROOT = Path(__file__).parents[1]
PATCHES, PAIRS = "bigearthnet_s1/benchmark", "flood_pairs/benchmark"
"""Names of the simulated datasets."""
STEPS = (("base", 1024), ("base", 256), ("large", 256))
"""Variants and batch sizes of the timed steps."""
SMALL_MODEL = {
    "model.embed_dim": 8,
    "model.depths": (1, 1),
    "model.num_heads": (1, 2),
    "model.window_sizes": (8, 8),
    "model.decoder_embed_dim": 16,
    "model.decoder_depth": 1,
    "model.decoder_num_heads": 2,
}
"""Sizes of every variant on a machine without a GPU."""
ATTENTION_SHAPES = (
    (64, 4, 32, 40, 4),
    (16, 8, 32, 33, 1),
    (49, 3, 32, 18, 2),
    (64, 4, 48, 20, 4),
    (100, 2, 24, 9, 3),
    (256, 2, 32, 8, 4),
)
"""Tokens, heads, width of a head, sequences and masks of the checks of the attention."""
NORM_SHAPES = ((64, 128), (1000, 192), (37, 2048))
"""Rows and width of the checks of LayerNorm."""
LARGE_NORM_SHAPES = ((4111, 512), (2**17, 128), (2**17 + 5, 64))
"""The same for GPUs alone: the interpreter copies all rows in every program of the grid."""
FUSED = Kernels(fused_attention, fused_norm)
INTERPRETED = Kernels(partial(fused_attention, interpret=True), partial(fused_norm, interpret=True))
KERNELS = {PLAIN: "plain", FUSED: "fused", INTERPRETED: "fused, interpreted"}
RELEASE_SECONDS = 2
"""Time in which the driver takes back the memory of the process that was timed before."""


class DeviceLock(AbstractContextManager["DeviceLock"]):
    """Lock of the device between processes: shared from the start, exclusive once entered.

    It is held as long as the object lives: until the process ends, as the memory of the device is.
    """

    def __init__(self, path: Path) -> None:
        """Wait until no other process times something, and keep others from beginning to."""
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def __enter__(self) -> "DeviceLock":
        """Wait until no other process compiles or times something."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if has_gpu():
            time.sleep(RELEASE_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        pass


Part = Callable[[Path, DeviceLock], Results]


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Measure the part that the command line names."""
    (name,) = parse_flags(argv, FLAGS, __doc__, {"out": "DIR"}, ("PART",))
    logging.set_verbosity(logging.ERROR)
    out = Path(str(OUT.value)).absolute()
    with report_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    if name == "list":
        print(*PARTS, sep="\n")
    elif name == "data":
        build_data(out)
    elif name == "table":
        print(write_table(out))
    else:
        measure_part(name, out)


def measure_part(name: str, out: Path) -> None:
    """Measure a part and write its JSON, unless it is there."""
    part, path = look_up(PARTS, name, "part"), out / f"{name}.json"
    if path.exists():
        print(f"{name}: skipped, {path} exists")
        return
    start = time.perf_counter()
    lock = DeviceLock(out / "device.lock")  # until the end of this function
    results = part(out, lock)
    results |= {"machine": describe_machine(), "seconds": time.perf_counter() - start}
    atomic_write(path, f"{json.dumps(results, indent=2)}\n".encode())
    print(f"{name}: {results['seconds']:.0f} s")


def write_table(out: Path) -> str:
    """Write all results as table.md and results.json, and return the table."""
    results = {
        name: json.loads(path.read_text())
        for name in PARTS
        if (path := out / f"{name}.json").exists()
    }
    if not results:
        raise InputError(f"found no results in {out}, expected PART.json: measure parts first")
    table = results_table(results, [name for name in PARTS if name not in results])
    atomic_write(out / "table.md", f"{table}\n".encode())
    atomic_write(out / "results.json", f"{json.dumps(results, indent=2)}\n".encode())
    return table


def has_gpu() -> bool:
    """Return whether the devices of JAX are GPUs."""
    return jax.default_backend() == "gpu"


def build_data(out: Path) -> None:
    """Build simulated patches and pairs of dates below a folder, unless they are there."""
    count, pairs = (4096, 32) if has_gpu() else (64, 4)
    if not (out / "data" / PATCHES).exists():
        with tempfile.TemporaryDirectory(dir=out) as folder:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(available_cores(), context) as pool:
                list(pool.map(partial(write_patch, Path(folder)), range(count), chunksize=16))
            build(PATCHES, out / "data", folder, {"unsplit": True, "dtype": "float16"})
    build(PAIRS, out / "data", options={"pairs": pairs, "size": 256})


def make_settings(out: Path, batch_size: int) -> dict[str, Any]:
    """Return the fields of a configuration that differ from the recipe, by dotted name."""
    small = not has_gpu()
    return {
        "data_dir": str(out / "data"),
        "split": "train",
        "batch_size": max(4, batch_size // 64) if small else batch_size,
        **(SMALL_MODEL if small else {}),
    }


def make_config(out: Path, variant: str, batch_size: int) -> ConfigDict:
    """Return the configuration of a pretraining run on the simulated patches."""
    config = pretrain_recipe.get_config(f"variant={variant},dataset={PATCHES}")
    config.update_from_flattened_dict(make_settings(out, batch_size))
    return config


# ---- parts


def measure_products(out: Path, lock: DeviceLock) -> Results:
    """Measure the rate of square matrix products."""
    del out
    with lock:
        return measure_matrix_products(compute_dtype("auto"), 8192 if has_gpu() else 512)


def check_kernels(out: Path, lock: DeviceLock) -> Results:
    """Compare the kernels and their gradients with the plain forms in float32."""
    del out, lock  # nothing is timed
    kernels = FUSED if has_gpu() else INTERPRETED
    norm_shapes = (*NORM_SHAPES, *LARGE_NORM_SHAPES) if has_gpu() else NORM_SHAPES
    errors: dict[str, dict[str, float]] = {field: {} for field in KERNEL_FIELDS}
    for dtype in (jnp.float32, jnp.bfloat16):
        trials = {
            "attention": [attention_trial(dtype, *shape) for shape in ATTENTION_SHAPES],
            "norm": [norm_trial(dtype, *shape) for shape in norm_shapes],
        }
        for field, worst in errors.items():
            pair = getattr(kernels, field), getattr(PLAIN, field)
            worst[np.dtype(dtype).name] = max(
                measure_deviation(*pair, trial, jnp.float32) for trial in trials[field]
            )
    return {"worst_relative_errors": errors}


def measure_step(
    out: Path,
    lock: DeviceLock,
    *,
    variant: str,
    batch_size: int,
    kernels: str = "auto",
    caches: Sequence[str] = ("none",),
) -> Results:
    """Measure step and loops of pretraining; without a GPU kernels are interpreted."""
    config = make_config(out, variant, batch_size)
    interpreted = kernels == "fused" and not has_gpu()
    for field in KERNEL_FIELDS:
        config.model[field] = "plain" if interpreted else kernels
    setup = pretrain.set_up(config, out / "run")
    objective = setup.loss_fn.settings  # type: ignore[attr-defined]
    if interpreted:
        objective = dataclasses.replace(objective, model=objective.model.clone(kernels=INTERPRETED))
        loss_fn = CacheablePartial(setup.loss_fn.function, objective)  # type: ignore[attr-defined]
        setup = dataclasses.replace(setup, loss_fn=loss_fn)
    return {
        "variant": variant,
        "batch_size": config.batch_size,
        "kernels": KERNELS.get(objective.model.kernels, "plain and fused"),
        "dtype": np.dtype(objective.model.dtype).name,
        **measure_training(setup, 20 if has_gpu() else 4, caches, lock),
        "peak_memory_bytes": peak_memory(),
    }


def measure_downstream(out: Path, lock: DeviceLock, *, task: str, dataset: str) -> Results:
    """Measure the steps of fine-tuning and of evaluation."""
    config, steps = make_config(out, "base", 256), 20 if has_gpu() else 4
    return measure_finetuning(config, task, dataset, out / "data", steps, lock)


def check_golden(out: Path, lock: DeviceLock) -> Results:
    """Compare the model in float32 with the golden numbers, on the default device."""
    del lock  # the caller holds it, shared
    report = out / "golden.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/parity", f"--junitxml={report}"],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cuda" if has_gpu() else "cpu"},
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr)
    if done.returncode > 1:
        raise InputError(f"pytest ended with status {done.returncode}: see its messages above")
    suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    worst = re.search(r"([\d.e+-]+)  worst of (\d+) arrays", done.stdout)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    error, arrays = (float(worst[1]), int(worst[2])) if worst else (None, 0)
    return {**counts, "worst_relative_error": error, "arrays": arrays, "failed": failed}


def check_resume(out: Path, lock: DeviceLock) -> Results:
    """Interrupt a deterministic run by SIGTERM, resume it, and compare with one that was not."""
    del lock  # the caller holds it, shared
    steps = 200 if has_gpu() else 40
    with tempfile.TemporaryDirectory(dir=out) as folder:
        runs = [Path(folder, name) for name in ("whole", "resumed")]
        settings = {"total_steps": steps, "deterministic": True}
        finish(start_run(out, runs[0], "tiny", 64, settings))
        process = start_run(out, runs[1], "tiny", 64, settings)
        wait_for_loss(process, runs[1])
        process.send_signal(signal.SIGTERM)
        finish(process)
        stopped = len(read_losses(runs[1]))
        finish(start_run(out, runs[1], "tiny", 64, settings))
        losses = [read_losses(run) for run in runs]
    if not 0 < stopped < steps:
        raise InputError(f"the run was not interrupted: {stopped} of {steps} steps")
    return {
        "steps": steps,
        "stopped_after": stopped,
        "equal": len(losses[0]) == steps and losses[0] == losses[1],
        "last_losses": [run[-1] for run in losses],
    }


def measure_start(out: Path, lock: DeviceLock) -> Results:
    """Measure seconds from the command to the loss of the first step, without and with a cache."""
    settings = {"total_steps": 1}
    with lock, tempfile.TemporaryDirectory(dir=out) as folder:
        seconds = {}
        for cache in ("cold", "cached"):
            run, start = Path(folder, cache), time.perf_counter()
            process = start_run(out, run, "base", 256, settings, f"{folder}/programs")
            wait_for_loss(process, run)
            seconds[f"{cache}_seconds"] = time.perf_counter() - start
            finish(process)
    return seconds


def start_run(
    out: Path,
    workdir: Path,
    variant: str,
    batch_size: int,
    settings: Mapping[str, Any],
    compiled: str | None = None,
) -> subprocess.Popen[str]:
    """Start a pretraining run; `compiled` is a folder of programs, or that of the environment."""
    fields = {**make_settings(out, batch_size), "log_every": 1, **settings}
    command = [
        sys.executable,
        *("-m", "sar_mixmae_jax.main", f"--workdir={workdir}"),
        f"--config={ROOT / 'configs' / 'pretrain.py'}:variant={variant},dataset={PATCHES}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]
    environment = os.environ | ({"JAX_COMPILATION_CACHE_DIR": compiled} if compiled else {})
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a run to end."""
    if status := process.wait():
        raise InputError(f"a run ended with status {status}: see its messages above")


def wait_for_loss(process: subprocess.Popen[str], workdir: Path) -> None:
    """Wait until a run has logged a loss."""
    while not read_losses(workdir):
        if process.poll() is not None:
            raise InputError("a run ended without a loss: see its messages above")
        time.sleep(0.01)


def read_losses(workdir: Path) -> list[float]:
    """Return the losses that a run has logged so far, in order."""
    return [line["loss"] for line in read_metrics(workdir / METRICS) if "loss" in line]


PARTS: dict[str, Part] = {
    "products": measure_products,
    "kernels": check_kernels,
    **{
        f"{variant}_{batch_size}_{kernels}": partial(
            measure_step, variant=variant, batch_size=batch_size, kernels=kernels
        )
        for variant, batch_size in STEPS
        for kernels in ("fused", "plain")
    },
    "loop": partial(
        measure_step, variant="base", batch_size=256, caches=("device", "host", "none")
    ),
    "golden": check_golden,
    "classification": partial(measure_downstream, task="classification", dataset=PATCHES),
    "flood": partial(measure_downstream, task="flood", dataset=PAIRS),
    "resume": check_resume,
    "start": measure_start,
}
"""Parts by name; the first and the last one run alone."""

if __name__ == "__main__":
    main(sys.argv)
