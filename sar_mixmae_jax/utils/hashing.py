"""Checksums of arrays and of metadata: a flipped bit on a disk must not become a wrong weight."""

import base64
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

CHECKSUM_FIELD = "sha256"
"""The field of metadata that holds the checksum of all other fields."""


def array_checksums(tree: Any) -> dict[str, str]:
    """The SHA-256 of the bytes of every array in a tree, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter's lock
        return dict(zip(names, threads.map(_digest, [leaf for _, leaf in leaves]), strict=True))


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()  # type: ignore[arg-type]


def add_checksum(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata with its own checksum beside it."""
    return {**metadata, CHECKSUM_FIELD: _metadata_checksum(metadata)}


def verify_checksum(metadata: dict[str, Any]) -> dict[str, Any]:
    """The way back from `sealed`.

    Raises:
      ValueError: the checksum is missing or not that of the rest.
    """
    rest = {name: value for name, value in metadata.items() if name != CHECKSUM_FIELD}
    if metadata.get(CHECKSUM_FIELD) != _metadata_checksum(rest):
        raise ValueError("its metadata do not have their checksum")
    return rest


def _metadata_checksum(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


INCOMPLETE = "?"
"""Nothing is known; before packed ids: there are others that are not."""

HASH = np.dtype(">u8")
"""Of an id: with half a million of them, two are mistaken for one once in 10^8 data sets."""


def hash_ids(ids: Iterable[str]) -> np.ndarray:
    """The hashes of ids, sorted, each once."""
    digests = (hashlib.blake2b(name.encode(), digest_size=HASH.itemsize).digest() for name in ids)
    return np.unique(np.frombuffer(b"".join(digests), HASH))


def pack_ids(ids: Iterable[str]) -> str:
    """The hashes of ids as a text for JSON."""
    return base64.b64encode(hash_ids(ids).tobytes()).decode()


def merge_packed_ids(packed: str, ids: Iterable[str]) -> str:
    """The packed ids and some more."""
    both = np.union1d(_unpack_ids(packed), hash_ids(ids)).astype(HASH)
    known = base64.b64encode(both.tobytes()).decode()
    return known if is_complete(packed) else INCOMPLETE + known


def is_complete(packed: str) -> bool:
    """Whether all that a model has seen is among the packed ids."""
    return not packed.startswith(INCOMPLETE)


def count_overlap(ids: Iterable[str], packed: str) -> int:
    """How many of some ids are among the packed ones.

    Raises:
      ValueError: `packed` is not what `pack` makes.
    """
    return len(np.intersect1d(hash_ids(ids), _unpack_ids(packed), assume_unique=True))


def _unpack_ids(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed.removeprefix(INCOMPLETE), validate=True), HASH)
