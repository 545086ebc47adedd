"""Compare the decoder of the segmentation with UPerNet, in whole runs with several seeds.

  python -m benchmarks.segmentation_decoders --data_dir=data --dataset=flood_pairs/water

Every run is `configs/finetune.py` from scratch with the same records, batches and settings; the
last step is scored on the validation split. Prints a table: mean and deviation over the seeds,
parameters of the decoder, and processor time of a step.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.typing import DTypeLike

from configs import finetune as recipe
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.heads import HEAD_INITS
from sar_mixmae_jax.models.layers import layer_norm, linear, matmul_precision
from sar_mixmae_jax.models.segmenter import Segmenter, merge_tiles, resize_map
from sar_mixmae_jax.models.swin import make_encoder
from sar_mixmae_jax.tasks.registry import register_task
from sar_mixmae_jax.tasks.segmentation import Segmentation
from sar_mixmae_jax.training.finetune import train
from sar_mixmae_jax.training.metric_logger import METRICS
from sar_mixmae_jax.utils.command_line import parse_flags, report_errors
from sar_mixmae_jax.utils.tables import markdown_table

FLAGS = flags.FlagValues()
DATA_DIR = flags.DEFINE_string("data_dir", "data", "folder of datasets", flag_values=FLAGS)
DATASET = flags.DEFINE_string("dataset", "flood_pairs", "dataset with masks", flag_values=FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the runs (default: temporary)", flag_values=FLAGS
)
SEEDS = flags.DEFINE_integer("seeds", 3, "runs of each decoder", 2, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 500, "steps of a run", 20, flag_values=FLAGS)
WIDTH = flags.DEFINE_integer("width", 32, "channels of the decoders", 1, flag_values=FLAGS)
DECODERS = flags.DEFINE_list(
    "decoders", "segmentation,segmentation_upernet", "names of their tasks", flag_values=FLAGS
)
CROP = 128
BATCH_SIZE = 8
PEAK_RATE = 1e-3
BINS = (1, 2, 3, 6)
"""Cells along a side of the pooled maps of UPerNet."""
SCORES = ("loss", "iou", "average_precision")


class UPerNet(nn.Module):
    """Decoder of Xiao et al. (ECCV 2018): pooled maps of the last stage, and concatenated levels.

    Pooling covers a tile of the encoder, as training on crops of one tile and evaluation on larger
    images would otherwise differ. Attributes are those of `segmenter.FeaturePyramid`.
    """

    outputs: int
    width: int
    dtype: DTypeLike
    tile: int
    head_init: str = "tiny"

    def block(self, x: jax.Array, name: str, kernel: int = 3) -> jax.Array:
        """Return (batch, row, column, width): convolution, LayerNorm, GELU."""
        precision = matmul_precision(self.dtype)
        x = nn.Conv(self.width, (kernel, kernel), dtype=self.dtype, precision=precision, name=name)(
            x
        )
        return nn.gelu(layer_norm(self.dtype, name=f"{name}_norm")(x))

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Return logits on the grid of the first map; see `segmenter.FeaturePyramid`."""
        normed = [
            layer_norm(self.dtype, name=f"norm_{stage}")(each) for stage, each in enumerate(maps)
        ]
        top = normed[-1]
        batch, rows, columns, channels = top.shape
        grid = rows // self.tile, columns // self.tile
        tiles = top.reshape(batch, grid[0], self.tile, grid[1], self.tile, channels)
        tiles = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(-1, self.tile, self.tile, channels)
        levels = [top]
        for bins in BINS:
            weights = pooling_weights(self.tile, bins)
            pooled = jnp.einsum("ir,jc,brcw->bijw", weights, weights, tiles).astype(self.dtype)
            pooled = resize_map(self.block(pooled, f"pool_{bins}", 1), (self.tile, self.tile))
            levels.append(merge_tiles(pooled, *grid))
        x = self.block(jnp.concatenate(levels, -1), "bottleneck")
        size, levels = maps[0].shape[1:3], [resize_map(x, maps[0].shape[1:3])]
        for stage in reversed(range(len(maps) - 1)):
            lateral = linear(self.width, self.dtype, name=f"lateral_{stage}")(normed[stage])
            x = lateral + resize_map(x, lateral.shape[1:3])
            levels.append(resize_map(self.block(x, f"smooth_{stage}"), size))
        return nn.Dense(
            self.outputs,
            dtype=jnp.float32,
            precision=matmul_precision(jnp.float32),
            kernel_init=HEAD_INITS[self.head_init],
            name="classify",
        )(self.block(jnp.concatenate(levels, -1), "fuse"))


def pooling_weights(side: int, bins: int) -> np.ndarray:
    """Return (bins, side) float32 weights of adaptive mean pooling along an axis."""
    weights = np.zeros((bins, side), np.float32)
    for number in range(bins):
        first, last = number * side // bins, -(-(number + 1) * side // bins)
        weights[number, first:last] = 1 / (last - first)
    return weights


class UPerNetSegmenter(Segmenter):
    """Segmenter with UPerNet."""

    def setup(self) -> None:
        """Create encoder and decoder."""
        self.encoder = make_encoder(self.arch, self.dtype, self.remat, self.kernels)
        self.head = UPerNet(
            self.outputs, self.decoder_width, self.dtype, self.arch.mask_grid, self.head_init
        )


@register_task
class UPerNetSegmentation(Segmentation):
    """Segmentation with UPerNet."""

    name = "segmentation_upernet"
    captions: ClassVar = Segmentation.captions

    def make_model(
        self, arch: Architecture, outputs: int, config: Mapping[str, Any], **settings: Any
    ) -> Segmenter:
        """Return the segmenter."""
        width = config["segmentation"]["decoder_width"]
        return UPerNetSegmenter(arch, outputs, **settings, decoder_width=width)


def run(task: str, seed: int, workdir: Path) -> dict[str, float]:
    """Train and return the scores of the last step, decoder parameters and seconds a step."""
    config = recipe.get_config(f"task={task},dataset={DATASET.value},variant=tiny")
    config.update(
        {
            "data_dir": DATA_DIR.value,
            "seed": seed,
            "crop_size": CROP,
            "batch_size": BATCH_SIZE,
            "total_steps": STEPS.value,
            "warmup_epochs": 0.5,
            "validate_every": STEPS.value,
            "checkpoint_every": STEPS.value,
        }
    )
    config.segmentation.decoder_width = WIDTH.value
    config.optimizer.base_learning_rate = PEAK_RATE * 256 / BATCH_SIZE
    times = [time.process_time()]

    def note_time() -> bool:
        times.append(time.process_time())
        return False

    state = train(config, workdir, note_time).state
    decoder = jax.tree.leaves(state.params["head"])
    lines = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    scores = next(line for line in reversed(lines) if "validation/loss" in line)
    return {
        **{name: scores[f"validation/{name}"] for name in SCORES},
        "parameters": sum(leaf.size for leaf in decoder),
        "seconds": float(np.median(np.diff(times))),
    }


@report_errors()
def main(argv: Sequence[str]) -> None:
    """Print a line of JSON for every run, and the table."""
    parse_flags(argv, FLAGS, __doc__)
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(WORKDIR.value or folder)
        for seed in range(SEEDS.value):
            for task in DECODERS.value:
                result = run(task, seed, root / f"{task}_{seed}")
                results.setdefault(task, []).append(result)
                print(json.dumps({"task": task, "seed": seed, **result}), flush=True)
    rows = []
    for task, runs in results.items():
        columns = {name: np.array([each[name] for each in runs]) for name in runs[0]}
        scores = [f"{columns[n].mean():.3f} ± {columns[n].std(ddof=1):.3f}" for n in SCORES]
        cost = [f"{columns['parameters'][0]:,.0f}", f"{np.median(columns['seconds']):.2f}"]
        rows.append((task, *scores, *cost))
    header = ("decoder", "loss", "IoU", "average precision", "parameters", "CPU s a step")
    print("\n".join(markdown_table(header, rows)))


if __name__ == "__main__":
    main(sys.argv)
