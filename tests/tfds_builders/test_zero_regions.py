"""Zeros that connect to the edge of a frame, in one piece and in strips."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from tfds_builders.zero_regions import (
    Strips,
    border_zeros,
    border_zeros_in_strips,
    grow,
    zero_blocks_in_strips,
)


def flood(zero: np.ndarray) -> np.ndarray:
    """The same by walking from pixel to pixel."""
    rows, columns = zero.shape
    border = {(r, c) for r in range(rows) for c in range(columns)}
    todo = [p for p in border if (p[0] in (0, rows - 1) or p[1] in (0, columns - 1)) and zero[p]]
    found = np.zeros_like(zero)
    while todo:
        row, column = todo.pop()
        if found[row, column]:
            continue
        found[row, column] = True
        for step in itertools.product((-1, 0, 1), repeat=2):
            there = (row + step[0], column + step[1])
            if there in border and zero[there]:
                todo.append(there)
    return found


@pytest.mark.parametrize("height", [1, 3, 7, 40])
@pytest.mark.parametrize("share", [0.2, 0.35, 0.45])
def test_strips_find_what_a_walk_finds(share, height):
    zero = np.random.default_rng(int(100 * share)).random((40, 31)) < share
    strips = Strips(zero[top : top + height] for top in range(0, 40, height))
    found = np.concatenate(list(border_zeros_in_strips(strips)))
    np.testing.assert_array_equal(found, flood(zero))
    np.testing.assert_array_equal(border_zeros(zero), flood(zero))


def test_a_winding_path_is_followed_up_and_down_through_the_strips():
    zero = np.zeros((12, 12), bool)
    for column in range(1, 11, 2):
        zero[1:11, column] = True
        zero[1 if column % 4 == 3 else 10, column : column + 3] = True
    zero[10, 11] = zero[10, 10]
    zero[0, 1] = True  # the only way in
    strips = Strips(zero[top : top + 2] for top in range(0, 12, 2))
    found = np.concatenate(list(border_zeros_in_strips(strips)))
    np.testing.assert_array_equal(found, flood(zero))
    assert found[5, 9]


def blocks(zero: np.ndarray, side: int) -> np.ndarray:
    """Regions that hold a square of zeros, found by looking at every square."""
    rows, columns = zero.shape
    squares = np.zeros_like(zero)
    for row in range(rows - side + 1):
        for column in range(columns - side + 1):
            square = (slice(row, row + side), slice(column, column + side))
            squares[square] |= zero[square].all()
    region = np.zeros_like(zero)
    while (squares & ~region).any():
        region = squares
        squares = binary_dilation(region, np.ones((3, 3))) & zero
    return region


@pytest.mark.parametrize("height", [1, 3, 7, 24])
@pytest.mark.parametrize("side", [1, 3, 4])
def test_blocks_of_zeros_are_found_in_strips(side, height):
    zero = np.random.default_rng(side).random((24, 31)) < 0.6
    zero[5:10, 20:24] = True
    strips = Strips(zero[top : top + height] for top in range(0, 24, height))
    found = np.concatenate(list(zero_blocks_in_strips(strips, side)))
    expected = blocks(zero, side)
    np.testing.assert_array_equal(found, expected)
    assert expected[5:10, 20:24].all()


@pytest.mark.parametrize("height", [1, 3, 24])
@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_a_mask_grows_in_strips(pixels, height):
    mask = np.random.default_rng(pixels).random((24, 31)) < 0.02
    strips = Strips(mask[top : top + height] for top in range(0, 24, height))
    expected = binary_dilation(mask, np.ones((2 * pixels + 1, 2 * pixels + 1)))
    np.testing.assert_array_equal(np.concatenate(list(grow(strips, pixels))), expected)
    assert strips.sum() == mask.sum()


def test_zeros_inside_are_measurements():
    zero = np.zeros((20, 20), bool)
    zero[:, :3] = True
    zero[10:12, 10:12] = True
    np.testing.assert_array_equal(border_zeros(zero)[:, :3], True)
    assert border_zeros(zero).sum() == 60
