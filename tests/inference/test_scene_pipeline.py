"""Windows, blending and the pipeline over the rows of a scene, with functions of pixels."""

import numpy as np
import pytest

from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.inference.scene_pipeline import (
    BlockAverage,
    MapScene,
    WindowPredictor,
    WriteBehind,
    predict_rows,
    read_ahead,
)
from sar_mixmae_jax.inference.window_blending import RowBlender, WindowAxis, measured_cells
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.plotting import block_average


def scene_of(*dates):
    """Scene of (row, column, band) arrays, and the numbers of rows that were read."""
    reads = []

    def reader(date):
        def read(first, last):
            reads.append((first, last))
            return date[first:last]

        return read

    shape = dates[0].shape[:2]
    scene = MapScene("scene", Grid(shape, "", (1, 0, 0, 0, 1, 0)), ("",), tuple(map(reader, dates)))
    return scene, reads


def predictor_of(function, window, cell=1, channels=("value",), batch_size=4):
    return WindowPredictor(window, cell, channels, batch_size, function)


def mapped(scene, predictor, overlap, **settings):
    return np.concatenate(list(predict_rows(scene, predictor, overlap, **settings)))


def backscatter(rows, columns, seed=0):
    values = np.random.default_rng(seed).normal(-15, 3, (rows, columns, 2))
    return values.astype(np.float32)


@pytest.mark.parametrize("length", [5, 32, 33, 47, 100, 101])
@pytest.mark.parametrize(("overlap", "cell"), [(0, 1), (8, 1), (16, 4), (0, 32), (8, 8)])
def test_weights_of_all_windows_sum_to_one_in_every_cell(length, overlap, cell):
    axis = WindowAxis(length, 32, overlap, cell)
    total = np.zeros(axis.starts[-1] + 32 // cell)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert length <= len(total) * cell < length + max(cell, 32 - length + 1)
    gaps = np.diff(axis.starts) * cell
    assert (gaps > 0).all()
    assert (gaps <= 32 - overlap).all()


def test_a_weight_rises_linearly_over_the_overlap():
    left, right = WindowAxis(12, 8, 4).weights
    np.testing.assert_allclose(left, [1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125])
    np.testing.assert_allclose(right, left[::-1])


@pytest.mark.parametrize(("window", "overlap", "cell"), [(32, 17, 1), (32, 6, 4), (30, 0, 4)])
def test_windows_that_do_not_fit_are_refused(window, overlap, cell):
    with pytest.raises(InputError, match=r"found .* expected"):
        WindowAxis(100, window, overlap, cell)


@pytest.mark.parametrize("shape", [(70, 83), (16, 83), (7, 9), (70, 12)])
@pytest.mark.parametrize("overlap", [0, 5, 8])
def test_a_function_of_single_pixels_returns_in_place_for_every_grid(shape, overlap):
    db = backscatter(*shape)
    scene, reads = scene_of(db)
    predictor = predictor_of(lambda dates: dates[0][..., :1] * 2 - dates[0][..., 1:], 16)
    values = mapped(scene, predictor, overlap)
    np.testing.assert_allclose(values[..., 0], db[..., 0] * 2 - db[..., 1], rtol=1e-5)
    assert reads[0][0] == 0
    assert [last for _, last in reads[:-1]] == [first for first, _ in reads[1:]]


def test_the_seam_between_windows_is_a_linear_transition():
    """Windows that disagree by 1 differ by at most 1 / overlap from cell to cell."""
    numbers = iter(range(100))

    def numbered(dates):
        values = np.empty((*dates[0].shape[:3], 1), np.float32)
        for window in values:
            window[:] = next(numbers) % 2
        return values

    scene, _ = scene_of(backscatter(16, 50))
    values = mapped(scene, predictor_of(numbered, 16, batch_size=1), 8)[..., 0]
    assert np.ptp(values) > 0.9
    assert np.abs(np.diff(values, axis=1)).max() <= 1 / 8 + 1e-6


def test_nodata_stays_nodata_and_empty_windows_are_not_computed():
    db = backscatter(64, 64)
    db[:16] = np.nan  # a whole row of windows
    db[40, 50, 1] = np.nan  # one band of one pixel
    calls = []

    def constant(dates):
        calls.append(dates[0].copy())
        return np.ones((*dates[0].shape[:3], 1))

    values = mapped(scene_of(db)[0], predictor_of(constant, 16, batch_size=3), 0)[..., 0]
    np.testing.assert_array_equal(np.isnan(values), np.isnan(db).any(-1))
    np.testing.assert_array_equal(values[~np.isnan(values)], 1)
    assert len(calls) == 4  # 12 windows
    assert len({call.shape for call in calls}) == 1
    nothing = mapped(scene_of(db * np.nan)[0], predictor_of(constant, 16), 0)
    assert nothing.shape == (64, 64, 1)
    assert np.isnan(nothing).all()


def test_pixels_outside_the_scene_are_nodata_in_a_window():
    seen = []
    scene, _ = scene_of(backscatter(10, 12))
    predictor = predictor_of(lambda dates: seen.append(dates[0]) or dates[0][..., :1], 16)
    mapped(scene, predictor, 0)
    outside = np.isnan(seen[0][0]).all(-1)
    assert not outside[:10, :12].any()
    assert outside[10:].all()
    assert outside[:, 12:].all()


def test_cells_of_whole_windows_and_of_two_dates():
    before, after = backscatter(40, 50), backscatter(40, 50, seed=1)
    after[:, 16:32] = np.nan
    scene, _ = scene_of(before, after)
    predictor = predictor_of(
        lambda dates: np.nansum(dates[1] - dates[0], (1, 2), keepdims=True), 16, 16, ("VH", "VV")
    )
    values = mapped(scene, predictor, 0)
    assert values.shape == (3, 4, 2)
    assert np.isnan(values[:, 1]).all()
    expected = (after - before)[32:40, 32:48].sum((0, 1))
    np.testing.assert_allclose(values[2, 2], expected, rtol=1e-4)


def test_a_cell_is_measured_where_half_of_its_pixels_inside_the_scene_are():
    valid = np.ones((5, 6), bool)
    valid[0, :2] = valid[1, 0] = valid[0, 4] = False
    valid[4, 5] = False
    np.testing.assert_array_equal(measured_cells(valid, 4), [[True, True], [True, True]])
    valid[4, 4] = False
    valid[2, :3] = valid[3, :3] = False
    np.testing.assert_array_equal(measured_cells(valid, 4), [[False, True], [True, False]])


def test_the_memory_of_a_blender_does_not_depend_on_the_rows_of_a_scene():
    columns = WindowAxis(100, 16, 4)
    small, large = (RowBlender(WindowAxis(rows, 16, 4), columns, 2) for rows in (50, 50_000))
    assert small._sum.nbytes == large._sum.nbytes


@pytest.mark.parametrize(("block", "step"), [(3, 1), (13, 6)])
def test_a_block_average_equals_multilooking_of_some_rows(block, step):
    db = backscatter(50, 70)[..., 0]
    db[:20, :20] = np.nan
    average = BlockAverage(db.shape, block)
    for first in range(0, 50, 2):
        average.add(first, db[first : first + 2])
    counted = np.where(np.arange(50)[:, None] % step == 0, db, np.nan)
    np.testing.assert_allclose(average.db(), block_average(counted, block), atol=1e-4)


def test_errors_of_other_threads_are_raised():
    def broken():
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(read_ahead(broken()))
    written = []

    def write(value):
        if value == 2:
            raise OSError("full")
        written.append(value)

    def write_all(*values, after=lambda: None):
        with WriteBehind(write) as writer:
            for value in values:
                writer(value)
            after()

    with pytest.raises(OSError, match="full"):
        write_all(0, 1, 2, 3, 4)
    assert written[:2] == [0, 1]
    with pytest.raises(OSError, match="full"):
        write_all(1, 2)
    with pytest.raises(ZeroDivisionError):
        write_all(2, after=lambda: 1 / 0)
