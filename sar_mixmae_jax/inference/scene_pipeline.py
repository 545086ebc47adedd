"""Predictions of a whole scene, row by row: reading, computing and the consumer overlap.

One row of windows is in memory, and the next one is being read; the size of a scene along its rows
does not matter.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.inference.window_blending import RowBlender, WindowAxis, measured_cells
from sar_mixmae_jax.utils.decibel import db_to_linear, linear_to_db

T = TypeVar("T")

RowReader = Callable[[int, int], np.ndarray]
"""(first row, row behind the last) -> (rows, columns, band) float32 in dB, NaN = nodata."""

PART_PIXELS = 2**19
"""Pixels of a band that are read at once: few enough for the cache of a processor."""
SAMPLED_ROWS = 2
"""Rows of a block of the overview that count, at least."""
IN_FLIGHT = 2
"""Batches given to the devices before the results of the first are awaited."""


@dataclasses.dataclass(frozen=True)
class MapScene:
    """A scene, or two dates on one grid, to be read in rows from top to bottom.

    Attributes:
      name: name of the scene.
      grid: its pixels.
      times: of acquisition, ISO 8601, for each date; "" where unknown.
      dates: reader of each date.
      tags: facts about its files for the tags of a map, by name.
      empty: a band of a date has no measurement, so that the map is nodata.
    """

    name: str
    grid: Grid
    times: tuple[str, ...]
    dates: tuple[RowReader, ...]
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    empty: bool = False


@dataclasses.dataclass(frozen=True)
class WindowPredictor:
    """Function of batches of windows.

    Attributes:
      window: side of a window, pixels.
      cell: side of a cell of the output, pixels.
      channels: names of the values of a cell.
      batch_size: windows at a time.
      predict: (batch, row, column, band) windows of every date, in dB, NaN = nodata -> (batch, row
        of cells, column of cells, channel); may return before the values are computed.
    """

    window: int
    cell: int
    channels: tuple[str, ...]
    batch_size: int
    predict: Callable[[list[np.ndarray]], Any]


class BlockAverage:
    """Mean linear power of square blocks of a scene, of rows added from top to bottom.

    Of high blocks only every few rows count: `SAMPLED_ROWS` or more of a block.
    """

    def __init__(self, shape: tuple[int, int], block: int) -> None:
        """Start without values.

        Args:
          shape: (rows, columns) of the scene.
          block: side of a block, pixels.
        """
        self.block, self._step = block, max(1, block // SAMPLED_ROWS)
        rows, columns = (-(-side // block) for side in shape)
        self._sums = np.zeros((rows, columns))
        self._counts = np.zeros((rows, columns), np.int64)

    def add(self, first: int, db: np.ndarray) -> None:
        """Add rows of a scene.

        Args:
          first: row of the scene.
          db: (rows, columns) dB, NaN = nodata.
        """
        skipped = -first % self._step
        power = db_to_linear(db[skipped :: self._step])
        blocks = (first + skipped + self._step * np.arange(len(power))) // self.block
        blocks, rows = np.unique(blocks, return_index=True)
        if not len(rows):
            return
        valid = np.isfinite(power)
        np.copyto(power, 0, where=~valid)
        columns = np.arange(0, db.shape[1], self.block)
        sums = np.add.reduceat(power, rows, 0)
        counts = np.add.reduceat(valid.view(np.uint8), rows, 0)  # fewer than 2 SAMPLED_ROWS
        self._sums[blocks] += np.add.reduceat(sums, columns, 1, np.float64)
        self._counts[blocks] += np.add.reduceat(counts, columns, 1, np.int64)

    def db(self) -> np.ndarray:
        """Return the means in dB; NaN where nothing was measured."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return linear_to_db(self._sums / self._counts)


class WindowResult(NamedTuple):
    """Prediction of a window.

    Attributes:
      row: first row of its pixels.
      column: first column of its pixels.
      measured: fraction of its pixels inside the scene that is measured.
      values: (row, column, channel), of its cells.
    """

    row: int
    column: int
    measured: float
    values: np.ndarray


class _Place(NamedTuple):
    """Place of a window: row of windows, number in the row, and measured fraction."""

    row: int
    column: int
    measured: float


class _WindowRow(NamedTuple):
    """A row of windows.

    Attributes:
      number: number of the row.
      strips: (rows, columns, band) of every date, the pixels of the windows inside the scene.
      valid: (rows, columns) bool, True where all bands of all dates are measured.
      measured: cells of the rows that no later window holds, see `measured_cells`.
    """

    number: int
    strips: list[np.ndarray]
    valid: np.ndarray
    measured: np.ndarray


def predict_rows(
    scene: MapScene,
    predictor: WindowPredictor,
    overlap: int,
    *,
    description: str | None = None,
    overview: BlockAverage | None = None,
    watch: Callable[[WindowResult], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the map of a scene from top to bottom, in strips of rows of cells.

    Windows without a pixel that is measured in all bands of all dates are not computed.

    Args:
      scene: to read.
      predictor: predictor of its windows.
      overlap: overlap of neighbouring windows, pixels.
      description: text beside a progress bar; None for no progress bar.
      overview: receives the last band of the last date.
      watch: receives the predictions of all windows that are computed.

    Yields:
      (rows, columns, channels) float32 of the whole width, NaN = nodata.
    """
    rows, columns = (
        WindowAxis(side, predictor.window, overlap, predictor.cell) for side in scene.grid.shape
    )
    blender = RowBlender(rows, columns, len(predictor.channels))
    measured: deque[np.ndarray] = deque()
    pending: deque[tuple[list[_Place], Any]] = deque()
    finished = 0

    def finish_row() -> np.ndarray:
        strip = blender.finish_row()
        np.copyto(strip, np.nan, where=~measured.popleft()[..., None])
        return strip

    def blend_oldest() -> Iterator[np.ndarray]:
        nonlocal finished
        places, result = pending.popleft()
        for place, prediction in zip(places, np.asarray(result), strict=False):
            while finished < place.row:
                yield finish_row()
                finished += 1
            blender.add(place.column, prediction)
            if watch is not None:
                row, column = rows.starts[place.row], columns.starts[place.column]
                cell = predictor.cell
                watch(WindowResult(row * cell, column * cell, place.measured, prediction))
        bar.update(places[-1].row * len(columns.starts) + places[-1].column + 1 - bar.n)

    def noted(window_rows: Iterator[_WindowRow]) -> Iterator[_WindowRow]:
        for row in window_rows:
            measured.append(row.measured)
            yield row

    total = len(rows.starts) * len(columns.starts)
    with tqdm(total=total, desc=description, unit=" windows", disable=description is None) as bar:
        window_rows = noted(read_ahead(_read_rows(scene, rows, overview)))
        for places, windows in _batches(window_rows, columns, predictor.batch_size):
            pending.append((places, predictor.predict(windows)))
            if len(pending) == IN_FLIGHT:
                yield from blend_oldest()
        while pending:
            yield from blend_oldest()
        while measured:
            yield finish_row()
        bar.update(total - bar.n)


def _read_rows(
    scene: MapScene, rows: WindowAxis, overview: BlockAverage | None
) -> Iterator[_WindowRow]:
    """Yield the rows of windows of a scene; every pixel is read once."""
    tops = [start * rows.cell for start in rows.starts]
    columns = scene.grid.shape[1]
    height = max(1, PART_PIXELS // columns)
    strips: list[np.ndarray] = []
    valid, known = np.empty((0, columns), bool), 0
    for number, top in enumerate(tops):
        bottom = min(top + rows.window, rows.length)
        kept = known - top  # rows that the row of windows before has too
        strips = [_grow(strip, kept, bottom - top) for strip in strips]
        valid = _grow(valid, kept, bottom - top)
        for first in range(known, bottom, height):  # in parts: conversions make copies
            part = slice(first - top, min(first + height, bottom) - top)
            for date, read in enumerate(scene.dates):
                values = read(first, part.stop + top)
                if len(strips) == date:
                    strips.append(np.empty((bottom - top, *values.shape[1:]), np.float32))
                for band in range(values.shape[-1]):
                    strips[date][part, :, band] = values[..., band]
                    measured = np.isfinite(values[..., band])
                    valid[part] = valid[part] & measured if date or band else measured
            if overview is not None:
                overview.add(first, values[..., -1])
        known = bottom
        end = tops[number + 1] if number + 1 < len(tops) else rows.length
        yield _WindowRow(number, strips, valid, measured_cells(valid[: end - top], rows.cell))


def _grow(strip: np.ndarray, kept: int, rows: int) -> np.ndarray:
    """Return a new array of `rows` rows that begins with the last `kept` rows of another one."""
    grown = np.empty((rows, *strip.shape[1:]), strip.dtype)
    grown[:kept] = strip[len(strip) - kept :]
    return grown


def _batches(
    window_rows: Iterator[_WindowRow], columns: WindowAxis, batch_size: int
) -> Iterator[tuple[list[_Place], list[np.ndarray]]]:
    """Yield the places of windows with something measured, and their pixels, in batches.

    All batches have the same size: the last is filled up with nodata, as are windows that lie
    partly outside the scene. The arrays of a batch are used again for the batch `IN_FLIGHT` later,
    when the devices have read them.
    """
    places: list[_Place] = []
    buffers: deque[list[np.ndarray]] = deque(maxlen=IN_FLIGHT)
    for row in window_rows:
        for column, start in enumerate(columns.starts):
            pixels = np.s_[:, start * columns.cell : start * columns.cell + columns.window]
            valid = row.valid[pixels]
            if not valid.any():
                continue
            if not places and len(buffers) < IN_FLIGHT:
                shape = (batch_size, columns.window, columns.window)
                buffers.append(
                    [np.empty((*shape, strip.shape[-1]), np.float32) for strip in row.strips]
                )
            elif not places:
                buffers.rotate(-1)
            windows = buffers[-1]
            for date, strip in zip(windows, row.strips, strict=True):
                part, window = strip[pixels], date[len(places)]
                window[: part.shape[0], : part.shape[1]] = part
                window[part.shape[0] :] = np.nan
                window[:, part.shape[1] :] = np.nan
            places.append(_Place(row.number, column, float(valid.mean())))
            if len(places) == batch_size:
                yield places, windows
                places = []
    if places:
        for date in buffers[-1]:
            date[len(places) :] = np.nan
        yield places, buffers[-1]


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator, whose next item is computed in a thread meanwhile."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future: Future[Any] = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item


class WriteBehind:
    """Thread that calls a function in order, with at most one call waiting while another runs."""

    def __init__(self, function: Callable[..., None]) -> None:
        """Start the thread.

        Args:
          function: to call.
        """
        self._function, self._thread = function, ThreadPoolExecutor(1)
        self._calls: deque[Future[None]] = deque()

    def __enter__(self) -> "WriteBehind":
        return self

    def __call__(self, *arguments: Any) -> None:
        """Call the function later.

        Raises:
          Exception: an earlier call raised it.
        """
        self._calls.append(self._thread.submit(self._function, *arguments))
        while len(self._calls) > 1:
            self._calls.popleft().result()

    def __exit__(self, *error: object) -> None:
        """Wait for all calls, and raise what one of them raised unless another error is raised."""
        self._thread.shutdown(wait=True, cancel_futures=error[0] is not None)
        if error[0] is None:
            for call in self._calls:
                call.result()
