"""dB and linear power are told apart, and what is neither is refused."""

import numpy as np
import pytest

from sar_mixmae_jax.data.metadata import FLOOR_DB
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.units import EMPTY_SUMMARY, find_unit_error, summarise, to_db


@pytest.fixture
def db() -> np.ndarray:
    return np.random.default_rng(0).normal(-15, 4, (120, 120)).astype(np.float32)


def wrong(values, unit="dB"):
    return find_unit_error(summarise(values), unit)


def test_each_unit_is_taken_for_itself(db):
    assert wrong(db) is None
    assert wrong(10 ** (db / 10) - 0.01, "linear") is None  # noise subtraction goes below 0


def test_each_unit_is_refused_as_the_other(db):
    assert "which is linear power, expected dB" in wrong(10 ** (db / 10) - 0.01)
    assert "which is dB, expected linear power" in wrong(db, "linear")


def test_linear_power_is_seen_in_spite_of_an_outlier(db):
    power = 10 ** (db / 10)
    power[3, 3] = -2.0
    assert "which is linear power" in wrong(power)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-np.inf, "1 infinite"),
        (np.inf, "1 infinite"),
        (-9999.0, "between -90 and 50 dB"),
        (60.0, "between -90 and 50 dB"),
    ],
)
def test_values_that_are_no_backscatter(db, value, message):
    db[3, 3] = value
    assert message in wrong(db)


@pytest.mark.parametrize("value", [-9999.0, -2.0, 2e5])
def test_values_that_are_no_power(db, value):
    power = 10 ** (db / 10)
    power[3, 3] = value
    assert "expected backscatter between -0.5 and 100000, linear" in wrong(power, "linear")


def test_nothing_measured(db):
    assert "nodata only" in wrong(np.full_like(db, np.nan))


def test_an_unknown_unit(db):
    with pytest.raises(InputError, match=r"unknown unit 'db': known are dB, linear"):
        wrong(db, "db")


def test_summaries_add_up(db):
    db[:, 0] = np.nan
    whole = sum((summarise(row) for row in db), EMPTY_SUMMARY)
    assert whole == summarise(db)


def test_power_of_zero_and_below_is_dark_and_not_missing():
    power = np.array([0.0, -0.01, 1.0, 0.1, np.nan], np.float32)
    np.testing.assert_allclose(to_db(power, "linear"), [FLOOR_DB, FLOOR_DB, 0, -10, np.nan])
    np.testing.assert_array_equal(to_db(power, "dB"), power)
