"""Clock, machine and flags that the benchmarks share."""

import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.typing import DTypeLike
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import pretrain
from sar_mixmae_jax.utils.processes import available_cores

Results = dict[str, Any]
"""Measurements by name, as JSON."""


def define_model_flags(flag_values: flags.FlagValues) -> None:
    """Define the flags of the model that is measured."""
    flags.DEFINE_string("variant", "tiny", "size of the model", flag_values=flag_values)
    flags.DEFINE_integer(
        "batch_size", 8, "patches in a batch, of all devices", 1, flag_values=flag_values
    )
    flags.DEFINE_string("dtype", "auto", "float32, bfloat16 or auto", flag_values=flag_values)


def config_from_flags(flag_values: flags.FlagValues) -> ConfigDict:
    """Return the published recipe with the flags of `define_model_flags`."""
    config = pretrain.get_config(f"variant={flag_values['variant'].value}")
    config.batch_size = flag_values["batch_size"].value
    config.dtype = flag_values["dtype"].value
    return config


def seconds(function: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(
    parts: Mapping[str, Callable[[], Any]], turns: int, description: str
) -> dict[str, float]:
    """Return the median seconds of each part; every turn calls each of them once.

    Args:
      parts: functions to time, by name; each blocks until its work is done.
      turns: number of turns.
      description: text of the progress bar.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in tqdm(range(turns), desc=description, unit="turn"):
        for name, part in parts.items():
            times[name].append(seconds(part))
    return {name: float(np.median(values)) for name, values in times.items()}


def split_into_turns(steps: int) -> tuple[int, int]:
    """Return a number of turns, and of steps in each, that together are about `steps`."""
    steps_per_turn = max(1, min(5, steps // 2))
    return max(1, steps // steps_per_turn), steps_per_turn


def describe_machine() -> Results:
    """Return the hardware and versions that the measurements belong to."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processor": processor_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def processor_name() -> str:
    """Return the model name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure_matrix_products(dtype: DTypeLike, side: int, repeats: int = 9) -> Results:
    """Return the median rate of square matrix products on one device, times the device count.

    Args:
      dtype: dtype of the matrices; float32 products have the highest precision.
      side: rows and columns of the matrices.
      repeats: number of timed products.
    """
    key = jax.random.key(0)
    matrix = jax.random.normal(key, (side, side), dtype)
    multiply = jax.jit(partial(jnp.matmul, precision="highest" if dtype == jnp.float32 else None))
    multiply(matrix, matrix).block_until_ready()
    times = [seconds(lambda: multiply(matrix, matrix).block_until_ready()) for _ in range(repeats)]
    return {
        "matrix_side": side,
        "matrix_flops_per_second": 2 * side**3 / float(np.median(times)) * jax.device_count(),
    }


CACHE_HIT = "/jax/compilation_cache/cache_hits"
"""Event of JAX: a program was read instead of compiled."""


class CacheHits:
    """Counter of the programs that are read from the compilation cache."""

    def __init__(self) -> None:
        """Register the listener."""
        self.count = 0
        jax.monitoring.register_event_listener(self._note)

    def _note(self, event: str, **details: Any) -> None:
        del details
        self.count += event == CACHE_HIT


def peak_memory() -> int:
    """Return the peak memory in bytes: of the device if JAX reports it, else of this process."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return int(stats["peak_bytes_in_use"])
    return peak_host_memory()


def peak_host_memory() -> int:
    """Return the peak resident memory of this process in bytes.

    On Linux from /proc: `ru_maxrss` of a started process begins with that of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
