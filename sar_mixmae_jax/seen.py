"""Which records a model has seen: hashes of their ids, small enough to travel in every checkpoint.

So that whoever evaluates an encoder can tell how many of the test records it was pretrained on.
"""

import base64
import hashlib
from collections.abc import Iterable

import numpy as np

UNKNOWN = "?"
"""Nothing is known; before packed ids: there are others that are not."""

HASH = np.dtype(">u8")
"""Of an id: with half a million of them, two are mistaken for one once in 10^8 data sets."""


def hashes(ids: Iterable[str]) -> np.ndarray:
    """The hashes of ids, sorted, each once."""
    digests = (hashlib.blake2b(name.encode(), digest_size=HASH.itemsize).digest() for name in ids)
    return np.unique(np.frombuffer(b"".join(digests), HASH))


def pack(ids: Iterable[str]) -> str:
    """The hashes of ids as a text for JSON."""
    return base64.b64encode(hashes(ids).tobytes()).decode()


def joined(packed: str, ids: Iterable[str]) -> str:
    """The packed ids and some more."""
    both = np.union1d(_unpacked(packed), hashes(ids)).astype(HASH)
    known = base64.b64encode(both.tobytes()).decode()
    return known if is_complete(packed) else UNKNOWN + known


def is_complete(packed: str) -> bool:
    """Whether all that a model has seen is among the packed ids."""
    return not packed.startswith(UNKNOWN)


def overlap(ids: Iterable[str], packed: str) -> int:
    """How many of some ids are among the packed ones.

    Raises:
      ValueError: `packed` is not what `pack` makes.
    """
    return len(np.intersect1d(hashes(ids), _unpacked(packed), assume_unique=True))


def _unpacked(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed.removeprefix(UNKNOWN), validate=True), HASH)
