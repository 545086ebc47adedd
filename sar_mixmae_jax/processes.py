"""Several processes as one run: starting together, and deciding together.

A process is one program on one host with its own devices. All of them run the same steps; only the
first one writes logs and pictures.
"""

import json
import socket
import threading
import zlib
from typing import Any

import jax
import numpy as np
from jax._src.clusters import ClusterEnv  # no public name tells how many processes there are
from jax.experimental import multihost_utils

from sar_mixmae_jax.devices import share
from sar_mixmae_jax.errors import InputError, fail_at_once, first_line

HEARTBEAT_SECONDS = 100
"""JAX ends processes that lost one of theirs after half as long at least; `lifeline` is earlier."""
WAIT_SECONDS = 300
"""So long a process waits for the others to start."""


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes of the run, if there are any, before JAX looks for devices.

    Args:
      coordinator: "host:port" of the first process, reachable by all; None asks the cluster.
      processes: how many there are; None asks the cluster.
      process: which one this is, from 0; None asks the cluster.

    Raises:
      InputError: only some of the three are given, or the others cannot be reached.
    """
    if coordinator is None and processes is None and process is None:
        if not in_cluster():
            return
    elif coordinator is None or processes is None or process is None:
        raise InputError(
            f"found --coordinator_address={coordinator}, --num_processes={processes} and "
            f"--process_id={process}: expected all three, or none of them on a cluster that tells"
        )
    else:
        check_address(coordinator)
        if not 0 <= process < processes:
            raise InputError(
                f"--process_id is {process} and --num_processes {processes}: expected at least one "
                "process, and a number from 0 to below that"
            )
    # Later than this JAX would end the program itself, with a dump of its stack.
    alarm = threading.Timer(WAIT_SECONDS - 5, fail_at_once, [InputError(NOT_JOINED)])
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=WAIT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{NOT_JOINED} ({first_line(error)})") from error
    finally:
        alarm.cancel()


NOT_JOINED = (
    f"the other processes could not be joined: start all of them within {WAIT_SECONDS} s, with a "
    "--coordinator_address=host:port that each can reach and that nobody else uses"
)


def check_address(address: str) -> None:
    """Checks that an address has the form host:port, and that its host has one.

    Raises:
      InputError: says what is wrong.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise InputError(f"--coordinator_address is {address!r}: expected host:port")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"--coordinator_address is {address!r}, which is no address here "
            f"({first_line(error)}): expected the host of the first process"
        ) from error


def in_cluster() -> bool:
    """Whether a launcher (TPU pod, Slurm, Open MPI, …) started this as one of several processes."""
    known = (env for env in ClusterEnv._cluster_types if not env.opt_in_only_method)
    found = next((env for env in known if env.is_env_present()), None)
    return found is not None and found.get_process_count() > 1


def is_first() -> bool:
    """Whether this process writes logs and pictures."""
    return jax.process_index() == 0


def share_of_batch() -> tuple[int, int]:
    """(i, n): which part of every batch this process reads, of how many."""
    return jax.process_index(), jax.process_count()


def told_by_first(number: int) -> int:
    """A whole number that the first process gives, known to all; those of the others are unused."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def agree_on(description: dict[str, Any]) -> None:
    """Checks that all processes were started for the same run.

    Args:
      description: {"config", "dataset", "model"} as JSON has it; `data_dir` may differ by host.

    Raises:
      InputError: this process has another one than the first, or other devices.
    """
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise InputError(
            f"found {jax.local_device_count()} of {jax.device_count()} devices in this process, "
            f"expected {jax.process_count()} processes with equally many"
        )
    config = {**description["config"], "data_dir": None}
    text = json.dumps({**description, "config": config}, sort_keys=True)
    digest = zlib.crc32(text.encode()) & 0x7FFFFFFF
    if told_by_first(digest) != digest:
        raise InputError(
            "this process has another configuration or dataset than the first one: start all of "
            "them with the same flags"
        )


class Agreement:
    """Whether any process wants something, told to all of them at the same step.

    The answer is about the call before, since nobody waits for it while the device computes.
    """

    def __init__(self) -> None:
        """Starts with nobody wanting anything."""
        self._any = jax.jit(jax.numpy.any)
        self._before: jax.Array | None = None

    def __call__(self, wanted: bool) -> bool:
        """Tells what this process wants, and returns what any of them wanted."""
        if jax.process_count() == 1:
            return wanted
        asked = self._any(share(np.full(jax.local_device_count(), wanted)))
        before, self._before = self._before, asked
        return before is not None and bool(before)
