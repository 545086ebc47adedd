"""What the numbers belong to, and how fast it multiplies matrices."""

import platform
import resource
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sar_mixmae_jax.benchmark.clock import Results, seconds
from tfds_builders.workers import cores


def describe_machine() -> Results:
    """What the numbers belong to."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processor": processor_name(),
        "cores": cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def processor_name() -> str:
    """The CPU's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure_matrix_products(dtype: DTypeLike, side: int, repeats: int = 9) -> Results:
    """Median rate of square matrix products on one device, times the number of devices."""
    key = jax.random.key(0)
    matrix = jax.random.normal(key, (side, side), dtype)
    multiply = jax.jit(partial(jnp.matmul, precision="highest" if dtype == jnp.float32 else None))
    multiply(matrix, matrix).block_until_ready()
    times = [seconds(lambda: multiply(matrix, matrix).block_until_ready()) for _ in range(repeats)]
    return {
        "matrix_side": side,
        "matrix_flops_per_second": 2 * side**3 / float(np.median(times)) * jax.device_count(),
    }


def peak_memory() -> int:
    """Bytes: of the device where it tells, else the resident memory of this process."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return int(stats["peak_bytes_in_use"])
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes
