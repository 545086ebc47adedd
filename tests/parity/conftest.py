"""Programs of the golden tests are compiled with all optimisations."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def optimised() -> Iterator[None]:
    """Compile with the optimisations that the other tests leave out."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
