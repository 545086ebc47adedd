"""Trace one pretraining step on random images.

  python -m benchmarks.profile_step --variant=base --batch_size=256

Writes a profile that TensorBoard opens: `pip install tensorboard-plugin-profile`, then
`tensorboard --logdir=profile`; its "op profile" has the share of every operation.
"""

import sys
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
from sar_mixmae_jax.training.config import compute_dtype, make_arch
from sar_mixmae_jax.training.optimizer import adamw
from sar_mixmae_jax.training.sharding import replicate, shard_batch
from sar_mixmae_jax.training.train_step import compile_train_step, init_state, map_over_devices
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors

FLAGS = flags.FlagValues()
measure.define_model_flags(FLAGS)
OUT = flags.DEFINE_string("out", "profile", "folder of the trace", flag_values=FLAGS)


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Trace a step and print the path of the trace."""
    parse_flags(argv, FLAGS, __doc__)
    print(trace_step(measure.config_from_flags(FLAGS), Path(OUT.value)))


def trace_step(config: ConfigDict, folder: Path) -> Path:
    """Compile a train step, run it once, and trace a second run.

    Args:
      config: as returned by `configs/pretrain.py`.
      folder: where to write the trace.

    Returns:
      Path of the trace, an `.xplane.pb`.
    """
    size, bands = config.model.image_size, len(config.bands)
    preprocessing = Preprocessing(
        size, mean=(-15.0,) * bands, std=(5.0,) * bands, weighting=Weighting(**config.weighting)
    )
    objective = PretrainObjective(
        MixMAE(make_arch(config), compute_dtype(config.dtype), config.remat),
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
    return max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    main(sys.argv)
