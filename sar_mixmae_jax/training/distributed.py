"""Several processes as one run: joining, broadcast, all-reduced flags and heartbeat.

A process is one program on one host with its own devices. All of them run the same steps; only the
first one writes logs and pictures.
"""

import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import jax
import numpy as np
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from sar_mixmae_jax.training.sharding import shard_batch
from sar_mixmae_jax.utils.errors import (
    InputError,
    UserError,
    escape_unprintable,
    fail_at_once,
    first_line,
)

HEARTBEAT_SECONDS = 100
"""Timeout of JAX's own heartbeat, seconds; longer than that of `Heartbeat`."""
_BARRIERS = itertools.count()
BARRIER_HOURS = 24
"""Hours after which a barrier fails."""
WAIT_SECONDS = 300
"""Seconds that a process waits for the others to start."""


def join_processes(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes of the run, if there are any, before JAX initialises devices.

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
            f"--process_id={process}: expected all three, or none of them on a cluster "
            "that JAX detects"
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
    "--coordinator_address=host:port reachable from every process, with a free port"
)


def check_address(address: str) -> None:
    """Check that an address has the form host:port, and that the host resolves.

    Raises:
      InputError: the form is another one, or the host is unknown.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise InputError(f"--coordinator_address is {address!r}: expected host:port")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"--coordinator_address is {address!r}, which cannot be resolved on this "
            f"host ({first_line(error)}): expected the host of the first process"
        ) from error


def in_cluster() -> bool:
    """Return True if a launcher (TPU pod, Slurm, Open MPI, …) started several processes."""
    known = (env for env in ClusterEnv._cluster_types if not env.opt_in_only_method)
    cluster = next((env for env in known if env.is_env_present()), None)
    return cluster is not None and cluster.get_process_count() > 1


def is_primary_process() -> bool:
    """Return True in the process that writes logs and pictures."""
    return jax.process_index() == 0


def process_shard() -> tuple[int, int]:
    """Return (index, count) of the part of every batch that this process reads."""
    return jax.process_index(), jax.process_count()


def broadcast_from_primary(number: int) -> int:
    """Return the integer that the primary process passes; those of the others are not used."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def broadcast_check(description: dict[str, Any]) -> None:
    """Check that all processes were started for the same run.

    Args:
      description: {"config", "dataset", "model"} as JSON has it; `data_dir` may differ by
        host, and of `data` all but `cache`.

    Raises:
      InputError: this process has another one than the first, or other devices.
    """
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise InputError(
            f"found {jax.local_device_count()} of {jax.device_count()} devices in this process, "
            f"expected {jax.process_count()} processes with equally many"
        )
    config = {**description["config"], "data_dir": None}
    config["data"] = config.get("data", {}).get("cache")
    text = json.dumps({**description, "config": config}, sort_keys=True)
    digest = zlib.crc32(text.encode()) & 0x7FFFFFFF
    if broadcast_from_primary(digest) != digest:
        raise InputError(
            "this process has another configuration or dataset than the first one: start all of "
            "them with the same flags"
        )


def lowest_of_processes(number: int) -> int:
    """Return the lowest of the integers that the processes pass."""
    if jax.process_count() == 1:
        return number
    return int(np.min(multihost_utils.process_allgather(np.int32(number))))


def processes_of_host() -> int:
    """Return the number of processes of the run on this host."""
    if jax.process_count() == 1:
        return 1
    host = np.int32(zlib.crc32(socket.gethostname().encode()) & 0x7FFFFFFF)
    return int(np.sum(multihost_utils.process_allgather(host) == host))


def wait_for_processes() -> None:
    """Wait until all processes are here; a collective of devices would wait for seconds only."""
    if jax.process_count() > 1:
        name = f"barrier/{next(_BARRIERS)}"
        multihost.get_jax_distributed_client().wait_at_barrier(name, BARRIER_HOURS * 3_600_000)


class AllReduceFlag:
    """Logical or of a flag over all processes, known to all of them at the same step.

    The answer is about the call before, since no process waits for it while the device computes.
    """

    def __init__(self) -> None:
        """Compile the reduction; the flag starts as False."""
        self._any = jax.jit(jax.numpy.any)
        self._before: jax.Array | None = None

    def __call__(self, wanted: bool) -> bool:
        """Submit the flag of this process, and return the flag of the previous call over all."""
        if jax.process_count() == 1:
            return wanted
        asked = self._any(shard_batch(np.full(jax.local_device_count(), wanted)))
        before, self._before = self._before, asked
        return before is not None and bool(before)


BEAT_INTERVAL_SECONDS = 2.0
SILENCE_TIMEOUT_SECONDS = 30.0
"""A process without a heartbeat for so many seconds is considered dead."""
ENDED, FAILED = "ended", "failed"
FOLDER = "heartbeat/"


class Heartbeat:
    """Signs of life between processes; idle on a single process.

    It does not detect a process that hangs, as in a file system that does not answer.
    """

    def __init__(self) -> None:
        """Start the thread that sends and receives signs of life."""
        self._index = jax.process_index()
        self._name = f"process {self._index} of {jax.process_count()} on {_host_name()}"
        self._first = "process 0"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        if jax.process_count() > 1:
            # The store that JAX's processes share, for which JAX has no public name.
            self._store = multihost.get_jax_distributed_client()
            self._thread.start()
            first = self._store.blocking_key_value_get(f"{FOLDER}0", 60_000)
            self._first = first.split("|")[1]
            print(f"{self._name}; {self._first} coordinates", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Leave the run; if this process failed and is one of several, all of them end."""
        if not self._thread.is_alive():
            return
        if isinstance(error, Exception) and not isinstance(error, UserError):
            # A collective may fail because another process is gone: the thread then names it.
            self._thread.join(SILENCE_TIMEOUT_SECONDS + 2 * BEAT_INTERVAL_SECONDS)
        self._ended.set()
        self._thread.join()
        if error is None:
            self._tell(ENDED)
            return
        self._tell(FAILED, escape_unprintable(" ".join(str(error).split())) or str(kind))
        if self._index == 0:
            time.sleep(2 * BEAT_INTERVAL_SECONDS)  # the others read it from this process
        if isinstance(error, UserError):
            fail_at_once(error)
        traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # a regular exit would wait for the others

    def _watch(self) -> None:
        heard: dict[str, tuple[str, float]] = {}
        beat = 0
        with ThreadPoolExecutor(1) as calls:  # a frozen first process answers no call at all
            while not self._ended.wait(BEAT_INTERVAL_SECONDS):
                beat += 1
                try:
                    beats = calls.submit(self._exchange, str(beat)).result(SILENCE_TIMEOUT_SECONDS)
                except Exception as error:  # the store raises what its transport raises
                    if not self._ended.is_set():
                        _end_process(
                            f"{self._first} cannot be reached any more ({first_line(error)})"
                        )
                    return
                self._listen(beats, heard)

    def _exchange(self, beat: str) -> dict[str, str]:
        self._tell(beat)
        return dict(self._store.key_value_dir_get(FOLDER))

    def _listen(self, beats: dict[str, str], heard: dict[str, tuple[str, float]]) -> None:
        now = time.monotonic()
        for key, text in beats.items():
            state, name, reason = text.split("|", 2)
            if state == FAILED:
                _end_process(f"{name} failed: {reason}")
            if heard.get(key, ("", 0.0))[0] != text:
                heard[key] = text, now
            elif state != ENDED and now - heard[key][1] > SILENCE_TIMEOUT_SECONDS:
                _end_process(f"{name} has not been heard of for {SILENCE_TIMEOUT_SECONDS:.0f} s")

    def _tell(self, state: str, reason: str = "") -> None:
        text = f"{state}|{self._name}|{reason}"
        self._store.key_value_set(f"{FOLDER}{self._index}", text, allow_overwrite=True)


def _host_name() -> str:
    return f"{socket.gethostname()} (process id {os.getpid()})"


def _end_process(what: str) -> None:
    """End this process at once, since it may wait in a collective that never returns."""
    print(
        f"error: {what}: this process ends too; start all of them again, they go on from the last "
        "checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)
