"""Records of every batch of a run, as a function of the step alone.

The position in the data is the step, for any number of devices or processes.
"""

import dataclasses
from functools import lru_cache
from typing import Protocol

import numpy as np

from sar_mixmae_jax.utils.errors import InputError


class Sampler(Protocol):
    """Records of the batches of a run."""

    def batch(self, step: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """Return the records of the batch after `step` steps, or a part: (batch_size / parts,)."""
        ...


@dataclasses.dataclass(frozen=True)
class SequentialSampler:
    """All records once, in their order; the last batch is filled with the last record.

    Attributes:
      records: how many there are.
      batch_size: records in a batch, of all devices together.
    """

    records: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Number of batches."""
        return -(-self.records // self.batch_size)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """See `Sampler`."""
        rows = self.batch_size // parts
        first = step * self.batch_size + part * rows
        return np.minimum(np.arange(first, first + rows), self.records - 1)


@dataclasses.dataclass(frozen=True)
class ShuffleSampler:
    """Shuffled records, from a step on.

    Every epoch is a new permutation and drops what does not fill a batch. A run whose batch size
    changes continues with the next record of the current epoch, described by `step`, `epoch` and
    `offset`, which are 0 otherwise.

    Attributes:
      records: how many there are.
      batch_size: records in a batch, of all devices together.
      seed: random seed of the permutations.
      step: steps done when this order begins.
      epoch: epochs completed by then.
      offset: records of the current epoch used by then.

    Raises:
      InputError: there are fewer records than a batch.
    """

    records: int
    batch_size: int
    seed: int
    step: int = 0
    epoch: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        if self.records < self.batch_size:
            raise InputError(
                f"found {self.records} records, expected at least a batch of {self.batch_size}: "
                f"set --config.batch_size to at most {self.records}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a whole epoch."""
        return self.records // self.batch_size

    @property
    def start(self) -> float:
        """Epochs done when this order begins: an epoch is done with its last full batch."""
        return self.epoch + 1 - self._left / self.steps_per_epoch

    def progress(self, step: int) -> float:
        """Return the epochs done after a step."""
        return self.start + (step - self.step) / self.steps_per_epoch

    def steps(self, epochs: float) -> int:
        """Return the step at which a number of epochs is done, at least 1."""
        return max(1, self.step + round((epochs - self.start) * self.steps_per_epoch))

    def place(self, step: int) -> tuple[int, int]:
        """Return (epoch, records of it used) where the batch after `step` steps begins."""
        done = step - self.step
        if done < self._left:
            return self.epoch, self.offset + done * self.batch_size
        epochs, steps = divmod(done - self._left, self.steps_per_epoch)
        return self.epoch + 1 + epochs, steps * self.batch_size

    def batch(self, step: int, part: int = 0, parts: int = 1) -> np.ndarray:
        """Return the records of the batch after `step` steps, or a part: (batch_size / parts,)."""
        epoch, offset = self.place(step)
        rows = self.batch_size // parts
        first = offset + part * rows
        return permutation(self.records, self.seed, epoch)[first : first + rows].copy()

    def go_on(self, step: int, batch_size: int) -> "ShuffleSampler":
        """Return the order after `step` steps with another batch size; itself for the same size."""
        if batch_size == self.batch_size:
            return self
        epoch, offset = self.place(step)
        return dataclasses.replace(
            self, batch_size=batch_size, step=step, epoch=epoch, offset=offset
        )

    @property
    def _left(self) -> int:
        """Steps left in the current epoch when this order begins."""
        return (self.records - self.offset) // self.batch_size


CACHED_EPOCHS = 2
"""Permutations kept in memory."""
ROUNDS = 4
MIN_BLOCK_BITS = 16


@lru_cache(maxsize=CACHED_EPOCHS)
def permutation(records: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of all records in an epoch, (records,) int64, the same on every machine.

    The order is that of `grain.MapDataset.range(records).seed(seed).shuffle()`, for all records at
    once: the index is encrypted by the block cipher Simon (Beaulieu et al. 2013) with four rounds,
    again until the result is an index too.

    Args:
      records: number of records.
      seed: random seed of the run.
      epoch: epochs completed before.
    """
    if records == 1:
        return np.zeros(1, np.int64)
    run_seed = int(np.random.SeedSequence((seed, 1)).generate_state(1, np.uint32)[0])
    keys = _seed_seq((run_seed + epoch) % 2**32, ROUNDS)
    bits = int(np.ceil(np.log2(records - 1)))
    bits = max(bits + bits % 2, MIN_BLOCK_BITS)
    if 4 * records < 1 << bits:  # most results are no index: repeat the cipher by its table
        following = _encrypt(np.arange(1 << bits), keys, bits)
        while (following[:records] >= records).any():
            following = np.where(following < records, following, following[following])
        return following[:records]
    order = _encrypt(np.arange(records), keys, bits)
    outside = np.flatnonzero(order >= records)
    while len(outside):
        order[outside] = _encrypt(order[outside], keys, bits)
        outside = outside[order[outside] >= records]
    return order


def _encrypt(values: np.ndarray, keys: list[int], bits: int) -> np.ndarray:
    """Encrypt blocks of an even number of bits, int64, with the rounds of Simon."""
    width = bits // 2
    mask = (1 << width) - 1

    def rotate(word: np.ndarray, by: int) -> np.ndarray:
        return (word << by | word >> (width - by)) & mask

    left, right = values >> width & mask, values & mask
    for key in keys:
        left = left ^ (rotate(right, 1) & rotate(right, 8)) ^ rotate(right, 2) ^ (key & mask)
        left, right = right, left
    return left << width | right


def _seed_seq(seed: int, count: int) -> list[int]:
    """Return 32-bit numbers from a seed, by the algorithm of `std::seed_seq` in C++, for 4 to 6."""
    words, full = [0x8B8B8B8B] * count, 2**32
    shift = (count - 1) // 2
    near, far = (count - shift) // 2, (count - shift) // 2 + shift
    for k in range(2 * count):
        first, middle, last = (words[(k + step) % count] for step in (0, near, -1))
        if k < count:
            mixed = first ^ middle ^ last
            added = 1664525 * (mixed ^ mixed >> 27) % full
            final = (added + (1 if k == 0 else k + (seed if k == 1 else 0))) % full
            words[(k + near) % count] = (middle + added) % full
            words[(k + far) % count] = (words[(k + far) % count] + final) % full
        else:
            mixed = (first + middle + last) % full
            added = 1566083941 * (mixed ^ mixed >> 27) % full
            final = (added - k % count) % full
            words[(k + near) % count] = middle ^ added
            words[(k + far) % count] ^= final
        words[k % count] = final
    return words
