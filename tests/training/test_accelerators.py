"""Bytes of an all-reduce against a simulation that sends the numbers."""

import numpy as np
import pytest

from sar_mixmae_jax.training.accelerators import (
    ACCELERATORS,
    Interconnect,
    all_reduce_bytes,
    count_hosts,
    exchange_seconds,
)


def pass_around(parts: list[np.ndarray], sent: np.ndarray, *, add: bool) -> None:
    """Send parts around a ring in n - 1 turns: a reduce-scatter, or an all-gather after it.

    Args:
      parts: of every member, (part, value), changed in place.
      sent: bytes of every member, increased.
      add: whether the receiver adds a part or replaces its own.
    """
    n = len(parts)
    for turn in range(n - 1):
        offset = 0 if add else 1
        numbers = [(member - turn + offset) % n for member in range(n)]
        messages = [parts[member][numbers[member]].copy() for member in range(n)]
        for member, message in enumerate(messages):
            sent[member] += message.nbytes
            receiver = parts[(member + 1) % n]
            receiver[numbers[member]] = message + (receiver[numbers[member]] if add else 0)


@pytest.mark.parametrize(("devices", "group"), [(1, 8), (8, 8), (8, 4), (12, 4), (16, 2), (4, 1)])
def test_bytes_are_those_that_a_simulated_ring_sends(devices, group):
    """Reduce-scatter in the group, ring all-reduce of each part between groups, all-gather."""
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 100, (devices, 96)).astype(np.float32)
    expected = arrays.sum(0)
    members = min(devices, group)
    groups = devices // members
    link, network = np.zeros(devices), np.zeros(devices)
    held = [array.reshape(members, -1).copy() for array in arrays]
    by_group = [slice(first, first + members) for first in range(0, devices, members)]
    for one in by_group:
        pass_around(held[one], link[one], add=True)
    for member in range(members):
        owned = (member + 1) % members
        peers = range(member, devices, members)
        parts = [held[peer][owned].reshape(groups, -1).copy() for peer in peers]
        counted = np.zeros(groups)
        pass_around(parts, counted, add=True)
        pass_around(parts, counted, add=False)
        for peer, part, count in zip(peers, parts, counted, strict=True):
            held[peer][owned] = part.ravel()
            network[peer] = count
    for one in by_group:
        pass_around(held[one], link[one], add=False)
    for array in held:
        np.testing.assert_array_equal(array.ravel(), expected)
    counted = all_reduce_bytes(arrays[0].nbytes, devices, group)
    np.testing.assert_allclose(link, counted.link)
    np.testing.assert_allclose(network, counted.network)


def test_seconds_of_two_hosts_of_eight():
    """1 GB: 7/8 there and back over the links, half of an eighth there and back between hosts."""
    links = Interconnect("made up", link=100e9, group=8, network=10e9, host=8)
    assert exchange_seconds(10**9, 16, links) == pytest.approx(2 * 0.875 / 100 + 0.125 / 10)
    assert exchange_seconds(10**9, 1, links) == 0
    assert exchange_seconds(10**9, 2, None) is None
    assert [count_hosts(devices, links) for devices in (1, 8, 9, 512)] == [1, 1, 2, 64]


def test_links_are_faster_than_the_network_and_slower_than_the_memory():
    for device in ACCELERATORS.values():
        links = device.interconnect
        assert links is None or links.network < links.link < device.bandwidth
