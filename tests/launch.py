"""Functions that run the commands of the package, in this process or in others."""

import atexit
import io
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
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
    """Run a command in this process; return its exit status, output, and errors with the log.

    Imports and compiled programs are shared with the tests, which saves seconds.

    Args:
      main: main function of the command.
      *arguments: arguments of the command line.
    """
    output, errors = io.StringIO(), io.StringIO()
    handler, status = logging.StreamHandler(errors), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        redirect_stdout(output),
        redirect_stderr(errors),
        mock.patch.object(common, "configure_logging"),  # it configures the whole process
    ):
        handler.addFilter(common.is_not_duplicate)
        logging.getLogger().addHandler(handler)
        try:
            main(["command", *map(str, arguments)])
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            logging.getLogger().removeHandler(handler)
            for number, before in handlers.items():
                signal.signal(number, before)
    return status, output.getvalue(), errors.getvalue()


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Limit the size of files to a number of bytes, in place of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "sar_mixmae_jax.cli.train",
        "sar_mixmae_jax.inference.evaluator",
        "sar_mixmae_jax.run_report.page",
        "sar_mixmae_jax.training.finetune",
        "sar_mixmae_jax.training.pretrain",
        "tests.launch",
    ]
)


def start_fork_server() -> None:
    """Start the process from which commands are forked, unless it runs.

    It is started before a build starts one of its own, with another environment.
    """
    with mock.patch.dict(os.environ, environment()):
        multiprocessing.forkserver.ensure_running()


class Command:
    """Process that runs a module as `__main__`, with the interface of `Popen`.

    It is forked from a process that has imported the package, which saves four seconds. Unlike with
    `python -m`, all processes have the same hashes of strings and end without the interpreter's
    clean-up.
    """

    NAME = "command"

    def __init__(self, module: str, arguments: Sequence[str], devices: int) -> None:
        """Start the process with its output redirected to files.

        Args:
          module: name of the module.
          arguments: arguments of the command line.
          devices: number of CPU devices.
        """
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("output", "errors")]
        for path in self._files:
            path.touch()
        self._process = FORKSERVER.Process(
            target=run_module,
            args=(module, arguments, environment(devices), self._files),
            name=self.NAME,
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, or None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the process and return its output and errors.

        Raises:
          TimeoutExpired: the process is still running.
        """
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.NAME, timeout)
        output, errors = (path.read_text() for path in self._files)
        return output, errors


def kill_commands() -> None:
    """Kill the processes that a failed test left; multiprocessing would wait for them."""
    for process in multiprocessing.active_children():
        if process.name == Command.NAME:
            process.kill()
            process.join()


def run_module(
    module: str, arguments: Sequence[str], env: Mapping[str, str], files: Sequence[Path]
) -> None:
    """Run a module as `__main__` in this process, before JAX is used.

    Args:
      module: name of the module.
      arguments: arguments of the command line.
      env: environment.
      files: paths to which output and errors are appended.
    """
    for stream, path in zip((sys.stdout, sys.stderr), files, strict=True):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:  # as at the end of an interpreter, which multiprocessing skips
        threading._shutdown()
        atexit._run_exitfuncs()


def start(
    *arguments: object,
    devices: int = 2,
    module: str = "sar_mixmae_jax.main",
    fork: bool = True,
) -> Command | subprocess.Popen:
    """Start a module in a process of its own, whose output `finish` returns.

    Args:
      *arguments: arguments of the command line.
      devices: number of CPU devices.
      module: name of the module.
      fork: whether to fork it, or to start it by `python -m` as a user does.
    """
    texts = [str(argument) for argument in arguments]
    if fork:
        return Command(module, texts, devices)
    return subprocess.Popen(
        [sys.executable, "-m", module, *texts],
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
    last_arguments: Sequence[object] = (),
    module: str = "sar_mixmae_jax.main",
    fork: bool = True,
) -> list[Command | subprocess.Popen]:
    """Start a module in several processes that form one run.

    Args:
      processes: number of processes.
      *arguments: arguments of all processes.
      devices: number of CPU devices of each process.
      last_arguments: further arguments of the last process.
      module: name of the module.
      fork: whether to fork the processes.
    """
    address = f"127.0.0.1:{free_port()}"
    shared = (*arguments, f"--coordinator_address={address}", f"--num_processes={processes}")
    return [
        start(
            *shared,
            f"--process_id={process}",
            *(last_arguments if process == processes - 1 else ()),
            devices=devices,
            module=module,
            fork=fork,
        )
        for process in range(processes)
    ]


TIMEOUT_SECONDS = 600
"""Time after which a process counts as hung, on a machine under load."""


def finish(
    process: Command | subprocess.Popen, timeout: float = TIMEOUT_SECONDS
) -> tuple[int, str, str]:
    """Wait for a process and return its exit status, output and errors.

    Raises:
      AssertionError: the process did not end within the timeout, and was killed.
    """
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"the process hung:\n{output}\n{errors}") from None
    return process.returncode, output, errors


def free_port() -> int:
    """Return an unused port of the loopback device."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]
