"""The weighted squared error, unreduced."""

import numpy as np
import pytest

from sar_mixmae_jax.objectives.reconstruction import weighted_squared_error


def test_value():
    ours = weighted_squared_error(np.array([1.0, 2.0]), np.array([3.0, 2.5]), np.array([2.0, 0.0]))
    np.testing.assert_allclose(ours, [8.0, 0.0])


def test_shapes_that_differ_are_refused():
    one, other = np.zeros((2, 1)), np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"prediction \(2, 1\), target \(1, 2\)"):
        weighted_squared_error(one, other, one)
