"""Zeros that mean nodata: those that connect to the edge of a frame, in all bands.

The frame may lie askew in its file: other nodata between it and the edge of the file connects, too.
Other zeros are measurements. In dB 0 is a bright scatterer; in linear power it is dark water after
the noise was subtracted.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from scipy.ndimage import label


class Strips:
    """A boolean (rows, columns) mask as strips of rows, in an eighth of its size of memory."""

    def __init__(self, strips: Iterable[np.ndarray] = ()) -> None:
        """Holds some strips, from top to bottom."""
        self._packed: list[np.ndarray] = []
        self._columns: list[int] = []
        for strip in strips:
            self.append(strip)

    def append(self, strip: np.ndarray) -> None:
        """Adds a strip below the others."""
        self._packed.append(np.packbits(strip, axis=1))
        self._columns.append(strip.shape[1])

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, number: int) -> np.ndarray:
        count = self._columns[number]
        return np.unpackbits(self._packed[number], axis=1, count=count).astype(bool)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __setitem__(self, number: int, strip: np.ndarray) -> None:
        self._packed[number] = np.packbits(strip, axis=1)


def zero_or_nodata(values: np.ndarray) -> np.ndarray:
    """The pixels of a (rows, columns, band) image of which all bands are 0 or NaN."""
    return ((values == 0) | np.isnan(values)).all(-1)


def zero_border(zero: np.ndarray) -> np.ndarray:
    """The pixels of a (rows, columns) mask that connect to its edge through the mask."""
    return zero_border_of_strips(Strips([zero]))[0]


def zero_border_of_strips(zero: Strips) -> Strips:
    """The same for a mask that is too large to be looked at in one piece.

    What touches the edge is followed downwards and upwards from strip to strip until nothing is
    found any more.
    """
    found = Strips(np.zeros_like(strip) for strip in zero)
    order = [number for number in range(len(zero)) if zero[number].any()]
    sizes = dict.fromkeys(order, 0)
    grown = True
    while grown:
        grown = False
        for number in [*order, *reversed(order)]:
            seed = found[number]
            seed[:, [0, -1]] = True
            seed[0] |= _beside(found[number - 1][-1]) if number > 0 else True
            seed[-1] |= _beside(found[number + 1][0]) if number < len(zero) - 1 else True
            reached = _fill(zero[number], seed)
            if reached.sum() > sizes[number]:
                grown, sizes[number], found[number] = True, reached.sum(), reached
    return found


def _beside(row: np.ndarray) -> np.ndarray:
    """A row and its neighbours on both sides: what it touches in the next one."""
    wide = np.pad(row, 1)
    return wide[:-2] | row | wide[2:]


def _fill(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The regions of a mask that hold a seed; corners connect."""
    regions, count = label(mask, structure=np.ones((3, 3)))
    keep = np.zeros(count + 1, bool)
    keep[regions[seed]] = True
    keep[0] = False
    return keep[regions]
