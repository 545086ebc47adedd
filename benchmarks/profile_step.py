"""Trace one pretraining step with plain kernels on random images.

  python -m benchmarks.profile_step --variant=base --batch_size=256

Prints the time by part of the step, and writes a profile that TensorBoard opens:
`pip install tensorboard-plugin-profile`, then `tensorboard --logdir=profile`.
"""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks import measure
from sar_mixmae_jax.models.mixmae import MixMAE, init_params
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.config import compute_dtype, make_arch, remat_policy
from sar_mixmae_jax.training.optimizer import adamw
from sar_mixmae_jax.training.sharding import replicate, shard_batch
from sar_mixmae_jax.training.train_step import compile_train_step, init_state, map_over_devices
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors

FLAGS = flags.FlagValues()
measure.define_model_flags(FLAGS)
OUT = flags.DEFINE_string("out", "profile", "folder of the trace", flag_values=FLAGS)


PARTS = {
    "LayerNorm": r"/norm\d?/",
    "products of the attention's input and output": r"/attn/(qkv|proj)/",
    "attention: logits, softmax, values": r"/attn/",
    "products of the MLP, with bias": r"/mlp/fc\d/",
    "GELU": r"/mlp/",
    "patch embedding, merging, mixing, heads, residual sums": r"MixMAE",
    "preprocessing, mask, loss": r"/while/",
    "sums of gradients, optimizer": r"",
}
"""Part of the step -> expression in the source name of its operations; the first that fits."""


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Trace a step, print its parts and the path of the trace."""
    parse_flags(argv, FLAGS, __doc__)
    path, program = trace_step(measure.config_from_flags(FLAGS), Path(OUT.value))
    milliseconds = time_by_part(path, program)
    total = sum(milliseconds.values())
    for part, time in sorted(milliseconds.items(), key=lambda item: -item[1]):
        print(f"{time:9.1f} ms {time / total:5.0%}  {part}")
    print(f"{total:9.1f} ms        all threads and devices; {path}")


def time_by_part(path: Path, program: str) -> Counter[str]:
    """Return the milliseconds of each entry of `PARTS`, summed over threads and devices.

    A fusion counts as the part of its last operation.

    Args:
      path: path of a trace, see `trace_step`.
      program: text of the compiled step.
    """
    sources = dict(re.findall(r'^ *(?:ROOT )?%?(\S+) = .*op_name="([^"]*)"', program, re.MULTILINE))
    milliseconds: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is not None and not event.name.startswith("end: "):
                    source = sources.get(str(name), "")
                    part = next(key for key, value in PARTS.items() if re.search(value, source))
                    milliseconds[part] += event.duration_ns / 1e6
    return milliseconds


def trace_step(config: ConfigDict, folder: Path) -> tuple[Path, str]:
    """Compile a train step, run it once, and trace a second run.

    Args:
      config: as returned by `configs/pretrain.py`.
      folder: where to write the trace.

    Returns:
      Path of the trace, an `.xplane.pb`, and the text of the compiled step.
    """
    size, bands = config.model.image_size, len(config.bands)
    preprocessing = Preprocessing(
        size, mean=(-15.0,) * bands, std=(5.0,) * bands, weighting=Weighting(**config.weighting)
    )
    objective = PretrainObjective(
        MixMAE(make_arch(config), compute_dtype(config.dtype), remat_policy(config)),
        preprocessing,
        config.mask_ratio,
        config.norm_pix_loss,
    )
    optimizer = adamw(lambda _: 1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
    state = replicate(
        init_state(partial(init_params, objective.model), optimizer, jax.random.key(0))
    )
    images = np.random.default_rng(0).normal(-15, 5, (config.batch_size, size, size, bands))
    batch = {"backscatter": shard_batch(images.astype(np.float32))}
    step = compile_train_step(
        map_over_devices(partial(pretrain_loss, objective=objective), optimizer), state, batch
    )
    state = jax.block_until_ready(step(state, batch)[0])
    with jax.profiler.trace(str(folder)):
        jax.block_until_ready(step(state, batch))
    path = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    return path, step.as_text()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv)
