"""Records of every batch of a run, as a function of the step alone.

The position in the data is the step, for any number of devices or processes.
"""

import dataclasses
from functools import cached_property
from typing import Protocol

import grain
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
      seed: of the permutations.
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
        first = epoch * self.records + offset + part * rows
        return np.array([self._shuffled[row] for row in range(first, first + rows)])

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

    @cached_property
    def _shuffled(self) -> grain.MapDataset:
        """Permutations of the records, one after the other, without end."""
        return grain.MapDataset.range(self.records).seed(self.seed).shuffle()
