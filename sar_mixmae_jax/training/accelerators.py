"""Peak arithmetic, memory, bandwidth and links of accelerators, from data sheets.

Gradients are summed over all devices in float32, once a step and after the last microbatch, so that
nothing overlaps. Within a group of devices the sum is a reduce-scatter and an all-gather over a
ring; between groups every device sums its part with its counterparts over the network. Only bytes
are counted: latency is not, and links are assumed to reach their full rate.
"""

import dataclasses
import math
from typing import NamedTuple

from sar_mixmae_jax.utils.errors import look_up

GB, GIB = 10**9, 2**30
GBIT = GB / 8
TPU_FLOAT32_PASSES = 6
"""bfloat16 products that make one float32 product of `precision=highest` on a TPU (bf16_6x)."""

ASSUMED_UTILISATION = 0.4
"""Fraction of the peak that matrix products reach where no step was measured: an assumption.

Memory traffic is accounted for separately.
"""


@dataclasses.dataclass(frozen=True)
class Interconnect:
    """Links between devices of one kind.

    Attributes:
      source: origin of the numbers.
      link: bytes/s that a device sends to the others of its group, all links together.
      group: devices joined by these links: a pod of TPUs, a host of GPUs.
      network: bytes/s that a device sends to other groups: its share of the host's network cards.
      host: devices of a host, which share a reader.
    """

    source: str
    link: float
    group: int
    network: float
    host: int


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
      interconnect: links to other devices; None if unknown.
      fused: whether `kernel_choice` takes fused kernels in bfloat16.
    """

    source: str
    float32: float
    bfloat16: float | None = None
    memory: int | None = None
    bandwidth: float | None = None
    utilisation: float = ASSUMED_UTILISATION
    measured: bool = False
    interconnect: Interconnect | None = None
    fused: bool = False

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


def _tpu(
    version: str, tera: float, memory: int, bandwidth: float, interconnect: Interconnect
) -> Accelerator:
    """Return a TPU, which computes a float32 product as several bfloat16 products."""
    return Accelerator(
        f"Google Cloud documentation, TPU {version}",
        tera * 1e12 / TPU_FLOAT32_PASSES,
        tera * 1e12,
        memory,
        bandwidth * GB,
        interconnect=interconnect,
    )


def _torus(link: float, group: int, gigabits: float) -> Interconnect:
    """Return the interconnect of a TPU: GB/s of its links, Gbit/s of its network, one direction."""
    source = "Google Cloud documentation: chip-to-chip links, data-centre network of a pod"
    return Interconnect(source, link * GB, group, gigabits * GBIT, host=4)


def _gpu(
    name: str, tera: float, float32: float, memory: int, bandwidth: float, links: Interconnect
) -> Accelerator:
    """Return an NVIDIA GPU; float32 of the highest precision does not use tensor cores."""
    source = f"NVIDIA {name} data sheet, without sparsity"
    return Accelerator(
        source,
        float32 * 1e12,
        tera * 1e12,
        memory,
        bandwidth * GB,
        interconnect=links,
        fused=True,
    )


def _host(link: float, gigabits: float, source: str) -> Interconnect:
    """Return the interconnect of hosts of eight GPUs: GB/s of links, Gbit/s of network each."""
    return Interconnect(source, link * GB, 8, gigabits * GBIT, host=8)


NVLINK_4 = _host(450, 400, "NVIDIA DGX H100 data sheet: NVLink 4, a 400 Gbit/s adapter per GPU")

ACCELERATORS = {
    "TPU v4": _tpu("v4", 275, 32 * GIB, 1228, _torus(268, 4096, 50)),
    "TPU v5e": _tpu("v5e", 197, 16 * GIB, 819, _torus(200, 256, 25)),
    "TPU v5p": _tpu("v5p", 459, 95 * GIB, 2765, _torus(600, 8960, 50)),
    "TPU v6e": _tpu("v6e", 918, 32 * GIB, 1640, _torus(400, 256, 100)),
    "A100 80GB": _gpu(
        "A100 80GB SXM",
        312,
        19.5,
        80 * GB,
        2039,
        _host(300, 200, "NVIDIA DGX A100 data sheet: NVLink 3, a 200 Gbit/s adapter per GPU"),
    ),
    "H100 SXM": _gpu("H100 SXM", 989, 67, 80 * GB, 3350, NVLINK_4),
    "H200": dataclasses.replace(  # 119 ms for 1,024 images of `base`: docs/results.md
        _gpu("H200 SXM", 989, 67, 141 * GB, 4800, NVLINK_4), utilisation=0.308, measured=True
    ),
    "L4": _gpu(
        "L4",
        121,
        30.3,
        24 * GB,
        300,
        _host(32, 100 / 8, "NVIDIA L4 data sheet: PCIe 4 x16; Google Cloud g2-standard-96"),
    ),
    "CPU, 2 cores": Accelerator(
        "docs/results.md: products of 4096³ and the step of `base`, measured",
        165.7e9,
        utilisation=0.649,
        measured=True,
    ),
}
"""Devices that times are estimated for, by name."""
TPU_KINDS = {
    "TPU v4": "TPU v4",
    "TPU v5 lite": "TPU v5e",
    "TPU v5": "TPU v5p",
    "TPU v6 lite": "TPU v6e",
}
"""Entries of `ACCELERATORS` by the kind of device that JAX reports."""


class ExchangedBytes(NamedTuple):
    """Bytes that every device sends in an all-reduce.

    Attributes:
      link: over the links of its group.
      network: to other groups.
    """

    link: float
    network: float


def all_reduce_bytes(size: int, devices: int, group: int) -> ExchangedBytes:
    """Return the bytes that every device sends, together 2 (n - 1) / n times the size.

    Args:
      size: bytes of the array that is summed.
      devices: number n of devices; groups are taken as equal.
      group: devices joined by fast links.
    """
    groups = math.ceil(devices / group)
    members = devices / groups
    link = 2 * size * (members - 1) / members
    network = 2 * size / members * (groups - 1) / groups
    return ExchangedBytes(link, network)


def exchange_seconds(size: int, devices: int, interconnect: Interconnect | None) -> float | None:
    """Return the time of an all-reduce, 0 on one device, or None if the links are unknown.

    Args:
      size: bytes of the array that is summed.
      devices: number of devices.
      interconnect: links of a device.
    """
    if devices == 1:
        return 0.0
    if interconnect is None:
        return None
    sent = all_reduce_bytes(size, devices, interconnect.group)
    return sent.link / interconnect.link + sent.network / interconnect.network


def count_hosts(devices: int, interconnect: Interconnect | None) -> int:
    """Return the number of hosts, each of which reads its part of a batch."""
    return math.ceil(devices / interconnect.host) if interconnect else devices
