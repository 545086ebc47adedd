"""Notices when one of several processes is gone, and ends the others with its name.

Without it they would wait for the dead one in the middle of a step. JAX notices too, later, and
ends them with its own words.
"""

import os
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any, Self

import jax
from jax._src.distributed import global_state  # the store that the processes share; no public name

from sar_mixmae_jax.errors import UserError, fail, plain

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 30.0
"""A process that has not told anything for so long is taken for dead."""
ENDED, FAILED = "ended", "failed"
FOLDER = "lifeline/"


class Lifeline:
    """Tells the others that this process lives, and listens to them; idle on a single process."""

    def __init__(self) -> None:
        """Starts to tell and to listen, in a thread of its own."""
        self._ended = threading.Event()
        self._name = f"process {jax.process_index()} of {jax.process_count()} on {_host()}"
        self._thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)
        if jax.process_count() > 1:
            self._thread.start()
            first = _client().blocking_key_value_get(f"{FOLDER}0", 60_000).split("|")[1]
            print(f"{self._name}; {first} coordinates", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """This process is done; if it failed, and is one of several, all of them end here."""
        if not self._thread.is_alive():
            return
        if isinstance(error, jax.errors.JaxRuntimeError):
            # A collective may fail because another process is gone: this thread then names it.
            self._thread.join(SILENCE_SECONDS + 2 * BEAT_SECONDS)
        self._ended.set()
        self._thread.join()
        if error is None:
            _tell(f"{ENDED}|{self._name}|")
            return
        _tell(f"{FAILED}|{self._name}|{plain(' '.join(str(error).split())) or kind}")
        if jax.process_index() == 0:
            time.sleep(2 * BEAT_SECONDS)  # the others read it from this process
        if isinstance(error, UserError):
            with suppress(SystemExit):
                fail(error)
        else:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # leaving politely would wait for the others

    def _watch(self) -> None:
        heard: dict[str, tuple[str, float]] = {}
        beat = 0
        while not self._ended.wait(BEAT_SECONDS):
            beat += 1
            try:
                _tell(f"{beat}|{self._name}|")
                told = dict(_client().key_value_dir_get(FOLDER))
            except Exception as error:  # the store raises what its transport raises
                if not self._ended.is_set():
                    _end(f"process 0 cannot be reached any more ({str(error).splitlines()[0]})")
                return
            now = time.monotonic()
            for key, text in told.items():
                state, name, reason = text.split("|", 2)
                if state == FAILED:
                    _end(f"{name} failed: {reason}")
                if heard.get(key, ("", 0.0))[0] != text:
                    heard[key] = text, now
                elif state != ENDED and now - heard[key][1] > SILENCE_SECONDS:
                    _end(f"{name} has not been heard of for {SILENCE_SECONDS:.0f} s")


def _client() -> Any:
    return global_state.client


def _tell(text: str) -> None:
    _client().key_value_set(f"{FOLDER}{jax.process_index()}", text, allow_overwrite=True)


def _host() -> str:
    return f"{socket.gethostname()} (process id {os.getpid()})"


def _end(what: str) -> None:
    """Ends this process at once: it may be waiting inside a collective that never returns."""
    print(
        f"error: {what}: this process ends too; start all of them again, they go on from the last "
        "checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
