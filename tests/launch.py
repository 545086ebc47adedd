"""Runs the real commands, in this process or in others."""

import io
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import tests
from sar_mixmae_jax.cli import common

ROOT = Path(__file__).parent.parent


def environment(devices: int = 2) -> dict[str, str]:
    """Return the environment of a process with this number of CPU devices."""
    flags = tests.xla_flags(devices)
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def call(main: Callable[[Sequence[str]], None], *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: its status, output and errors with what is logged.

    Imports and compiled programs are those of the tests, which saves seconds.
    """
    output, errors = io.StringIO(), io.StringIO()
    handler, status = logging.StreamHandler(errors), 0
    on_signal = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        redirect_stdout(output),
        redirect_stderr(errors),
        mock.patch.object(common, "configure_logging"),  # of the whole process
    ):
        handler.addFilter(common.is_not_duplicate)
        logging.getLogger().addHandler(handler)
        try:
            main(["command", *map(str, arguments)])
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            logging.getLogger().removeHandler(handler)
            for number, before in on_signal.items():
                signal.signal(number, before)
    return status, output.getvalue(), errors.getvalue()


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """No file may become larger than this number of bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def start(
    *arguments: object, devices: int = 2, module: str = "sar_mixmae_jax.main"
) -> subprocess.Popen:
    """Starts a module; its output is kept."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_together(
    processes: int,
    *arguments: object,
    devices: int = 1,
    last: Sequence[object] = (),
    module: str = "sar_mixmae_jax.main",
) -> list[subprocess.Popen]:
    """Starts the command in several processes that form one run; `last` is for the last alone."""
    address = f"127.0.0.1:{free_port()}"
    together = (*arguments, f"--coordinator_address={address}", f"--num_processes={processes}")
    return [
        start(
            *together,
            f"--process_id={process}",
            *(last if process == processes - 1 else ()),
            devices=devices,
            module=module,
        )
        for process in range(processes)
    ]


PATIENCE_SECONDS = 600
"""Time until a process counts as one that hangs, on a machine with much else to do."""


def finish(process: subprocess.Popen, timeout: float = PATIENCE_SECONDS) -> tuple[int, str, str]:
    """Waits for a process: its status, output and errors; one that hangs is killed."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"it hung:\n{output}\n{errors}") from None
    return process.returncode, output, errors


def free_port() -> int:
    """A port of the loopback device that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
