"""Choice of the attention of a model: plain, or the fused kernel where it works."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.layers import AttentionFn, attend
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line

CHOICES = ("auto", "plain", "fused")
"""Values of `config.model.attention`."""
LARGEST_WINDOW = 128
"""Tokens above which "auto" is plain.

Blocks of queries write parts of the gradients of key and value, which are then summed: for 256
tokens that takes more memory than the logits of one layer.
"""
LEAST_CAPABILITY = 8.0
"""Compute capability of the first GPUs with bfloat16 products: A100."""
TRIAL_SEQUENCES = 18
"""Sequences of a trial: more than a program of the backward kernel takes, and even."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative deviation of the kernel from the plain form."""


def select_attention(
    config: ConfigDict, arch: Architecture, *, decoder: bool = False
) -> AttentionFn:
    """Return the attention that `config.model.attention` names, and print which it is.

    "auto" is "fused" in bfloat16 on GPUs on which the kernel compiles and agrees with the plain
    form for all sizes of the model, unless windows are large; elsewhere it is "plain".

    Args:
      config: of the run.
      arch: of the model.
      decoder: whether the model has the decoder of pretraining.

    Raises:
      InputError: the name is unknown, or "fused" and the kernel does not work here.
    """
    name, dtype = config.model.attention, compute_dtype(config.dtype)
    check_name(CHOICES, name, "model.attention")
    obstacle = None
    if name != "plain":
        obstacle = device_obstacle()
        if name == "auto":
            obstacle = obstacle or find_drawback(arch, dtype, decoder=decoder)
        obstacle = obstacle or kernel_obstacle(arch, dtype, decoder=decoder)
    if name == "fused" and obstacle:
        raise InputError(
            f"model.attention is 'fused', which cannot run here ({obstacle}): set "
            "--config.model.attention=auto or plain"
        )
    fused = name != "plain" and obstacle is None
    if is_primary_process():
        print(f"attention: {'fused' if fused else 'plain'}{f' ({obstacle})' if obstacle else ''}")
    return _import_kernel() if fused else attend


def find_drawback(arch: Architecture, dtype: DTypeLike, *, decoder: bool) -> str | None:
    """Return why the kernel would not pay for a model, or None; see `kernel_obstacle`."""
    if dtype != jnp.bfloat16:
        return f"in {jnp.dtype(dtype).name} the kernel has no tensor cores"
    tokens = max(tokens for tokens, _ in attention_sizes(arch, decoder=decoder))
    if tokens > LARGEST_WINDOW:
        return f"windows of {tokens} tokens: the kernel is for up to {LARGEST_WINDOW}"
    return None


def device_obstacle() -> str | None:
    """Return the reason why the devices of JAX cannot run the kernel, or None."""
    device = jax.local_devices()[0]
    capability = str(getattr(device, "compute_capability", ""))
    if device.platform not in ("gpu", "cuda") or not capability.replace(".", "").isdigit():
        return f"the device is {device.device_kind}, the kernel is for NVIDIA GPUs"
    if float(capability) < LEAST_CAPABILITY:
        return (
            f"{device.device_kind} has compute capability {capability}, the kernel needs "
            f"{LEAST_CAPABILITY}"
        )
    return None


def kernel_obstacle(arch: Architecture, dtype: DTypeLike, *, decoder: bool) -> str | None:
    """Return the reason why the kernel fails for a model, or None.

    Args:
      arch: of the model.
      dtype: of the computation.
      decoder: whether the model has the decoder of pretraining.
    """
    try:
        kernel = _import_kernel()
        for (tokens, width), heads in attention_sizes(arch, decoder=decoder).items():
            deviation = measure_deviation(kernel, tokens, heads, width, dtype)
            if not deviation <= TOLERANCE[jnp.dtype(dtype).name]:  # NaN included
                return (
                    f"the kernel for {tokens} tokens and heads of {width} deviates by "
                    f"{deviation:.1g} from the plain form"
                )
    except Exception as error:  # Pallas, Triton and XLA raise many types, and more in each version
        return f"the kernel does not compile: {first_line(error)[:200]}"
    return None


def attention_sizes(arch: Architecture, *, decoder: bool) -> dict[tuple[int, int], int]:
    """Return the number of heads by (tokens of a sequence, width of a head), each pair once.

    Args:
      arch: of the model.
      decoder: whether the model has the decoder of pretraining.
    """
    sizes = {}
    for stage, (heads, window) in enumerate(zip(arch.num_heads, arch.window_sizes, strict=True)):
        side = arch.image_size // (arch.patch_size << stage)
        sizes[min(window, side) ** 2, (arch.embed_dim << stage) // heads] = heads
    if decoder:
        heads = arch.decoder_num_heads
        sizes[arch.mask_grid**2, arch.decoder_embed_dim // heads] = heads
    return sizes


def measure_deviation(
    kernel: AttentionFn, tokens: int, heads: int, width: int, dtype: DTypeLike
) -> float:
    """Return the largest relative deviation of a kernel's output and gradients from `attend`.

    Args:
      kernel: a function with the arguments of `attend`.
      tokens: of a sequence.
      heads: number of heads.
      width: of a head.
      dtype: of query, key and value.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    qkv = jax.random.normal(keys[0], (TRIAL_SEQUENCES * tokens, 3 * heads * width), dtype)
    bias = jax.random.normal(keys[1], (heads, tokens, tokens))
    mask = jax.random.bernoulli(keys[2], 0.5, (2, tokens)).astype(jnp.float32)
    weights = jax.random.normal(keys[3], (len(qkv), heads * width))

    def differentiate(attention: AttentionFn) -> list[jax.Array]:
        def total(qkv: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = attention(qkv, tokens, heads, bias, mask)
            return (out * weights).sum(), out

        gradients, out = jax.jit(jax.grad(total, (0, 1), has_aux=True))(qkv, bias)
        return [array.astype(jnp.float32) for array in (out, *gradients)]

    def relative(value: jax.Array, expected: jax.Array) -> jax.Array:
        return jnp.linalg.norm(value - expected) / jnp.linalg.norm(expected)

    pairs = zip(differentiate(kernel), differentiate(attend), strict=True)
    return float(np.max([relative(*pair) for pair in pairs]))  # NaN if one is


def _import_kernel() -> AttentionFn:
    # Not at the top: Pallas is slow to load, and has moved between versions of JAX.
    from sar_mixmae_jax.models.fused_attention import fused_attention

    return fused_attention
