"""Connected regions of zeros that mean nodata, in masks of any size held as strips of rows.

Memory: a strip of pixels at a time, one byte per region of a strip, and the masks at one bit per
pixel, compressed.
"""

import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from scipy.ndimage import label, maximum_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Strips:
    """A boolean (rows, columns) mask as strips of rows, one bit per pixel, compressed."""

    def __init__(self, strips: Iterable[np.ndarray] = ()) -> None:
        """Pack strips, given from top to bottom."""
        self._packed: list[bytes] = []
        self._shapes: list[tuple[int, int]] = []
        for strip in strips:
            self.append(strip)

    def append(self, strip: np.ndarray) -> None:
        """Add a strip below the others."""
        bits = np.packbits(strip, axis=1)
        self._packed.append(zlib.compress(bits.tobytes(), 1) if bits.any() else b"")
        self._shapes.append(strip.shape)

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, number: int) -> np.ndarray:
        rows, columns = self._shapes[number]
        if not self._packed[number]:
            return np.zeros((rows, columns), bool)
        bits = np.frombuffer(zlib.decompress(self._packed[number]), np.uint8)
        return np.unpackbits(bits.reshape(rows, -1), axis=1, count=columns).astype(bool)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def any(self) -> bool:
        """Return True if a pixel is set."""
        return any(self._packed)

    def sum(self) -> int:
        """Return the number of pixels that are set."""
        return sum(int(self[number].sum()) for number, bits in enumerate(self._packed) if bits)


def zero_or_nodata(values: np.ndarray) -> np.ndarray:
    """Return a mask of the pixels of a (…, band) image of which all bands are 0 or NaN."""
    return ((values == 0) | np.isnan(values)).all(-1)


def border_zeros(zero: np.ndarray) -> np.ndarray:
    """Return the pixels of a (rows, columns) mask that are connected to its edge."""
    return border_zeros_in_strips(Strips([zero]))[0]


def border_zeros_in_strips(zero: Strips) -> Strips:
    """Return the pixels of a mask that are connected to its edge."""
    return _regions(zero, None)


def zero_blocks_in_strips(zero: Strips, side: int) -> Strips:
    """Return the regions of a mask that contain a square of `side` x `side` pixels.

    Args:
      zero: the mask.
      side: pixels, at least 1.
    """
    squares = Strips(_squares(zero, side))
    return _regions(zero, squares) if squares.any() else squares


def grow(mask: Strips, pixels: int) -> Strips:
    """Return a mask with all pixels within `pixels` rows and columns of one that is set."""
    wide = Strips(maximum_filter1d(s, 2 * pixels + 1, axis=1, mode="constant") for s in mask)
    below = Strips(counts > 0 for counts in _counts_above(wide, pixels + 1))
    upwards = (wide[number][::-1] for number in reversed(range(len(wide))))
    above = Strips(counts > 0 for counts in _counts_above(upwards, pixels + 1))
    last = len(wide) - 1
    return Strips(strip | above[last - number][::-1] for number, strip in enumerate(below))


def _squares(mask: Strips, side: int) -> Iterator[np.ndarray]:
    """Yield, in strips, the lower right corners of the squares of `side` pixels all set."""
    for columns in _counts_above(mask, side):
        tall = (columns == side).T
        yield (next(_counts_above([tall], side)) == side).T


def _counts_above(mask: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Yield, for every strip, the number of pixels set in the last `rows` rows of each column."""
    halo: np.ndarray | None = None
    for strip in mask:
        tall = strip if halo is None else np.concatenate([halo, strip])
        last = np.arange(len(tall) - len(strip), len(tall)) + 1
        sums = np.pad(np.cumsum(tall, axis=0, dtype=np.int32), ((1, 0), (0, 0)))
        yield sums[last] - sums[np.maximum(last - rows, 0)]
        halo = tall[max(0, len(tall) - rows + 1) :]


def _regions(mask: Strips, seeds: Strips | None) -> Strips:
    """Return the 8-connected regions of a mask that hold a seed; None: that touch its edge.

    The regions of every strip are numbered, and numbers that touch across strips are joined.
    """
    offsets, ends, marked = [0], [np.empty((2, 0), np.int32)], [np.empty(0, np.int32)]
    above = None
    for number, strip in enumerate(mask):
        regions = _number_regions(strip, offsets[-1])
        if above is not None:
            ends.append(_touching(above, regions[0]))
        if seeds is not None:
            marked.append(np.unique(regions[seeds[number]]))
        else:
            first = regions[:1] if number == 0 else regions[:0]
            last = regions[-1:] if number == len(mask) - 1 else regions[:0]
            marked += [np.unique(part) for part in (first, last, regions[:, 0], regions[:, -1])]
        offsets.append(max(offsets[-1], int(regions.max())))
        above = regions[-1]
    kept = np.zeros(offsets[-1] + 1, bool)
    kept[np.concatenate(marked)] = True
    numbers, pairs = np.unique(np.concatenate(ends, axis=1), return_inverse=True)
    size = len(numbers)  # of the regions that reach over an edge of a strip
    graph = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(size, size))
    count, component = connected_components(graph, directed=False)
    kept_component = np.zeros(count, bool)
    kept_component[component[kept[numbers]]] = True
    kept[numbers] |= kept_component[component]
    kept[0] = False  # not in the mask
    return Strips(
        kept[_number_regions(strip, offset)]
        for strip, offset in zip(mask, offsets, strict=False)  # the last offset is the total
    )


def _number_regions(strip: np.ndarray, offset: int) -> np.ndarray:
    """Return the number of every pixel's region, from `offset` + 1; 0 outside of the mask."""
    regions, _ = label(strip, structure=np.ones((3, 3)))
    return np.add(regions, offset, out=regions, where=strip)


def _touching(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return (2, n) numbers of regions in neighbouring rows that touch, also diagonally."""
    wide = np.pad(above, 1)
    pairs = np.concatenate(
        [np.stack([wide[shift : shift + len(below)], below]) for shift in range(3)], axis=1
    )
    return np.unique(pairs[:, (pairs > 0).all(0)], axis=1)
