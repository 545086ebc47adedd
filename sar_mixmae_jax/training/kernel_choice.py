"""Choice of the kernels of a model: plain, or fused where they work."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.layers import PLAIN, AttentionFn, Kernels, NormFn
from sar_mixmae_jax.training.config import KERNEL_FIELDS, check_kernels, compute_dtype
from sar_mixmae_jax.training.distributed import is_primary_process, lowest_of_processes
from sar_mixmae_jax.training.train_step import CompilerOptions
from sar_mixmae_jax.utils.errors import InputError, first_line

LARGEST_WINDOW = 128
"""Tokens above which "auto" is plain attention.

Blocks of queries write parts of the gradients of key and value, which are then summed: for 256
tokens that takes more memory than the logits of one layer.
"""
FUSED_OPTIONS: CompilerOptions = (("xla_gpu_enable_triton_gemm", False),)
"""Options of XLA for a step with fused kernels: matrix products by cuBLAS alone.

Trying kernels of Triton for every product takes most of the compilation (docs/results.md).
"""
LEAST_CAPABILITY = 8.0
"""Compute capability of the first GPUs with bfloat16 products: A100."""
CACHED_TRIALS = 16
"""Models and kernels that are tried once in a process."""
TRIAL_SEQUENCES = 18
"""Sequences of a trial: more than a program of the backward kernel takes, and even."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative deviation of a kernel from the plain form."""


class Trial(NamedTuple):
    """Inputs that a kernel is compared with the plain form on.

    Attributes:
      size: description for messages.
      apply: outputs of a kernel for the arrays.
      arrays: that gradients are computed by.
    """

    size: str
    apply: Callable[[Any, Any], Sequence[jax.Array]]
    arrays: tuple[jax.Array, ...]


def select_kernels(config: ConfigDict, arch: Architecture, *, decoder: bool = False) -> Kernels:
    """Return the kernels that `config.model` names, and print which they are.

    "auto" is "fused" in bfloat16 on GPUs on which the kernel runs and agrees with the plain
    form for all sizes of the model, unless windows are large; elsewhere it is "plain".

    Args:
      config: configuration of the run.
      arch: architecture of the model.
      decoder: whether the model has the decoder of pretraining.

    Raises:
      InputError: a name is unknown, or it is "fused" and the kernel does not work here.
    """
    check_kernels(config)
    dtype = compute_dtype(config.dtype)
    fused: dict[str, Any] = {}
    choices: dict[str, list[str]] = {}
    for field in KERNEL_FIELDS:
        name = config.model[field]
        obstacle = None
        if name != "plain":
            obstacle = device_obstacle()
            if name == "auto":
                obstacle = obstacle or find_drawback(field, arch, dtype, decoder=decoder)
            obstacle = obstacle or kernel_obstacle(field, arch, jnp.dtype(dtype), decoder=decoder)
            if not lowest_of_processes(int(obstacle is None)):  # their programs must be the same
                obstacle = obstacle or "the kernel does not run in another process"
        if name == "fused" and obstacle:
            raise InputError(
                f"model.{field} is 'fused', which cannot run here ({obstacle}): set "
                f"--config.model.{field}=auto or plain"
            )
        if name != "plain" and obstacle is None:
            fused[field] = _import_kernel(field)
        choice = ("fused" if field in fused else "plain") + (f" ({obstacle})" if obstacle else "")
        choices.setdefault(choice, []).append(field)
    if is_primary_process():
        for choice, fields in choices.items():
            print(f"{' and '.join(fields)}: {choice}")
    return Kernels(**fused)


def compiler_options(kernels: Kernels) -> CompilerOptions:
    """Return the options of XLA for a train step with these kernels."""
    return () if kernels == PLAIN else FUSED_OPTIONS


def kernel_names(kernels: Kernels) -> dict[str, str]:
    """Return "plain" or "fused" by the fields of `Kernels`."""
    return {
        field: "plain" if getattr(kernels, field) is getattr(PLAIN, field) else "fused"
        for field in KERNEL_FIELDS
    }


def find_drawback(field: str, arch: Architecture, dtype: DTypeLike, *, decoder: bool) -> str | None:
    """Return why a kernel would not pay for a model, or None; see `kernel_obstacle`."""
    if dtype != jnp.bfloat16:
        return f"the kernel is for bfloat16, the computation is in {jnp.dtype(dtype).name}"
    tokens = max(tokens for tokens, _ in attention_sizes(arch, decoder=decoder))
    if field == "attention" and tokens > LARGEST_WINDOW:
        return f"windows of {tokens} tokens: the kernel is for up to {LARGEST_WINDOW}"
    return None


def device_obstacle() -> str | None:
    """Return the reason why the devices of JAX cannot run the kernels, or None."""
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


@lru_cache(maxsize=CACHED_TRIALS)
def kernel_obstacle(
    field: str, arch: Architecture, dtype: np.dtype, *, decoder: bool
) -> str | None:
    """Return the reason why a kernel fails for a model, or None.

    Args:
      field: of `Kernels`.
      arch: architecture of the model.
      dtype: dtype of the computation.
      decoder: whether the model has the decoder of pretraining.
    """
    try:
        kernel = _import_kernel(field)
        for trial in TRIALS[field](arch, dtype, decoder=decoder):
            deviation = measure_deviation(kernel, getattr(PLAIN, field), trial)
            if not deviation <= TOLERANCE[dtype.name]:  # NaN included
                return (
                    f"the kernel for {trial.size} deviates by {deviation:.1g} from the plain form"
                )
    except Exception as error:  # Pallas, Triton and XLA raise many types, and more in each version
        return f"the kernel does not run: {first_line(error)[:200]}"
    return None


def attention_sizes(arch: Architecture, *, decoder: bool) -> dict[tuple[int, int], int]:
    """Return the number of heads by (tokens of a sequence, width of a head), each pair once.

    Args:
      arch: architecture of the model.
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


def block_widths(arch: Architecture, *, decoder: bool) -> list[int]:
    """Return the widths of the blocks of a model, each once; see `attention_sizes`."""
    widths = {arch.embed_dim << stage for stage in range(len(arch.depths))}
    return sorted(widths | ({arch.decoder_embed_dim} if decoder else set()))


def attention_trials(arch: Architecture, dtype: DTypeLike, *, decoder: bool) -> Iterator[Trial]:
    """Return a trial of the attention for each of `attention_sizes`."""
    for (tokens, width), heads in attention_sizes(arch, decoder=decoder).items():
        yield attention_trial(dtype, tokens, heads, width)


def attention_trial(
    dtype: DTypeLike,
    tokens: int,
    heads: int,
    width: int,
    sequences: int = TRIAL_SEQUENCES,
    windows: int = 2,
) -> Trial:
    """Return a trial of the attention with bias and mask.

    Args:
      dtype: dtype of query, key and value.
      tokens: number of tokens of a sequence.
      heads: number of heads.
      width: width of a head.
      sequences: number of sequences.
      windows: masks, of that many sequences in turn.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    qkv = jax.random.normal(keys[0], (sequences * tokens, 3 * heads * width)).astype(dtype)
    bias = jax.random.normal(keys[1], (heads, tokens, tokens))
    mask = jax.random.bernoulli(keys[2], 0.5, (windows, tokens)).astype(jnp.float32)

    def apply(attention: AttentionFn, arrays: Any) -> Sequence[jax.Array]:
        qkv, bias = arrays
        return [attention(qkv, tokens, heads, bias, mask)]

    return Trial(f"{tokens} tokens and heads of {width}", apply, (qkv, bias))


def norm_trials(arch: Architecture, dtype: DTypeLike, *, decoder: bool) -> Iterator[Trial]:
    """Return trials of residual sum and LayerNorm for `block_widths`, with and without padding."""
    from sar_mixmae_jax.models.fused_norm import rows_of_programs

    for width in block_widths(arch, decoder=decoder):
        rows = 2 * rows_of_programs(width)  # a program goes through two tiles
        yield norm_trial(dtype, rows, width)
        yield norm_trial(dtype, rows + 1, width)


def norm_trial(dtype: DTypeLike, rows: int, width: int) -> Trial:
    """Return a trial of the residual sum and LayerNorm, with a branch and without.

    Args:
      dtype: dtype of the rows.
      rows: number of rows.
      width: width of a row.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    x, change = (jax.random.normal(key, (rows, width)).astype(dtype) for key in keys[:2])
    scale, bias = (jax.random.normal(key, (width,)) for key in keys[2:])

    def apply(norm: NormFn, arrays: Any) -> Sequence[jax.Array]:
        x, change, scale, bias = arrays
        return [*norm(x, change, scale, bias), *norm(x, None, scale, bias)]

    return Trial(f"{rows} rows of {width}", apply, (x, change, scale, bias))


def measure_deviation(
    kernel: Any, plain: Any, trial: Trial, exact: DTypeLike | None = None
) -> float:
    """Return the largest relative deviation of a kernel's outputs and gradients.

    Args:
      kernel: is checked.
      plain: the function that it is compared with.
      trial: inputs.
      exact: type of the inputs of `plain`; None: that of the trial.
    """

    def differentiate(function: Any, arrays: Any) -> list[jax.Array]:
        def total(arrays: Any) -> tuple[jax.Array, Any]:
            outputs = trial.apply(function, arrays)
            keys = jax.random.split(jax.random.key(1), len(outputs))
            weighted = [
                (out * jax.random.normal(key, out.shape)).sum()
                for key, out in zip(keys, outputs, strict=True)
            ]
            return jnp.sum(jnp.stack(weighted)), outputs

        gradients, outputs = jax.jit(jax.grad(total, has_aux=True))(arrays)
        return [array.astype(jnp.float32) for array in (*outputs, *gradients)]

    def relative(value: jax.Array, expected: jax.Array) -> jax.Array:
        return jnp.linalg.norm(value - expected) / jnp.linalg.norm(expected)

    inputs = [array.astype(exact or array.dtype) for array in trial.arrays]
    pairs = zip(differentiate(kernel, trial.arrays), differentiate(plain, inputs), strict=True)
    return float(np.max([relative(*pair) for pair in pairs]))  # NaN if one is


TRIALS: dict[str, Callable[..., Iterator[Trial]]] = {
    "attention": attention_trials,
    "norm": norm_trials,
}
"""Trials of the sizes of a model, by field of `Kernels`."""


def _import_kernel(field: str) -> Any:
    # Not at the top: Pallas is slow to load, and has moved between versions of JAX.
    if field == "attention":
        from sar_mixmae_jax.models.fused_attention import fused_attention

        return fused_attention
    from sar_mixmae_jax.models.fused_norm import fused_norm

    return fused_norm
