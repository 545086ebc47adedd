"""Local mirror of a folder in a bucket: every command works in it, and publishes what it wrote.

The bucket alone counts: a mirror belongs to one process, begins with what is stored, and is removed
at the end. Arrays of checkpoints are fetched when they are read. A checkpoint in the bucket is
complete when its metadata exist, which are written last and removed first.
"""

import atexit
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from absl import logging
from filelock import FileLock, Timeout

from sar_mixmae_jax.utils import object_store
from sar_mixmae_jax.utils.errors import SHOWN_AS, InputError, StorageError, first_line
from sar_mixmae_jax.utils.lease import LEASE, Lease, hold_lease
from sar_mixmae_jax.utils.object_store import StoredObject

CACHE_VARIABLE, DEFAULT_CACHE = "SAR_MIXMAE_BUCKET_CACHE", "~/.cache/sar_mixmae_jax/buckets"
"""Environment variable with the folder of mirrors and cached datasets, and its default."""
CHECKPOINTS = "checkpoints"
COMPLETE = "metadata/metadata"
"""Object of a checkpoint that is written last."""
ARRAYS = "state"
"""Folder of a checkpoint that is fetched when it is read."""
UNREAD = frozenset({"tensorboard", LEASE, "lock", ARRAYS})
"""Names in a run that no command reads, or not at once."""
UNSHARED = frozenset({LEASE, "lock"})

Stamp = tuple[int, int]
"""Time of the last change and size of a file."""


def cache_folder() -> Path:
    """Return the folder for mirrors and cached datasets."""
    return Path(os.environ.get(CACHE_VARIABLE, DEFAULT_CACHE)).expanduser().absolute()


def open_mirror(url: str, mirrors: list[Any]) -> Path:
    """Return the local counterpart of an address: a run, a folder, or a checkpoint of a run.

    Args:
      url: the address.
      mirrors: mirrors of this process; a new one is added.

    Raises:
      StorageError: the bucket cannot be used.
      InputError: the address or the cache folder cannot be used.
    """
    scheme, _, rest = url.partition("://")
    parts = PurePosixPath(rest).parts
    below = Path()
    if parts[-2:-1] == (CHECKPOINTS,) and parts[-1].isdecimal():
        parts, below = parts[:-2], Path(*parts[-2:])
    if not scheme or len(parts) < 2 or ".." in parts:  # all of a bucket is no run
        raise InputError(f"{url[:100]}: expected a bucket and a folder, as gs://BUCKET/FOLDER")
    url = f"{scheme}://{'/'.join(parts)}"
    for mirror in mirrors:
        if url == mirror.url or url.startswith(f"{mirror.url}/"):
            return mirror.folder / url[len(mirror.url) :].strip("/") / below
    mirror = Mirror(url, _new_folder())
    mirror.refresh()
    mirrors.append(mirror)
    SHOWN_AS[str(mirror.folder)] = url
    return mirror.folder / below


def _new_folder() -> Path:
    """Create a folder that is removed when this process ends, or by a later one if it is killed."""
    runs = cache_folder() / "runs"
    try:
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for lock_path in runs.glob("*.lock"):
            try:
                with FileLock(lock_path).acquire(blocking=False):
                    shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
                    lock_path.unlink(missing_ok=True)
            except Timeout:
                continue
        folder = runs / f"{os.getpid()}-{secrets.token_hex(4)}"
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire()
        folder.mkdir()
    except OSError as error:
        raise InputError(
            f"{runs} cannot be written ({first_line(error)}): set {CACHE_VARIABLE} to a folder"
        ) from error

    def clean() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

    atexit.register(clean)
    return folder


class Mirror:
    """Mirror of a folder in a bucket; see `files.Mirror`."""

    def __init__(self, url: str, folder: Path) -> None:
        """Begin with nothing; see `refresh`.

        Args:
          url: address of the folder in the bucket.
          folder: an empty local one.
        """
        self.url, self.folder = url, folder
        self._versions: dict[str, str] = {}
        self._published: dict[str, Stamp] = {}
        self._checkpoints: set[str] = set()
        self._unfinished: set[str] = set()
        self._lock = threading.RLock()
        self._uploads = ThreadPoolExecutor(1, "upload")
        self._lease: Lease | None = None

    def refresh(self) -> None:
        """Fetch what is new in the bucket, but for arrays of checkpoints and TensorBoard logs."""
        object_store.check_bucket(self.url)
        stored = object_store.list_objects(self.url)
        ends = f"/{COMPLETE}"
        complete = {name.removesuffix(ends) for name in stored if name.endswith(ends)}
        self._checkpoints = {name for name in complete if _is_checkpoint(name)}
        parents = {name: _checkpoint_of(name) for name in stored}
        self._unfinished = {
            name for name, parent in parents.items() if parent and parent not in complete
        }
        wanted = {
            name: found
            for name, found in stored.items()
            if name not in self._unfinished
            and UNREAD.isdisjoint(name.split("/"))
            and self._versions.get(name) != found.version
        }
        self._get(wanted)
        for name in [name for name in self._versions if name not in stored]:
            (self.folder / name).unlink(missing_ok=True)
            del self._versions[name]
        for folder in (self.folder / name for name in _checkpoints_below(self.folder)):
            if folder.relative_to(self.folder).as_posix() not in self._checkpoints:
                shutil.rmtree(folder)

    def _get(self, objects: dict[str, StoredObject]) -> None:
        object_store.download(self.url, self.folder, objects)
        self._versions |= {name: found.version for name, found in objects.items()}
        self._published |= {name: _stamp(self.folder / name) for name in objects}

    def fetch(self, path: Path) -> None:
        """Fetch all of a checkpoint, or of another folder.

        Raises:
          StorageError: it cannot be read.
        """
        name = path.relative_to(self.folder).as_posix()
        stored = object_store.list_objects(f"{self.url}/{name}")
        objects = {f"{name}/{below}": found for below, found in stored.items()}
        missing = {
            below: found
            for below, found in objects.items()
            if self._versions.get(below) != found.version and below not in self._published
        }
        self._get(missing)

    def shown(self, path: Path) -> str:
        """Return the address of a path in the mirror."""
        below = path.relative_to(self.folder).as_posix()
        return self.url if below == "." else f"{self.url}/{below}"

    # ---- to the bucket

    def publish(self) -> None:
        """Write the files that have changed since the last time to the bucket, results last.

        Files that were removed from the mirror stay in the bucket.

        Raises:
          StorageError: they cannot be written, or another process has taken the run over.
        """
        with self._lock:
            self._check_lease()
            names = _files(self.folder)
            for is_result in (False, True):
                object_store.in_parallel(
                    self._publish_file,
                    [name for name in names if name.endswith(".json") == is_result],
                )

    def _publish_file(self, name: str) -> None:
        path = self.folder / name
        try:
            stamp = _stamp(path)  # first: what is added while it is read is written next time
            if self._published.get(name) == stamp:
                return
            content = path.read_bytes()
        except FileNotFoundError:  # removed meanwhile
            return
        object_store.write(f"{self.url}/{name}", content)
        self._published[name] = stamp

    def publish_checkpoint(self, path: Path) -> Future[None]:
        """Start to write a finished checkpoint to the bucket, after the log up to its step.

        Checkpoints that are no longer in the mirror are removed from the bucket afterwards.

        Args:
          path: its folder, which does not change any more.
        """
        return self._uploads.submit(self._publish_checkpoint, path)

    def _publish_checkpoint(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        url = f"{self.url}/{name}"
        files = {file.relative_to(path).as_posix(): file for file in _all_files(path)}
        self.publish()
        if name in self._checkpoints:
            self._remove(name)
        object_store.upload(path, url, [file for file in files if file != COMPLETE])
        stored = object_store.list_objects(url)
        for file, local in files.items():
            size = stored[file].size if file in stored else None
            if file != COMPLETE and size != local.stat().st_size:
                raise StorageError(f"{url}/{file} was not stored as a whole: start again")
        self._check_lease()
        object_store.upload(path, url, [COMPLETE])
        self._checkpoints.add(name)
        self._published |= {f"{name}/{file}": _stamp(local) for file, local in files.items()}
        for old in sorted(self._checkpoints):
            if not (self.folder / old).is_dir():
                self._remove(old)

    def _remove(self, name: str) -> None:
        """Remove a checkpoint from the bucket; while that lasts, it is incomplete."""
        url = f"{self.url}/{name}"
        object_store.remove(url, [COMPLETE])
        object_store.remove(url, object_store.list_objects(url))
        self._checkpoints.discard(name)

    def _check_lease(self) -> None:
        if self._lease:
            self._lease.check()

    @contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        """Keep other runs out of the folder, and publish what is written.

        Args:
          seconds: between two publications; checkpoints are published when they are finished.

        Raises:
          InputError: another process holds it.
          StorageError: the bucket cannot be used.
        """
        if self._lease:  # a run of a comparison
            yield
            return
        ended = threading.Event()
        with hold_lease(self.url) as self._lease:
            try:
                self.refresh()
                object_store.remove(self.url, self._unfinished)
                thread = threading.Thread(target=self._run, args=(ended, seconds), daemon=True)
                thread.start()
                try:
                    yield
                except StorageError:  # to publish more would fail after minutes, too
                    raise
                except BaseException:
                    ended.set()
                    try:
                        self.publish()
                    except StorageError as error:
                        logging.warning("the last part of the log is lost: %s", error)
                    raise
                ended.set()
                thread.join()
                self.publish()
            finally:
                ended.set()
                self._lease = None

    def _run(self, ended: threading.Event, seconds: float) -> None:
        while not ended.wait(seconds):
            try:
                self.publish()
            except StorageError as error:
                logging.warning("the log is not published yet: %s", error)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _is_checkpoint(name: str) -> bool:
    parts = name.split("/")
    return len(parts) > 1 and parts[-2] == CHECKPOINTS and parts[-1].isdecimal()


def _checkpoint_of(name: str) -> str | None:
    """Return the checkpoint that an object is part of, or None."""
    parts = name.split("/")
    ends = (end for end in range(2, len(parts)) if _is_checkpoint("/".join(parts[:end])))
    return next(("/".join(parts[:end]) for end in ends), None)


def _all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _walk(folder: Path, enter: Callable[[Path], bool]) -> Iterator[Path]:
    with suppress(FileNotFoundError):  # removed meanwhile
        for path in folder.iterdir():
            if not path.is_dir():
                yield path
            elif enter(path):
                yield from _walk(path, enter)


def _files(folder: Path) -> list[str]:
    """Return the files that are published one by one: all but checkpoints and temporary files."""
    paths = _walk(folder, lambda path: path.name != CHECKPOINTS and path.name[0] != ".")
    return [
        path.relative_to(folder).as_posix()
        for path in paths
        if path.name not in UNSHARED and path.name[0] != "."
    ]


def _checkpoints_below(folder: Path) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob(f"{CHECKPOINTS}/*")
        if path.name.isdecimal()
    ]
