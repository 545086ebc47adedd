"""Grids of overlapping windows over a scene, and the weighted blending of their predictions.

Predictions are given on cells, squares of pixels: a cell is a pixel for a map of classes, a token
for features, and a whole window for one prediction a window. Weights are the product of one weight
along the rows and one along the columns, each normalised over all windows that hold a cell, so that
they sum to 1 in every cell, those at the edges of the scene included.
"""

import dataclasses
from functools import cached_property

import numpy as np

from sar_mixmae_jax.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class WindowAxis:
    """Windows along one axis of a scene.

    The last window ends with the scene, to a whole cell, and the windows before are spread evenly:
    they overlap by `overlap` or more. Where the scene is shorter than a window, or than its cells,
    the rest of the last window lies outside.

    Attributes:
      length: length of the scene, pixels.
      window: side of a window, pixels.
      overlap: least overlap of neighbouring windows, pixels.
      cell: side of a cell, pixels; divides `window` and `overlap`.
    """

    length: int
    window: int
    overlap: int = 0
    cell: int = 1

    def __post_init__(self) -> None:
        if self.window % self.cell or self.overlap % self.cell:
            raise InputError(
                f"found windows of {self.window} px that overlap by {self.overlap} px, expected "
                f"multiples of {self.cell} px, the side of a cell of the output"
            )
        if not 0 <= 2 * self.overlap <= self.window:
            raise InputError(
                f"found an overlap of {self.overlap} px, expected from 0 to half of a window, "
                f"{self.window // 2} px"
            )

    @property
    def cells(self) -> int:
        """Number of cells of the scene; the last one may lie partly outside."""
        return -(-self.length // self.cell)

    @property
    def cells_per_window(self) -> int:
        """Number of cells along a side of a window."""
        return self.window // self.cell

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First cell of every window."""
        last = max(0, self.cells - self.cells_per_window)
        count = -(-last * self.cell // (self.window - self.overlap))
        return tuple(last * number // max(1, count) for number in range(count + 1))

    @cached_property
    def weights(self) -> np.ndarray:
        """(windows, cells of a window) float32; over all windows they sum to 1 in every cell.

        A weight rises linearly over the overlap, from the border of a window inwards.
        """
        count = self.cells_per_window
        border = np.minimum(np.arange(count), np.arange(count)[::-1])
        ramp = np.minimum(1.0, (border + 0.5) / max(1, self.overlap // self.cell))
        ramp = ramp if self.overlap else np.ones(count)
        total = np.zeros(self.starts[-1] + count)
        for start in self.starts:
            total[start : start + count] += ramp
        weights = [ramp / total[start : start + count] for start in self.starts]
        return np.stack(weights).astype(np.float32)


class RowBlender:
    """Weighted sum of the predictions of windows, one row of windows in memory at a time."""

    def __init__(self, rows: WindowAxis, columns: WindowAxis, channels: int) -> None:
        """Start at the top.

        Args:
          rows: windows along the rows of the scene.
          columns: windows along its columns.
          channels: values in a cell.
        """
        self._rows, self._columns = rows, columns
        width = columns.starts[-1] + columns.cells_per_window
        self._sum = np.zeros((rows.cells_per_window, width, channels), np.float32)
        self._row = 0

    def add(self, column: int, prediction: np.ndarray) -> None:
        """Add the prediction of a window of the present row of windows.

        Args:
          column: number of the window in its row.
          prediction: (row, column, channel), the cells of the window.
        """
        start = self._columns.starts[column]
        weights = self._rows.weights[self._row][:, None] * self._columns.weights[column]
        part = self._sum[:, start : start + self._columns.cells_per_window]
        part += weights[..., None] * prediction

    def finish_row(self) -> np.ndarray:
        """End a row of windows, and return the rows of cells that no later window holds.

        Returns:
          (row, column, channel) float32 of the cells of the scene; 0 where no window was added.
        """
        rows, starts = self._rows, self._rows.starts
        self._row += 1
        end = starts[self._row] if self._row < len(starts) else rows.cells
        count = end - starts[self._row - 1]
        done, self._sum = self._sum, np.zeros_like(self._sum)
        self._sum[: len(done) - count] = done[count:]
        return done[:count, : self._columns.cells]


def measured_cells(valid: np.ndarray, cell: int) -> np.ndarray:
    """Return the cells of which at least half of the pixels are measured.

    Args:
      valid: (row, column) bool, True = measured, of the pixels of a scene.
      cell: side of a cell in pixels.

    Returns:
      (ceil(row / cell), ceil(column / cell)) bool; of cells that lie partly outside, the pixels
      inside count.
    """
    if cell == 1:
        return valid
    rows, columns = (np.arange(0, side, cell) for side in valid.shape)
    counts = np.add.reduceat(np.add.reduceat(valid, rows, 0, np.int32), columns, 1, np.int64)
    heights, widths = (
        np.diff(starts, append=side)
        for starts, side in zip((rows, columns), valid.shape, strict=True)
    )
    return 2 * counts >= heights[:, None] * widths
