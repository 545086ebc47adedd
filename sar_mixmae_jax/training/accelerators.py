"""Peak arithmetic, memory and bandwidth of accelerators, from data sheets."""

import dataclasses

from sar_mixmae_jax.utils.errors import look_up

GB, GIB = 10**9, 2**30
TPU_FLOAT32_PASSES = 6
"""bfloat16 products that make one float32 product of `precision=highest` on a TPU (bf16_6x)."""

ASSUMED_UTILISATION = 0.4
"""Fraction of the peak that matrix products reach where no step was measured: an assumption.

Memory traffic is accounted for separately.
"""


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device as JAX counts them: a chip.

    Attributes:
      source: origin of the numbers.
      float32: peak FLOP/s of float32 products with `precision=highest`.
      bfloat16: peak dense FLOP/s of bfloat16 products; None where `dtype=auto` is float32.
      memory: bytes; None for memory that is shared with other processes.
      bandwidth: bytes/s of the memory; None if unknown.
      utilisation: fraction of the peak that a training step reaches.
      measured: whether the utilisation was measured, on a whole step including its waits for
        memory.
    """

    source: str
    float32: float
    bfloat16: float | None = None
    memory: int | None = None
    bandwidth: float | None = None
    utilisation: float = ASSUMED_UTILISATION
    measured: bool = False

    def peak(self, dtype: str) -> float | None:
        """Return the peak FLOP/s in "float32" or "bfloat16", or None if unknown.

        Raises:
          InputError: `dtype` is another one.
        """
        return look_up({"float32": self.float32, "bfloat16": self.bfloat16}, dtype, "dtype")

    def resolve_dtype(self, dtype: str) -> str:
        """Return the dtype that "auto" means on this device, as `config.compute_dtype` does."""
        if dtype != "auto":
            return dtype
        return "bfloat16" if self.bfloat16 else "float32"


def _tpu(version: str, tera: float, memory: int, bandwidth: float) -> Accelerator:
    """Return a TPU, which computes a float32 product as several bfloat16 products."""
    source = f"Google Cloud documentation, TPU {version}"
    return Accelerator(
        source, tera * 1e12 / TPU_FLOAT32_PASSES, tera * 1e12, memory, bandwidth * GB
    )


def _gpu(name: str, tera: float, float32: float, memory: int, bandwidth: float) -> Accelerator:
    """Return an NVIDIA GPU; float32 of the highest precision does not use tensor cores."""
    source = f"NVIDIA {name} data sheet, without sparsity"
    return Accelerator(source, float32 * 1e12, tera * 1e12, memory, bandwidth * GB)


ACCELERATORS = {
    "TPU v4": _tpu("v4", 275, 32 * GIB, 1228),
    "TPU v5e": _tpu("v5e", 197, 16 * GB, 819),
    "TPU v5p": _tpu("v5p", 459, 95 * GB, 2765),
    "TPU v6e": _tpu("v6e", 918, 32 * GB, 1640),
    "A100 80GB": _gpu("A100 80GB SXM", 312, 19.5, 80 * GB, 2039),
    "H100 SXM": _gpu("H100 SXM", 989, 67, 80 * GB, 3350),
    "H200": dataclasses.replace(  # 50.0 ms for 256 images of `base`: docs/results.md
        _gpu("H200 SXM", 989, 67, 141 * GB, 4800), utilisation=0.184, measured=True
    ),
    "L4": _gpu("L4", 121, 30.3, 24 * GB, 300),
    "CPU, 2 cores": Accelerator(
        "docs/results.md: products of 4096³ and the step of `base`, measured",
        165.7e9,
        utilisation=0.649,
        measured=True,
    ),
}
"""Devices that times are estimated for, by name."""
