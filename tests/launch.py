"""Runs the real commands, in this process or in others."""

import atexit
import io
import logging
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [f"sar_mixmae_jax.{name}" for name in ("cli.evaluate", "cli.train", "run_report.page")]
    + [f"sar_mixmae_jax.training.{name}" for name in ("pretrain", "finetune")]
    + [__name__]
)


class Command:
    """A module that runs as `python -m` would run it, in a process of its own.

    The process is forked from one that has imported the package, which saves 4 s.
    """

    def __init__(self, module: str, arguments: Sequence[str], devices: int) -> None:
        """Start the process; its output goes to files."""
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("output", "errors")]
        self._process = FORKS.Process(
            target=run_module, args=(module, arguments, environment(devices), self._files)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while the process runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the process and return its output and errors.

        Raises:
          TimeoutError: it still runs.
        """
        self._process.join(timeout)
        if self.poll() is None:
            raise TimeoutError
        output, errors = (path.read_text() for path in self._files)
        return output, errors


def run_module(
    module: str, arguments: Sequence[str], env: Mapping[str, str], files: Sequence[Path]
) -> None:
    """Run a module as `__main__` in this process, which has not used JAX yet."""
    for stream, path in zip((sys.stdout, sys.stderr), files, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.chdir(ROOT)
    os.environ.update(env)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing skips


def start(*arguments: object, devices: int = 2, module: str = "sar_mixmae_jax.main") -> Command:
    """Starts a module; its output is kept."""
    return Command(module, [str(argument) for argument in arguments], devices)


def start_together(
    processes: int,
    *arguments: object,
    devices: int = 1,
    last: Sequence[object] = (),
    module: str = "sar_mixmae_jax.main",
) -> list[Command]:
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


def finish(process: Command, timeout: float = PATIENCE_SECONDS) -> tuple[int, str, str]:
    """Waits for a process: its status, output and errors; one that hangs is killed."""
    try:
        output, errors = process.communicate(timeout)
    except TimeoutError:
        process.kill()
        output, errors = process.communicate(PATIENCE_SECONDS)
        raise AssertionError(f"it hung:\n{output}\n{errors}") from None
    return process.poll(), output, errors


def free_port() -> int:
    """A port of the loopback device that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
