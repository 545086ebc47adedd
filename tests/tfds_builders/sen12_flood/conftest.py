"""The example archive of SEN12-FLOOD, written and built once in a session."""

import shutil

import pytest

from tests.sen12 import built_dataset, example_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return example_archive(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(archive, tmp_path):
    """A copy of the example that a test may change."""
    return shutil.copytree(archive, tmp_path / "raw")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return built_dataset(tmp_path_factory.getbasetemp())
