"""The flags, and the configurations that they make."""

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
from tfds_builders.process_pool import cores

FLAGS = flags.FlagValues()
VARIANT = flags.DEFINE_string(
    "variant", "tiny", "size of the model, of mixmae.VARIANTS", flag_values=FLAGS
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 8, "patches in a batch, of all devices", 1, flag_values=FLAGS
)
DTYPE = flags.DEFINE_string("dtype", "auto", "float32, bfloat16, or auto", flag_values=FLAGS)


def config_of_flags() -> ConfigDict:
    """The published recipe with the variant, batch and dtype that the flags say."""
    config = pretrain.get_config(f"variant={VARIANT.value}")
    config.batch_size, config.dtype = BATCH_SIZE.value, DTYPE.value
    return config


Results = dict[str, Any]
"""What was measured, by name, as JSON has it."""


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(
    parts: Mapping[str, Callable[[], Any]], turns: int, description: str
) -> dict[str, float]:
    """The median seconds of each part; in every turn each of them is called once.

    Args:
      parts: what to measure, by name; each waits until its work is done.
      turns: how many.
      description: for the progress bar.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in tqdm(range(turns), desc=description, unit="turn"):
        for name, part in parts.items():
            times[name].append(seconds(part))
    return {name: float(np.median(found)) for name, found in times.items()}


def turns_of(steps: int) -> tuple[int, int]:
    """How many turns of how many steps make up so many steps, nearly."""
    each = max(1, min(5, steps // 2))
    return max(1, steps // each), each


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
