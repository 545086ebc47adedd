"""Units of backscatter, dB or linear power: check of the values, conversion to dB."""

from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.data.metadata import FLOOR_DB
from sar_mixmae_jax.utils.decibel import (
    MIN_DB_SHARE,
    PLAUSIBLE_DB,
    db_to_linear,
    linear_to_db,
)
from sar_mixmae_jax.utils.errors import check_name

LOWEST_POWER = -0.5
"""Lowest plausible linear power: noise subtraction leaves a few hundredths below 0 at most."""

UNITS = ("dB", "linear")


class ValueSummary(NamedTuple):
    """Summary of the pixels of one band, from which their unit can be inferred.

    Attributes:
      minimum: smallest value.
      maximum: largest value.
      below_minus_1: number of pixels below -1.
      above_1: number of pixels above 1.
      valid: number of pixels that are not NaN.
      infinite: number of infinite pixels.
    """

    minimum: float
    maximum: float
    below_minus_1: int
    above_1: int
    valid: int
    infinite: int

    def __add__(self, other: object) -> "ValueSummary":
        """Return the summary of the pixels of both."""
        if not isinstance(other, ValueSummary):
            return NotImplemented
        return ValueSummary(
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            *(a + b for a, b in zip(self[2:], other[2:], strict=True)),
        )


EMPTY_SUMMARY = ValueSummary(np.inf, -np.inf, 0, 0, 0, 0)
"""Summary of no pixels."""


def summarise(values: np.ndarray) -> ValueSummary:
    """Return the summary of an array of any shape, NaN = nodata."""
    valid = values.size - int(np.count_nonzero(np.isnan(values)))
    if not valid:
        return EMPTY_SUMMARY
    return ValueSummary(
        float(np.fmin.reduce(values, axis=None)),
        float(np.fmax.reduce(values, axis=None)),
        int(np.count_nonzero(values < -1.0)),
        int(np.count_nonzero(values > 1.0)),
        valid,
        int(np.count_nonzero(np.isinf(values))),
    )


def infer_power_unit(summary: ValueSummary) -> str:
    """Return "dB" if more than `MIN_DB_SHARE` of the pixels is below -1, else "linear"."""
    return "dB" if summary.below_minus_1 > MIN_DB_SHARE * summary.valid else "linear"


def find_unit_error(summary: ValueSummary, unit: str) -> str | None:
    """Return the reason why values cannot be backscatter in a unit, or None.

    Args:
      summary: summary of one band.
      unit: expected unit, "dB" or "linear".

    Raises:
      InputError: there is no such unit.
    """
    check_name(UNITS, unit, "unit")
    if not summary.valid:
        return "found nodata only, expected measurements: move it out, or give --skip_bad"
    lowest, highest = (
        PLAUSIBLE_DB if unit == "dB" else (LOWEST_POWER, db_to_linear(PLAUSIBLE_DB[1]))
    )
    found = f"found values from {summary.minimum:.4g} to {summary.maximum:.4g}"
    outside = (
        f"{found}, expected backscatter between {lowest:g} and {highest:g}"
        f"{' dB' if unit == 'dB' else ', linear'}: mark nodata as NaN or by the nodata tag"
    )
    if summary.infinite:
        return (
            f"{found} ({summary.infinite} infinite), expected finite numbers: mark nodata as NaN "
            "or by the nodata tag, and give power of 0 a floor before it becomes dB"
        )
    if summary.minimum < PLAUSIBLE_DB[0]:
        return outside
    if unit == "dB" and infer_power_unit(summary) == "linear":
        return f"{found}, which is linear power, expected dB: convert it, or give --unit=linear"
    if unit == "linear" and infer_power_unit(summary) == "dB":
        return f"{found}, which is dB, expected linear power: give --unit=dB"
    if unit == "linear" and summary.above_1 > 0.5 * summary.valid:
        return (
            f"{found}, most of them above 1, which is 0 dB, expected calibrated linear power: are "
            "these digital numbers, amplitudes, or angles?"
        )
    if summary.minimum < lowest or summary.maximum > highest:
        return outside
    return None


def to_db(values: np.ndarray, unit: str) -> np.ndarray:
    """Return backscatter in dB, float32; linear power that `is_floored` becomes `FLOOR_DB`.

    Args:
      values: backscatter of any shape, NaN = nodata.
      unit: unit of the values, "dB" or "linear".
    """
    if unit == "linear":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(is_floored(values), FLOOR_DB, linear_to_db(values))
    return values.astype(np.float32, copy=False)


def count_floored(values: np.ndarray, unit: str) -> np.ndarray:
    """Return (2, band) numbers of pixels that `to_db` raises to `FLOOR_DB`.

    The first are those of power at or below 0, the second those of positive power that is as good
    as 0. There are none in dB.

    Args:
      values: (…, band) backscatter, NaN = nodata.
      unit: unit of the values, "dB" or "linear".
    """
    if unit != "linear":
        return np.zeros((2, values.shape[-1]), np.int64)
    axes = tuple(range(values.ndim - 1))
    at_or_below_0 = (values <= 0).sum(axes)
    return np.stack([at_or_below_0, is_floored(values).sum(axes) - at_or_below_0])


def is_floored(power: np.ndarray) -> np.ndarray:
    """Return a mask of linear power at or below 0, or so low that only resampling causes it."""
    return power < db_to_linear(PLAUSIBLE_DB[0])
