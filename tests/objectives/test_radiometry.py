"""dB, linear power, nodata and standardisation, against NumPy."""

import jax
import numpy as np

from sar_mixmae_jax.objectives import radiometry


def test_known_powers():
    db = np.array([-30.0, -10.0, 0.0, 3.0103, 20.0], np.float32)
    power = np.array([0.001, 0.1, 1.0, 2.0, 100.0], np.float32)
    np.testing.assert_allclose(jax.jit(radiometry.db_to_linear)(db), power, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(radiometry.linear_to_db)(power), db, atol=1e-4)


def test_nodata_standardises_to_the_mean():
    db = np.array([[np.nan, -12.0], [-19.0, np.inf]], np.float32)
    mean, std = np.array([-19.0, -12.0]), np.array([3.0, 4.0])
    standardised = jax.jit(radiometry.standardise)(db, mean, std)
    np.testing.assert_array_equal(standardised, np.zeros((2, 2)))


def test_destandardise_is_the_way_back():
    db = np.random.default_rng(0).normal(-15, 5, (3, 4, 4, 2)).astype(np.float32)
    mean, std = np.array([-19.0, -12.0], np.float32), np.array([3.0, 4.0], np.float32)
    back = radiometry.destandardise(radiometry.standardise(db, mean, std), mean, std)
    np.testing.assert_allclose(back, db, atol=1e-5)
