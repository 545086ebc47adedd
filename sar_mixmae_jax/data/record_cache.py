"""Records of a split as packed arrays: in memory, or mapped from files that processes share."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from filelock import FileLock, Timeout
from tqdm import tqdm

from sar_mixmae_jax.data.patch_dataset import ReadOptions, batches
from sar_mixmae_jax.data.record_source import Columns, Record, RecordSource, Source, read_rows
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_directory, create_array, format_bytes, read_json
from sar_mixmae_jax.utils.hashing import add_checksum, verify_checksum

DESCRIPTION = "cache.json"
"""File of an entry of a cache folder that is written last."""
FORMAT = 1
"""Version of the files of an entry."""
FILL_TOGETHER = 256
"""Records that are read at a time to fill a cache."""
BLOCK = 1 << 26
"""Bytes of a file that share a checksum."""

CreateArray = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]
"""(name of a field, shape, dtype) -> an array to fill."""


class PackedSource:
    """Records in arrays; see `Source`."""

    def __init__(self, columns: Columns) -> None:
        """Wrap (records, …) arrays."""
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Record:
        return {name: column[index] for name, column in self.columns.items()}

    def read_rows(self, rows: np.ndarray) -> Columns:
        """Return the fields of some records."""
        return {name: column.take(rows, 0) for name, column in self.columns.items()}


def packed_size(source: Source) -> int:
    """Return the bytes of all records in arrays, but for differences in the length of texts."""
    record = read_rows(source, np.zeros(1, int))
    return len(source) * sum(column.nbytes for column in record.values())


def available_memory() -> int | None:
    """Return the bytes that this process can still use; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        free = 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None
    group = Path("/sys/fs/cgroup")  # of a container
    try:
        statistics = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
        used = int((group / "memory.current").read_text()) - int(statistics["inactive_file"])
        return min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError, KeyError):  # "max": no limit
        return free


def pack(source: Source, options: ReadOptions, folder: Path | None = None) -> PackedSource:
    """Read all records into arrays.

    Args:
      source: the records.
      options: threads and processes that read.
      folder: folder of caches, which processes share; None: into memory.

    Raises:
      InputError: a record cannot be read, the memory is too small, or the folder cannot be used.
    """
    identity = source.identity if isinstance(source, RecordSource) else None
    if folder is not None and identity is None:
        logging.warning(
            "the records have no checksum to compare files in --config.data.cache_dir with: they "
            "are kept in memory"
        )
    if folder is None or identity is None:
        try:
            return PackedSource(_fill(source, options, lambda _, *array: np.empty(*array)))
        except MemoryError as error:
            raise InputError(
                f"{len(source)} records do not fit into memory ({first_line(error)}): set "
                "--config.data.cache=none, or --config.data.cache_dir to a folder"
            ) from error
    path = folder / _entry_name(identity)
    with _locked(path):
        if (path / DESCRIPTION).exists():  # else it is not a cache, and is left alone
            try:
                return _open(path, identity, len(source))
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                logging.warning(
                    "%s cannot be used (%s): it is filled again", path, first_line(error)
                )
        _write(path, source, identity, options)
        try:
            return _open(path, identity, len(source))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} was written and cannot be read ({first_line(error)}): check the disk, or "
                "choose another --config.data.cache_dir"
            ) from error


def _fill(source: Source, options: ReadOptions, create: CreateArray) -> Columns:
    """Read all records into new arrays; those of texts are in memory."""
    count, first = len(source), 0
    sampler = SequentialSampler(count, min(FILL_TOGETHER, count))
    columns: Columns = {}
    texts: dict[str, list[np.ndarray]] = {}
    with tqdm(total=count, desc="filling the cache", unit=" records", delay=2) as bar:
        for chunk in batches(source, sampler, 0, sampler.steps, options=options):
            rows = min(sampler.batch_size, count - first)
            for name, values in chunk.items():
                if values.dtype.kind == "S":
                    texts.setdefault(name, []).append(values[:rows])
                    continue
                if name not in columns:
                    columns[name] = create(name, (count, *values.shape[1:]), values.dtype)
                columns[name][first : first + rows] = values[:rows]
            first += rows
            bar.update(rows)
    return {name: np.concatenate(parts) for name, parts in texts.items()} | columns


# ---- files


def _entry_name(identity: dict[str, Any]) -> str:
    """Return the name of the folder of a split with some bands and fields."""
    parts = (identity["dataset"], *identity["bands"], *identity["fields"])
    return "-".join(parts).replace("/", "-")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock an entry, so that one process fills it and the others wait.

    Raises:
      InputError: the folder cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logging.info("waiting for the process that fills %s", path)
            lock.acquire()
    except NotImplementedError as error:
        logging.warning("%s cannot be locked (%s): fill it by one run at a time", path, error)
    except OSError as error:
        raise InputError(
            f"--config.data.cache_dir {path.parent} cannot be written ({first_line(error)}): "
            "choose another folder, or none to keep records in memory"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, source: Source, identity: dict[str, Any], options: ReadOptions) -> None:
    """Write an entry as a whole or not at all.

    Raises:
      InputError: the disk is full, the entry cannot be written, or a record cannot be read.
    """
    for partial in path.parent.glob(f".{path.name}.*.partial"):  # of killed processes
        shutil.rmtree(partial, ignore_errors=True)
    needed, free = packed_size(source), shutil.disk_usage(path.parent).free
    if needed > free:
        raise InputError(
            f"--config.data.cache_dir {path.parent} has {format_bytes(free)} left, and the records "
            f"take {format_bytes(needed)}: make room, or choose another folder"
        )
    files = [_file_name(field) for field in identity["fields"]]
    with atomic_directory(path, own=(*files, DESCRIPTION), sign=DESCRIPTION) as partial:

        def create(field: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            return create_array(partial / _file_name(field), shape, dtype)

        for field, column in _fill(source, options, create).items():
            if isinstance(column, np.memmap):
                column.flush()
            else:
                np.save(partial / _file_name(field), column, allow_pickle=False)
        blocks = {file: _block_checksums(partial / file) for file in files}
        content = add_checksum({**identity, "format": FORMAT, "blocks": blocks})
        (partial / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")


def _open(path: Path, identity: dict[str, Any], count: int) -> PackedSource:
    """Open an entry after verifying it.

    Raises:
      OSError: a file cannot be read.
      ValueError: the entry is of other records, or damaged.
    """
    content = verify_checksum(read_json(path / DESCRIPTION))
    for name, expected in {**identity, "format": FORMAT}.items():
        if content[name] != expected:
            raise ValueError(f"found {name} {content[name]}, expected {expected}")
    columns = {}
    for field in identity["fields"]:
        file = path / _file_name(field)
        if _block_checksums(file) != content["blocks"][file.name]:
            raise ValueError(f"{file.name} is damaged")
        columns[field] = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        if len(columns[field]) != count:
            raise ValueError(f"found {len(columns[field])} records, expected {count}")
    return PackedSource(columns)


def _file_name(field: str) -> str:
    return f"{field}.npy"


def _block_checksums(path: Path) -> list[str]:
    """Return the SHA-256 of every `BLOCK` bytes of a file; all cores compute them."""

    def digest(start: int) -> str:
        with path.open("rb") as file:
            file.seek(start)
            return sha256(file.read(BLOCK)).hexdigest()

    with ThreadPoolExecutor() as threads:
        return list(threads.map(digest, range(0, path.stat().st_size, BLOCK)))
