"""AdamW with the published schedule: warm-up, half-cosine, decay on matrices and bias tables."""

import dataclasses
import re
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sar_mixmae_jax.data.sampler import ShuffleSampler

BLOCK = re.compile(r"stage_(\d+)_block_(\d+)")
"""Names of the encoder's blocks."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """Learning rate by step, an optax schedule that is hashable, so that programs can be cached.

    Attributes:
      peak: at the end of the warm-up.
      end_learning_rate: at the end of the schedule.
      warmup_steps: length of the warm-up.
      total_steps: length of the schedule, warm-up included.
      offset: added to the step: epochs done in batches of another size, as steps of this size.
    """

    peak: float
    end_learning_rate: float
    warmup_steps: float
    total_steps: float
    offset: float = 0.0

    def __call__(self, step: Any) -> Any:
        """Return the rate after `step` steps."""
        schedule = optax.warmup_cosine_decay_schedule(
            init_value=0.0 if self.warmup_steps else self.peak,
            peak_value=self.peak,
            warmup_steps=self.warmup_steps,
            decay_steps=self.total_steps,
            end_value=self.end_learning_rate,
        )
        return schedule(step + self.offset)


def learning_rate(
    *,
    peak: float,
    end_learning_rate: float,
    warmup_epochs: float,
    schedule_epochs: float,
    sampler: ShuffleSampler,
) -> Rate:
    """Return the rate by step: linear from 0 over the warm-up, then half a cosine.

    The schedule runs over `schedule_epochs`, which may be more than are trained: the published
    recipe stops at epoch 64 of a schedule over 1,024.

    Args:
      peak: rate at the end of the warm-up.
      end_learning_rate: rate at the end of the schedule.
      warmup_epochs: length of the warm-up.
      schedule_epochs: length of the whole, warm-up included.
      sampler: for the epochs done at a step; the rate follows the fractional epoch.
    """
    return Rate(
        peak=peak,
        end_learning_rate=end_learning_rate,
        warmup_steps=warmup_epochs * sampler.steps_per_epoch,
        total_steps=schedule_epochs * sampler.steps_per_epoch,
        offset=sampler.start * sampler.steps_per_epoch - sampler.step,
    )


def peak_learning_rate(base: float, batch_size: int) -> float:
    """Return the peak rate by the linear scaling rule: the base rate is for a batch of 256."""
    return base * batch_size / 256


def layer_scales(params: Any, decay: float, *, freeze_encoder: bool = False) -> Any:
    """Return the factor on the rate of every tensor: layer-wise decay as published.

    The last block of the encoder has `decay`, each block before it another factor of it, and the
    patch embedding one more. A merging layer belongs to the block after it; the final LayerNorm and
    the head to the last one, so not even the head has the full rate.

    Args:
      params: {"encoder": …, "head": …}.
      decay: factor from layer to layer; 1 leaves every rate as it is.
      freeze_encoder: whether the factors of the encoder are 0, which stops weight decay too.
    """
    blocks = sorted(
        (int(stage), int(block))
        for name in params["encoder"]
        if (match := BLOCK.fullmatch(name))
        for stage, block in [match.groups()]
    )
    layers = {"patch_embed": -1}
    for number, (stage, block) in enumerate(blocks):
        layers[f"stage_{stage}_block_{block}"] = number
        if block == 0:
            layers[f"merge_{stage - 1}"] = number

    def scale(path: tuple[Any, ...], tensor: Any) -> float:
        del tensor
        part, *rest = (key.key for key in path)
        if part == "encoder" and freeze_encoder:
            return 0.0
        layer = layers.get(rest[0], len(blocks) - 1) if part == "encoder" else len(blocks) - 1
        return decay ** (len(blocks) - layer)

    return jax.tree_util.tree_map_with_path(scale, params)


def decay_mask(params: Any) -> Any:
    """Return True for the tensors that weight decay applies to: all but 1-D ones.

    Biases and LayerNorms are 1-D; the bias tables and the mask token are not, and do decay.
    """
    return jax.tree.map(lambda tensor: tensor.ndim > 1, params)


def at_first_step(opt_state: Any) -> Any:
    """Return the optimizer state with its schedule reset to the first step."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def reset(node: Any) -> Any:
        return node._replace(count=jnp.zeros_like(node.count)) if is_schedule(node) else node

    return jax.tree.map(reset, opt_state, is_leaf=is_schedule)


@cache
def adamw(
    schedule: optax.Schedule,
    *,
    b1: float,
    b2: float,
    weight_decay: float,
    clip_norm: float | None = None,
    layer_decay: float = 1.0,
    freeze_encoder: bool = False,
) -> optax.GradientTransformation:
    """Return AdamW with decoupled decay on `decay_mask`; cached, so that programs can be too.

    Args:
      schedule: learning rate by step.
      b1: decay of the mean gradient.
      b2: decay of the mean squared gradient.
      weight_decay: per unit of the rate.
      clip_norm: gradients with a larger global norm are scaled down to it; None leaves them.
      layer_decay: see `layer_scales`; 1 where all layers have the same rate.
      freeze_encoder: see `layer_scales`.
    """

    def scale(updates: Any, params: Any) -> Any:
        del params
        factors = layer_scales(updates, layer_decay, freeze_encoder=freeze_encoder)
        return jax.tree.map(jnp.multiply, updates, factors)

    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    step = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask)
    scaled = layer_decay != 1.0 or freeze_encoder
    by_layer = optax.stateless(scale) if scaled else optax.identity()
    return optax.chain(clip, step, by_layer)
