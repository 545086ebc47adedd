"""AdamW with the published schedule: warm-up, half-cosine, decay on matrices and bias tables."""

from typing import Any

import jax
import optax

from sar_mixmae_jax.order import Order


def learning_rate(
    *, peak: float, floor: float, warmup_epochs: float, schedule_epochs: float, order: Order
) -> optax.Schedule:
    """The rate at a step: linear from 0 over the warm-up, then half a cosine down to the floor.

    The schedule runs over `schedule_epochs`, which may be more than are trained: the published
    recipe stops at epoch 64 of a schedule over 1,024.

    Args:
      peak: rate at the end of the warm-up.
      floor: rate at the end of the schedule.
      warmup_epochs: length of the warm-up.
      schedule_epochs: length of the whole, warm-up included.
      order: tells how many epochs are done at a step; the rate follows the fractional epoch.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup_epochs else peak,
        peak_value=peak,
        warmup_steps=warmup_epochs * order.steps_per_epoch,
        decay_steps=schedule_epochs * order.steps_per_epoch,
        end_value=floor,
    )
    before = order.start * order.steps_per_epoch  # steps of this length that were done before
    return lambda step: schedule(step - order.step + before)


def peak_learning_rate(base: float, batch_size: int) -> float:
    """The linear scaling rule: the base rate is for a total batch of 256."""
    return base * batch_size / 256


def decay_mask(params: Any) -> Any:
    """True for the tensors that weight decay applies to: all but 1-D ones.

    Biases and LayerNorms are 1-D; the bias tables and the mask token are not, and do decay.
    """
    return jax.tree.map(lambda tensor: tensor.ndim > 1, params)


def adamw(
    schedule: optax.Schedule,
    *,
    b1: float,
    b2: float,
    weight_decay: float,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """AdamW with decoupled decay, scaled by the rate, on `decay_mask`.

    Args:
      schedule: the rate at a step.
      b1: decay of the mean gradient.
      b2: decay of the mean squared gradient.
      weight_decay: per unit of the rate.
      clip_norm: gradients with a larger global norm are scaled down to it; None leaves them.
    """
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    step = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decay_mask)
    return optax.chain(clip, step)
