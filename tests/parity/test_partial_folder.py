"""A folder with only some of the reference's arrays: what is missing is skipped with its name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.reference import Golden

OWN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def partial(tmp_path) -> Golden:
    """The three required files, of which `pretrain.npz` holds one array."""
    for name in ("config.json", "mixmim_tiny.npz"):
        shutil.copy(OWN / name, tmp_path)
    with np.load(OWN / "pretrain.npz") as arrays:
        np.savez(tmp_path / "pretrain.npz", mask=arrays["mask"])
    return Golden(tmp_path)


def test_absent_parts_are_skipped_with_their_name(partial):
    assert partial.pretrain["mask"].shape == (16,)
    for name, read in {
        "encoder_tokens": lambda: partial.pretrain["encoder_tokens"],
        "trajectory/params/": lambda: partial.pretrain_arrays("trajectory/params/"),
        "classify/x": lambda: partial.finetune["classify/x"],
        r"mixmim_\*_flood.pth": lambda: partial.finetuned("flood"),
        "parameters.json": lambda: partial.path("parameters.json"),
    }.items():
        with pytest.raises(pytest.skip.Exception, match=name):
            read()


def test_sizes_of_a_downstream_model_are_read_from_its_tensors():
    golden = Golden(OWN)
    arch, params, outputs = golden.finetuned("classify")
    expected = golden.architecture()
    for field in ("embed_dim", "depths", "num_heads", "window_sizes", "image_size", "bands"):
        assert getattr(arch, field) == getattr(expected, field), field
    assert (outputs, params["head"]["kernel"].shape[1]) == (19, 19)
