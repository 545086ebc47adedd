"""Checksums of metadata against damage on disk, and hashes of training ids."""

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

CHECKSUM_FIELD = "sha256"
"""Field of metadata that holds the checksum of all other fields."""


def add_checksum(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with their checksum."""
    return {**metadata, CHECKSUM_FIELD: _metadata_checksum(metadata)}


def verify_checksum(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata without their checksum, after verifying it.

    Raises:
      ValueError: the checksum is missing or not that of the rest, or these are no metadata.
    """
    if not isinstance(metadata, dict):
        raise ValueError(f"found metadata of type {type(metadata).__name__}, expected an object")
    rest = {name: value for name, value in metadata.items() if name != CHECKSUM_FIELD}
    if metadata.get(CHECKSUM_FIELD) != _metadata_checksum(rest):
        raise ValueError("its metadata do not have their checksum")
    return rest


def _metadata_checksum(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


INCOMPLETE = "?"
"""Mark of an incomplete list of ids: alone, none is known; as a prefix, some are missing."""

HASH = np.dtype(">u8")
"""Type of the hash of an id; among half a million, two are equal with a probability of 1e-8."""


def hash_ids(ids: Iterable[str]) -> np.ndarray:
    """Return the hashes of ids, sorted, without duplicates."""
    digests = (hashlib.blake2b(name.encode(), digest_size=HASH.itemsize).digest() for name in ids)
    return np.unique(np.frombuffer(b"".join(digests), HASH))


def pack_ids(ids: Iterable[str]) -> str:
    """Return the hashes of ids as a string for JSON."""
    return base64.b64encode(hash_ids(ids).tobytes()).decode()


def merge_packed_ids(packed: str, ids: Iterable[str]) -> str:
    """Return packed ids with further ids."""
    both = np.union1d(_unpack_ids(packed), hash_ids(ids)).astype(HASH)
    known = base64.b64encode(both.tobytes()).decode()
    return known if is_complete(packed) else INCOMPLETE + known


def is_complete(packed: str) -> bool:
    """Return True if the packed ids are all that a model was trained on."""
    return not packed.startswith(INCOMPLETE)


def count_overlap(ids: Iterable[str], packed: str) -> int:
    """Return the number of ids that are among the packed ones.

    Raises:
      ValueError: `packed` is not a result of `pack_ids`.
    """
    return len(np.intersect1d(hash_ids(ids), _unpack_ids(packed), assume_unique=True))


def _unpack_ids(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed.removeprefix(INCOMPLETE), validate=True), HASH)
