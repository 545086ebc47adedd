"""Checkpoints converted from the golden files, shared by the tests of the conversion."""

from pathlib import Path

import pytest

from sar_mixmae_jax.torch_interop.from_torch import from_torch
from tests.torch_interop.golden_files import (
    choices,
    file_of,
)


@pytest.fixture(scope="session")
def imported(golden, tmp_path_factory) -> dict[str, Path]:
    """The checkpoints of the three golden files."""
    folder = tmp_path_factory.mktemp("imported")
    made = {
        kind or "_pretraining": from_torch(
            file_of(golden, kind), folder / f"run{kind}", choices(golden)
        ).checkpoint
        for kind in ("", "_classify", "_flood")
    }
    return {name.lstrip("_"): path for name, path in made.items()}
