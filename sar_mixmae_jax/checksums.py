"""Checksums of arrays and of metadata: a flipped bit on a disk must not become a wrong weight."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

SEAL = "sha256"
"""The field of metadata that holds the checksum of all other fields."""


def of_arrays(tree: Any) -> dict[str, str]:
    """The SHA-256 of the bytes of every array in a tree, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter's lock
        return dict(zip(names, threads.map(_digest, [leaf for _, leaf in leaves]), strict=True))


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()  # type: ignore[arg-type]


def sealed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata with its own checksum beside it."""
    return {**metadata, SEAL: _seal(metadata)}


def opened(metadata: dict[str, Any]) -> dict[str, Any]:
    """The way back from `sealed`.

    Raises:
      ValueError: the checksum is missing or not that of the rest.
    """
    rest = {name: value for name, value in metadata.items() if name != SEAL}
    if metadata.get(SEAL) != _seal(rest):
        raise ValueError("its metadata do not have their checksum")
    return rest


def _seal(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
