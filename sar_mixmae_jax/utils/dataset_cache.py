"""Datasets of buckets in a local cache folder, shared by the processes of a machine.

A dataset in a bucket exists once its `dataset_info.json` does, which is published last. Its records
are fetched when a split is opened, and compared with the checksums in its metadata at every
opening. Where the cache is full, datasets that no process uses are removed, the oldest first.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from absl import logging
from filelock import FileLock, Timeout
from tqdm import tqdm

from sar_mixmae_jax.utils import object_store
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import format_bytes, report_write_errors
from sar_mixmae_jax.utils.mirror import CACHE_VARIABLE, cache_folder
from sar_mixmae_jax.utils.object_store import StoredObject

LIMIT_VARIABLE, DEFAULT_LIMIT = "SAR_MIXMAE_BUCKET_CACHE_GB", 500.0
"""Environment variable with the size of all cached records in GB, and its default."""
INFO = "dataset_info.json"
"""Object of a dataset that is published last."""
RECORDS = ".array_record"
"""Part of the names of files of records."""
USED = ".used"
"""File of a cached dataset with the time at which it was last opened."""
TRIES = 2
"""Times that a file is fetched before it is taken to be wrong in the bucket."""
_USED: dict[Path, FileLock] = {}
"""Locks on the datasets that this process uses."""


def local_data_dir(data_dir: str) -> Path:
    """Return the cache folder of a data folder in a bucket."""
    scheme, _, rest = data_dir.partition("://")
    return cache_folder() / "data" / scheme / rest.strip("/")


def fetch_description(name: str, data_dir: str) -> Path:
    """Fetch all files of the versions of a dataset but its records.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: address of the folder of datasets.

    Returns:
      The local folder of datasets.

    Raises:
      StorageError: the bucket cannot be used.
    """
    root, name = local_data_dir(data_dir), name.partition(":")[0]
    url = f"{data_dir.rstrip('/')}/{name}"
    object_store.check_bucket(data_dir)
    stored = object_store.list_objects(url)
    complete = {path.rpartition("/")[0] for path in stored if path.endswith(f"/{INFO}")}
    with _locked(root, name):
        for info in list((root / name).rglob(INFO)):
            if info.parent.relative_to(root / name).as_posix() not in complete:
                shutil.rmtree(info.parent)
        wanted = {
            path: found
            for path, found in stored.items()
            if (path.rpartition("/")[0] in complete or path.startswith(".config/"))
            and RECORDS not in path
            and not _is_valid(root / name / path, None, found)
        }
        object_store.download(url, root / name, wanted)
    return root


def fetch_records(
    data_dir: str, folder: Path, names: Iterable[str], checksums: Mapping[str, str]
) -> None:
    """Fetch files of records that are missing or damaged; an interrupted fetch goes on.

    Args:
      data_dir: address of the folder of datasets.
      folder: folder of the dataset, below `local_data_dir`.
      names: names of the files.
      checksums: SHA-256 of the files by name; those of the store are used for others.

    Raises:
      InputError: they do not fit into the cache, or are not those of the metadata.
      StorageError: the bucket cannot be used.
    """
    root = local_data_dir(data_dir)
    below = folder.relative_to(root).as_posix()
    url, names = f"{data_dir.rstrip('/')}/{below}", list(names)
    with _locked(root, below):
        _note_use(folder)
        stored = object_store.list_objects(url)
        gone = [name for name in names if name not in stored]
        if gone:
            raise InputError(
                f"{url} lacks {len(gone)} files of records, such as {gone[0]}: publish it again"
            )
        wrong = _invalid(folder, names, checksums, stored)
        for _ in range(TRIES):
            if not wrong:
                return
            for name in wrong:
                (folder / name).unlink(missing_ok=True)
            wanted = {name: stored[name] for name in wrong}
            size = sum(found.size for found in wanted.values())
            _make_room(size)
            with tqdm(
                total=size, desc=f"fetching {below}", unit="B", unit_scale=True, delay=2
            ) as bar:
                object_store.download(url, folder, wanted, bar.update)
            wrong = _invalid(folder, wrong, checksums, stored)
    if wrong:
        raise InputError(
            f"{url}/{wrong[0]} does not have the checksum in the dataset's metadata: publish the "
            "dataset again"
        )


def _invalid(
    folder: Path,
    names: list[str],
    checksums: Mapping[str, str],
    stored: Mapping[str, StoredObject],
) -> list[str]:
    """Return the files that are missing or damaged; all cores compute checksums."""
    with ThreadPoolExecutor() as threads:
        valid = threads.map(
            lambda name: _is_valid(folder / name, checksums.get(name), stored[name]), names
        )
        return [name for name, is_valid in zip(names, valid, strict=True) if not is_valid]


def _is_valid(path: Path, sha256: str | None, stored: StoredObject) -> bool:
    """Return True for a file with a checksum, else that of the store, else its size.

    A small file without any checksum is never valid, so that it is fetched again.
    """
    if not path.is_file() or path.stat().st_size != stored.size:
        return False
    if not sha256 and not stored.md5:
        return RECORDS in path.name
    with path.open("rb") as file:
        kind = "sha256" if sha256 else "md5"
        return hashlib.file_digest(file, kind).hexdigest() == (sha256 or stored.md5)


@contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    """Lock a dataset in the cache, so that one process fetches it and the others wait.

    Raises:
      InputError: the cache cannot be written.
    """
    lock = FileLock(root / f".{name.partition('/')[0]}.lock")
    advice = f"remove what is in the way, or set {CACHE_VARIABLE} to another folder"
    with report_write_errors(root, advice):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logging.info("waiting for the process that fetches %s", name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _note_use(folder: Path) -> None:
    """Keep a dataset in the cache until this process ends."""
    (folder / USED).touch()
    if folder not in _USED:
        _USED[folder] = FileLock(folder / f".{os.getpid()}-{secrets.token_hex(4)}.use")
        _USED[folder].acquire()


def _is_used(folder: Path) -> bool:
    for path in folder.glob(".*.use"):
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        path.unlink(missing_ok=True)
        lock.release()
    return False


def _make_room(needed: int) -> None:
    """Remove datasets from the cache until a number of bytes fits.

    Raises:
      InputError: it does not fit.
    """
    root = cache_folder() / "data"
    limit = 1e9 * _limit_in_gb()
    folders = sorted(
        (path.parent for path in root.rglob(USED)),
        key=lambda folder: (folder / USED).stat().st_mtime,
    )
    sizes = {
        folder: sum(path.stat().st_size for path in folder.glob(f"*{RECORDS}*"))
        for folder in folders
    }
    for folder in folders:
        if sum(sizes.values()) + needed <= limit and needed <= shutil.disk_usage(root).free:
            return
        if not _is_used(folder):
            logging.warning("removed %s from the cache of datasets", folder.relative_to(root))
            shutil.rmtree(folder)
            del sizes[folder]
    free = min(limit - sum(sizes.values()), shutil.disk_usage(root).free)
    if needed > free:
        raise InputError(
            f"{root} has room for {format_bytes(max(free, 0))}, and {format_bytes(needed)} of "
            f"records are read: raise {LIMIT_VARIABLE}, or set {CACHE_VARIABLE} to a larger disk"
        )


def _limit_in_gb() -> float:
    text = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT))
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{LIMIT_VARIABLE} is {text!r}: expected a number of GB") from error
