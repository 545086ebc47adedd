"""dB or linear power: told apart, checked, converted to the dB of the records."""

from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.data.metadata import FLOOR_DB as FLOOR_DB
from sar_mixmae_jax.utils.decibel import db_to_linear, linear_to_db
from sar_mixmae_jax.utils.errors import check_name

PLAUSIBLE_DB = (-90.0, 50.0)
"""Backscatter outside of this range, in dB, is not a measurement (-72 to +35 occur)."""

LOWEST_POWER = -0.5
"""Noise subtraction leaves linear power a few hundredths below 0 at most."""

UNITS = ("dB", "linear")


class Summary(NamedTuple):
    """What tells units apart, of the measured pixels of one band.

    Attributes:
      low: smallest value.
      high: largest value.
      dark: pixels below -1.
      bright: pixels above 1.
      measured: all pixels with a measurement.
      not_finite: pixels that are infinite.
    """

    low: float
    high: float
    dark: int
    bright: int
    measured: int
    not_finite: int

    def __add__(self, other: object) -> "Summary":
        """The summary of both."""
        if not isinstance(other, Summary):
            return NotImplemented
        return Summary(
            min(self.low, other.low),
            max(self.high, other.high),
            self.dark + other.dark,
            self.bright + other.bright,
            self.measured + other.measured,
            self.not_finite + other.not_finite,
        )


EMPTY = Summary(np.inf, -np.inf, 0, 0, 0, 0)


def summarise(values: np.ndarray) -> Summary:
    """Summarises an array, NaN = nodata."""
    measured = values[~np.isnan(values)]
    if not measured.size:
        return EMPTY
    return Summary(
        float(measured.min()),
        float(measured.max()),
        int((measured < -1.0).sum()),
        int((measured > 1.0).sum()),
        measured.size,
        int(np.isinf(measured).sum()),
    )


def infer_power_unit(summary: Summary) -> str:
    """The unit that values are in: in dB at least a hundredth of the pixels is below -1."""
    return "dB" if summary.dark > 0.01 * summary.measured else "linear"


def find_unit_error(summary: Summary, unit: str) -> str | None:
    """Why values cannot be backscatter in a unit, or None where they can.

    Args:
      summary: of one band.
      unit: what is expected, "dB" or "linear".

    Raises:
      InputError: there is no such unit.
    """
    check_name(UNITS, unit, "unit")
    if not summary.measured:
        return "found nodata only, expected measurements: move it out of the dataset"
    lowest, highest = (
        PLAUSIBLE_DB if unit == "dB" else (LOWEST_POWER, db_to_linear(PLAUSIBLE_DB[1]))
    )
    seen = f"found values from {summary.low:.4g} to {summary.high:.4g}"
    outside = (
        f"{seen}, expected backscatter between {lowest:g} and {highest:g}"
        f"{' dB' if unit == 'dB' else ', linear'}: mark nodata as NaN or by the nodata tag"
    )
    if summary.not_finite:
        return (
            f"{seen} ({summary.not_finite} infinite), expected finite numbers: mark nodata as NaN "
            "or by the nodata tag, and give power of 0 a floor before it becomes dB"
        )
    if summary.low < PLAUSIBLE_DB[0]:
        return outside
    if unit == "dB" and infer_power_unit(summary) == "linear":
        return f"{seen}, which is linear power, expected dB: convert it, or say --unit=linear"
    if unit == "linear" and infer_power_unit(summary) == "dB":
        return f"{seen}, which is dB, expected linear power: --unit=dB says so"
    if unit == "linear" and summary.bright > 0.5 * summary.measured:
        return (
            f"{seen}, most of them above 1, which is 0 dB, expected calibrated linear power: are "
            "these digital numbers, amplitudes, or angles?"
        )
    if summary.low < lowest or summary.high > highest:
        return outside
    return None


def to_db(values: np.ndarray, unit: str) -> np.ndarray:
    """Backscatter in dB, float32; where `is_floored` it is `FLOOR_DB`.

    Args:
      values: backscatter, NaN = nodata.
      unit: of the values, "dB" or "linear".
    """
    if unit == "linear":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(is_floored(values), FLOOR_DB, linear_to_db(values))
    return values.astype(np.float32)


def is_floored(power: np.ndarray) -> np.ndarray:
    """Linear power of 0 and below, or so little that only resampling next to a 0 leaves it."""
    return power < db_to_linear(PLAUSIBLE_DB[0])
