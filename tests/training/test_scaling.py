"""Rates of several devices: limits, splits of a batch, efficiency."""

import dataclasses

import pytest

from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.training.accelerators import ACCELERATORS, Interconnect
from sar_mixmae_jax.training.cost import step_times
from sar_mixmae_jax.training.device_memory import DeviceStep
from sar_mixmae_jax.training.scaling import DEVICE_COUNTS, estimate_rate, estimate_scaling

PARAMETERS = 113_547_000
GPU = ACCELERATORS["H100 SXM"]
NO_LIMIT = 1e12


def base_step(images: int, **changes) -> DeviceStep:
    return DeviceStep(VARIANTS["base"], PARAMETERS, images, side=120, **changes)


def test_a_fixed_batch_is_split_and_a_fixed_share_is_repeated():
    by_kind = estimate_scaling(GPU, base_step(256), "auto", 8, NO_LIMIT)
    assert [rate["batch_size"] for rate in by_kind["fixed batch"]] == [2048] * 4
    assert [rate["batch_size"] for rate in by_kind["fixed share"]] == [
        256 * count for count in DEVICE_COUNTS
    ]
    shares = [rate["efficiency"] for rate in by_kind["fixed share"]]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)


def test_a_batch_too_small_for_the_devices_has_no_rate():
    """512 images: one for each of 512 devices, which cannot be mixed."""
    rates = estimate_scaling(GPU, base_step(64), "auto", 8, NO_LIMIT)["fixed batch"]
    assert [rate is None for rate in rates] == [False, False, False, True]


def test_one_device_computes_as_many_microbatches():
    """Eight on one device have the time of eight steps of one, but for the update."""
    rates = estimate_scaling(GPU, base_step(256), "auto", 8, NO_LIMIT)["fixed batch"]
    one = step_times(GPU, base_step(2048, grad_accum_steps=8), "bfloat16")
    assert rates[0]["step_seconds"] == one.seconds


def test_limits():
    """The reader with few images/s, the exchange with a slow network, else the memory."""
    step = base_step(256)
    assert estimate_rate(GPU, step, "bfloat16", 16, NO_LIMIT)["limit"] == "memory"
    read = estimate_rate(GPU, step, "bfloat16", 16, 1000.0)
    assert (read["limit"], read["images_per_second"]) == ("reader", 2 * 1000)
    links = dataclasses.replace(GPU.interconnect, network=1e6)
    slow = estimate_rate(
        dataclasses.replace(GPU, interconnect=links), step, "bfloat16", 16, NO_LIMIT
    )
    assert slow["limit"] == "exchange"
    sent = 2 * 4 * PARAMETERS * (7 / 8 / links.link + 1 / 8 / 2 / links.network)
    assert slow["exchange_seconds"] == pytest.approx(sent)
    assert isinstance(links, Interconnect)


def test_unknown_links_have_no_rate_of_several_devices():
    cpu = ACCELERATORS["CPU, 2 cores"]
    assert estimate_rate(cpu, base_step(8), "float32", 1, NO_LIMIT)["limit"] == "products"
    assert estimate_rate(cpu, base_step(8), "float32", 2, NO_LIMIT) is None
