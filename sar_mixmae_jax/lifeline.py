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
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import jax
from orbax.checkpoint import multihost

from sar_mixmae_jax.errors import UserError, fail_at_once, first_line, plain

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 30.0
"""A process that has not told anything for so long is taken for dead."""
ENDED, FAILED = "ended", "failed"
FOLDER = "lifeline/"


class Lifeline:
    """Tells the others that this process lives, and listens to them; idle on a single process.

    It does not see a process that lives and is stuck, as in a file system that does not answer.
    """

    def __init__(self) -> None:
        """Starts to tell and to listen, in a thread of its own."""
        self._index = jax.process_index()
        self._name = f"process {self._index} of {jax.process_count()} on {_host()}"
        self._first = "process 0"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lifeline", daemon=True)
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
        """This process is done; if it failed, and is one of several, all of them end here."""
        if not self._thread.is_alive():
            return
        if isinstance(error, Exception) and not isinstance(error, UserError):
            # A collective may fail because another process is gone: the thread then names it.
            self._thread.join(SILENCE_SECONDS + 2 * BEAT_SECONDS)
        self._ended.set()
        self._thread.join()
        if error is None:
            self._tell(ENDED)
            return
        self._tell(FAILED, plain(" ".join(str(error).split())) or str(kind))
        if self._index == 0:
            time.sleep(2 * BEAT_SECONDS)  # the others read it from this process
        if isinstance(error, UserError):
            fail_at_once(error)
        traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # leaving politely would wait for the others

    def _watch(self) -> None:
        heard: dict[str, tuple[str, float]] = {}
        beat = 0
        with ThreadPoolExecutor(1) as calls:  # a frozen first process answers no call at all
            while not self._ended.wait(BEAT_SECONDS):
                beat += 1
                try:
                    told = calls.submit(self._exchange, str(beat)).result(SILENCE_SECONDS)
                except Exception as error:  # the store raises what its transport raises
                    if not self._ended.is_set():
                        _end(f"{self._first} cannot be reached any more ({first_line(error)})")
                    return
                self._listen(told, heard)

    def _exchange(self, beat: str) -> dict[str, str]:
        self._tell(beat)
        return dict(self._store.key_value_dir_get(FOLDER))

    def _listen(self, told: dict[str, str], heard: dict[str, tuple[str, float]]) -> None:
        now = time.monotonic()
        for key, text in told.items():
            state, name, reason = text.split("|", 2)
            if state == FAILED:
                _end(f"{name} failed: {reason}")
            if heard.get(key, ("", 0.0))[0] != text:
                heard[key] = text, now
            elif state != ENDED and now - heard[key][1] > SILENCE_SECONDS:
                _end(f"{name} has not been heard of for {SILENCE_SECONDS:.0f} s")

    def _tell(self, state: str, reason: str = "") -> None:
        text = f"{state}|{self._name}|{reason}"
        self._store.key_value_set(f"{FOLDER}{self._index}", text, allow_overwrite=True)


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
    os._exit(2)
