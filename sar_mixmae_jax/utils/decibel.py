"""Conversion between dB and linear power in NumPy; `objectives` has the same in JAX."""

from typing import TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray)


PLAUSIBLE_DB = (-90.0, 50.0)
"""Range of plausible backscatter, dB (-72 to +35 occur)."""

MIN_DB_SHARE = 0.01
"""Share of pixels below -1 above which values are dB; linear power after noise subtraction has
none."""


def db_to_linear(db: Number) -> Number:
    """Return linear power, 10^(dB/10), in the floating-point type of `db`."""
    return 10.0 ** (db / 10.0)


def linear_to_db(power: Number) -> Number:
    """Return dB, 10 log10(power), in the floating-point type of `power`."""
    return 10.0 * np.log10(power)
