"""Lease of a folder in a bucket: one run at a time, also where a process was killed.

An object names the owner and is rewritten every `BEAT_SECONDS`, each time on the condition that it
still has the version of the last time. A process that finds it waits for a change: one is a sign of
life, and none in `EXPIRY_SECONDS` means that the owner is gone. No clocks are compared.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from absl import logging

from sar_mixmae_jax.utils import object_store
from sar_mixmae_jax.utils.errors import InputError, StorageError

LEASE = "lease.json"
"""Object in the folder."""
BEAT_SECONDS = 15.0
EXPIRY_SECONDS = 60.0
POLL_SECONDS = 5.0
RELEASE_SECONDS = 5.0
"""Time for releasing a lease in a store that failed; it expires otherwise."""


class Lease:
    """Lease that this process holds; see `hold_lease`."""

    def __init__(self, url: str) -> None:
        """Describe the owner.

        Args:
          url: address of the folder.
        """
        self._url = f"{url}/{LEASE}"
        self._owner = {
            "owner": f"process {os.getpid()} on {platform.node()}",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "process": os.getpid(),
            "process_start": process_start(os.getpid()),
            "machine": machine(),
            "nonce": secrets.token_hex(8),
        }
        self._version: str | None = None
        self._beats, self._renewed, self._taken_by = 0, 0.0, ""
        self._is_released = False
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Take the lease, after waiting for one whose owner may be gone to expire.

        Raises:
          InputError: another process holds it.
        """
        found = object_store.read_version(self._url)
        if found and not _content(found).get("released"):
            found = self._wait(found)
        try:
            self._write(found[1] if found else None)
        except FileExistsError as error:
            raise self._refusal(object_store.read_version(self._url)) from error

    def _wait(self, found: tuple[bytes, str]) -> tuple[bytes, str] | None:
        """Return the object as it is once no process holds it."""
        owner = _content(found)
        if owner.get("machine") and owner.get("machine") == machine():
            started = process_start(owner.get("process"))
            if started is not None and started == owner.get("process_start"):
                raise self._refusal(found)
        else:
            print(
                f"{self._url} is held by {owner.get('owner')}: waiting up to {EXPIRY_SECONDS:.0f} "
                "s for a sign of life",
                flush=True,
            )
            end = time.monotonic() + EXPIRY_SECONDS
            while time.monotonic() < end:
                time.sleep(POLL_SECONDS)
                now = object_store.read_version(self._url)
                if now is None or _content(now).get("released"):
                    return now
                if now[1] != found[1]:
                    raise self._refusal(now)
        logging.warning("%s: %s has ended without releasing it", self._url, owner.get("owner"))
        return found

    def _refusal(self, found: tuple[bytes, str] | None) -> InputError:
        owner = _content(found) if found else {}
        return InputError(
            f"{self._url.removesuffix(f'/{LEASE}')} is in use by "
            f"{owner.get('owner', 'another process')} since {owner.get('started', 'just now')}: "
            "wait for it to end, or choose another folder"
        )

    def _write(self, version: str | None, *, released: bool = False) -> None:
        start = time.monotonic()
        self._beats += 1
        content = {**self._owner, "beat": self._beats, "released": released}
        self._version = object_store.write_if(self._url, json.dumps(content).encode(), version)
        self._renewed = start

    def renew(self) -> None:
        """Show a sign of life, unless the lease is lost."""
        with self._lock:
            if self._taken_by or self._is_released:
                return
            try:
                self._write(self._version)
            except FileExistsError:
                found = object_store.read_version(self._url)
                owner = _content(found) if found else {}
                self._taken_by = str(owner.get("owner", "somebody who removed it"))

    def check(self) -> None:
        """Check that this process still holds the lease.

        Raises:
          StorageError: it expired and was taken over, or cannot be renewed.
        """
        if time.monotonic() - self._renewed > EXPIRY_SECONDS:
            self.renew()
        if self._taken_by:
            raise StorageError(
                f"{self._url} was not renewed for {EXPIRY_SECONDS:.0f} s and was taken over by "
                f"{self._taken_by}: this run ends, and nothing more of it is saved"
            )

    def release(self) -> None:
        """Let the next process have the lease at once."""
        with self._lock, suppress(FileExistsError):
            self._is_released = True
            if not self._taken_by:
                self._write(self._version, released=True)


@contextmanager
def hold_lease(url: str) -> Iterator[Lease]:
    """Hold the lease of a folder; a thread renews it.

    Raises:
      InputError: another process holds it.
      StorageError: the bucket cannot be used.
    """
    lease, ended = Lease(url), threading.Event()
    lease.acquire()

    def renew() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                lease.renew()
            except StorageError as error:
                logging.warning("the lease was not renewed: %s", error)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    patience = None
    try:
        yield lease
    except StorageError:  # trying to reach the store would take minutes again
        patience = RELEASE_SECONDS
        raise
    finally:
        ended.set()
        release = threading.Thread(target=_release, args=(lease,), name="release", daemon=True)
        release.start()
        release.join(patience)


def _release(lease: Lease) -> None:
    try:
        lease.release()
    except StorageError as error:
        logging.warning("the lease was not released and expires: %s", error)


def machine() -> str | None:
    """Return an identifier of the running system in which process ids are unique, if it has one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def process_start(process: Any) -> str | None:
    """Return when a process of this machine started, in its own units; None if there is none."""
    try:
        status = Path(f"/proc/{int(process)}/stat").read_text()
    except (OSError, ValueError, TypeError):
        return None
    return status.rpartition(")")[2].split()[19]


def _content(found: tuple[bytes, str]) -> dict[str, Any]:
    try:
        content = json.loads(found[0])
        return content if isinstance(content, dict) else {}
    except ValueError:
        return {}
