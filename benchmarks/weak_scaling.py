"""Measure the pretraining step on 1, 2, 4, … devices, with the same images on each.

  python -m benchmarks.weak_scaling --variant=base --batch_size=256

The batch size is that of all devices of the machine; a single device takes its share of it. Times
the step on random images, and the all-reduce of its gradients alone, in turns. On a CPU,
XLA_FLAGS=--xla_force_host_platform_device_count=2 makes two devices, which share the cores: that
tests the program and not the scaling. Prints a table, and writes JSON with --out.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from benchmarks.measure import (
    Results,
    config_from_flags,
    define_model_flags,
    describe_machine,
    in_turns,
    split_into_turns,
)
from sar_mixmae_jax.training.accelerators import all_reduce_bytes
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.training.cost import BIGEARTHNET_V2
from sar_mixmae_jax.training.sharding import AXIS
from sar_mixmae_jax.training.step_program import MEAN, STD, make_step
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.tables import markdown_table

FLAGS = flags.FlagValues()
define_model_flags(FLAGS)
STEPS = flags.DEFINE_integer("steps", 10, "timed steps of every kind", 1, flag_values=FLAGS)
OUT = flags.DEFINE_string("out", None, "JSON file to write", flag_values=FLAGS)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Measure as the command line says, and print the table."""
    parse_flags(argv, FLAGS, __doc__)
    results = measure_weak_scaling(config_from_flags(FLAGS), STEPS.value)
    print(table(results))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=2) + "\n")


def table(results: Results) -> str:
    """Return the results as a Markdown table."""
    head = (
        f"{results['machine']['device']}, {results['images']} images on each",
        "step, ms",
        "images/s",
        "efficiency",
        "all-reduce alone, ms",
        "sent by each, GB/s",
    )
    rows = (
        (
            row["devices"],
            f"{1e3 * row['step_seconds']:.1f}",
            f"{row['images_per_second']:.1f}",
            f"{row['efficiency']:.0%}",
            f"{1e3 * row['all_reduce_seconds']:.2f}",
            f"{row['sent_bytes'] / row['all_reduce_seconds'] / 1e9:.2f}",
        )
        for row in results["rows"]
    )
    return "\n".join(markdown_table(head, rows))


def measure_weak_scaling(config: ConfigDict, steps: int, side: int = 120) -> Results:
    """Measure step and all-reduce on increasing numbers of devices, all in turns.

    Args:
      config: as returned by `configs/pretrain.py`; its batch is that of all devices.
      steps: number of timed steps of every kind.
      side: side of a raw patch in pixels.

    Returns:
      "rows" by number of devices; "efficiency" is images/s of each device, relative to one device.
    """
    devices = jax.devices()
    images = config.batch_size // len(devices)
    counts = [2**power for power in range(len(devices).bit_length()) if 2**power <= len(devices)]
    turns, steps_per_turn = split_into_turns(steps)
    parts: dict[str, Callable[[], Any]] = {}
    for count in counts:
        config.batch_size = count * images
        step, all_reduce = prepare(config, devices[:count], side, steps_per_turn)
        parts |= {f"step {count}": step, f"all-reduce {count}": all_reduce}
    for part in parts.values():
        part()
    times = {
        name: time / steps_per_turn for name, time in in_turns(parts, turns, "scaling").items()
    }
    shapes = make_step(config, devices[:1], BIGEARTHNET_V2, side).state.params
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    rows = [
        {
            "devices": count,
            "step_seconds": times[f"step {count}"],
            "images_per_second": count * images / times[f"step {count}"],
            "efficiency": times["step 1"] / times[f"step {count}"],
            "all_reduce_seconds": times[f"all-reduce {count}"],
            "sent_bytes": all_reduce_bytes(size, count, count).link,
        }
        for count in counts
    ]
    return {
        "machine": describe_machine(),
        "variant": config.model.variant,
        "dtype": np.dtype(compute_dtype(config.dtype)).name,
        "images": images,
        "gradient_bytes": size,
        "rows": rows,
    }


def prepare(
    config: ConfigDict, devices: Sequence[jax.Device], side: int, repeats: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Compile step and all-reduce; return functions that run each of them several times.

    Args:
      config: with the batch of these devices.
      devices: that share it.
      side: side of a raw patch in pixels.
      repeats: runs in a call.
    """
    made = make_step(config, devices, BIGEARTHNET_V2, side)
    compiled = made.step.lower(made.state, made.batch).compile()
    state = jax.device_put(made.init(), jax.tree.map(lambda leaf: leaf.sharding, made.state))
    shape = made.batch["backscatter"]
    raw = np.random.default_rng(0).normal(MEAN, STD, shape.shape).astype(shape.dtype)
    batch = {"backscatter": jax.device_put(raw, shape.sharding)}
    summed = jax.jit(
        jax.shard_map(
            lambda tree: jax.lax.psum(tree, AXIS),
            mesh=Mesh(np.array(devices), (AXIS,)),
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
    )
    gradients = jax.tree.map(jnp.zeros_like, state.params)

    def run_steps() -> None:
        nonlocal state
        for _ in range(repeats):
            # Collectives of two steps in flight can wait for each other on a CPU with few threads.
            state = jax.block_until_ready(compiled(state, batch)[0])

    def run_all_reduces() -> None:
        for _ in range(repeats):
            jax.block_until_ready(summed(gradients))

    return run_steps, run_all_reduces


if __name__ == "__main__":
    main(sys.argv)
