"""The command `convert`, and what a converted checkpoint is good for."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import finetune as recipes
from sar_mixmae_jax.cli import convert
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.inference.features import embed, load_embedding_dataset
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, from_torch
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.training import finetune, initialisation, pretrain
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.utils.errors import InputError
from tests.launch import call
from tests.shrink import small_config

HAS_TORCH = importlib.util.find_spec("torch") is not None
pytestmark = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> dict[str, Path]:
    """Workdirs of the golden pretraining and flood models, made by the command."""
    folder = tmp_path_factory.mktemp("converted")
    runs = {"pretraining": "", "flood": "_flood"}
    flags = ("--statistics=bigearthnet_v2", "--decoder_num_heads=4")
    for name, kind in runs.items():
        path, workdir = GOLDEN / f"mixmim_tiny{kind}.pth", folder / name
        status, output, errors = call(
            convert.main, "from-torch", path, f"--workdir={workdir}", *flags
        )
        assert status == 0, errors
        assert "none of the published files" in errors
        assert "custom (" in output
    return {name: folder / name for name in runs}


def test_pretraining_goes_on_from_a_converted_checkpoint(converted, built, tmp_path):
    """With its parameters, moments and statistics, at the first step of its own schedule."""
    arch = initialisation.find_source_checkpoint(converted["pretraining"]).arch
    config = small_config(built, total_steps=1, init=str(converted["pretraining"]))
    with config.unlocked():
        for name in ("embed_dim", "depths", "num_heads", "window_sizes", "image_size"):
            config.model[name] = getattr(arch, name)
        for name in ("decoder_embed_dim", "decoder_depth", "decoder_num_heads"):
            config.model[name] = getattr(arch, name)
        config.optimizer.base_learning_rate = 1e-30
    outcome = pretrain.train(config, tmp_path / "run")
    path = outcome.files["checkpoint"]
    like = {"params": outcome.state.params}
    before, after = (
        read_subtree(one, like)["params"]
        for one in (initialisation.find_source_checkpoint(converted["pretraining"]).path, path)
    )
    jax.tree.map(np.testing.assert_array_equal, after, before)  # the rate is nearly 0
    counts = {type(node).__name__: int(node.count) for node in _counted(outcome.state.opt_state)}
    assert counts == {"ScaleByAdamState": 13, "ScaleByScheduleState": 1}
    model = read_metadata(path).model
    assert model.statistics.mean == (-19.1966, -12.5144)
    assert model.pretrained.trainer == "convert"
    to_torch(tmp_path / "run", tmp_path / "run.pth")
    back = from_torch(tmp_path / "run.pth", tmp_path / "back", ImportOptions())
    assert model.weighting is not None
    assert read_metadata(back.checkpoint).model.weighting == model.weighting
    again = pretrain.train(config, tmp_path / "run")  # which is finished
    assert again.finished
    config.model.embed_dim = 16
    with pytest.raises(InputError, match="of another size"):
        pretrain.train(config, tmp_path / "other")


def _counted(state):
    if "count" in getattr(state, "_fields", ()):
        yield state
    elif isinstance(state, tuple):
        for one in state:
            yield from _counted(one)


def test_fine_tuning_from_a_converted_checkpoint(converted, built, tmp_path):
    config = recipes.get_config(
        f"task=classification,dataset=bigearthnet_s1,init={converted['pretraining']}"
    )
    config.data_dir = str(built)
    config.batch_size, config.total_steps, config.compilation_cache = 4, 1, None
    finetune.train(config, tmp_path / "run")
    files = evaluate(tmp_path / "run")
    about = json.loads(files["metrics.json"].read_text())["about"]
    assert about["overlap with training"].startswith("at least 0 of 2 images were seen")
    assert about["encoder"]["dataset"] == "not known"
    out = tmp_path / "back.pth"
    status, output, errors = call(convert.main, "to-torch", tmp_path / "run", f"--out={out}")
    assert status == 0, errors
    assert "88 tensors of custom (classification)" in output


def test_a_converted_flood_detector_is_evaluated(converted, floods, tmp_path):
    """With the tiles that it was trained with, so without evidence by tile."""
    files = evaluate(
        converted["flood"], dataset="flood_pairs/own", data_dir=str(floods), out=tmp_path / "report"
    )
    assert "evidence.npz" not in files
    about = json.loads(files["metrics.json"].read_text())["about"]
    assert "converted from mixmim_tiny_flood.pth" in about["trained on"]


def test_features_of_a_converted_encoder(converted, built):
    encoder = initialisation.find_source_checkpoint(converted["pretraining"])
    patches = load_embedding_dataset(encoder, "bigearthnet_s1", str(built), "test")
    made = embed(encoder, patches, resize_mode="resize", dtype="float32", batch_size=2)
    assert made["features"].shape == (2, 64)


def test_command_lines_that_cannot_be_used(tmp_path):
    cases = {
        (): "found 0 arguments, expected two",
        ("from-onnx", "a.pth"): "unknown direction 'from-onnx'",
        ("from-torch", "a.pth"): "found no --workdir",
        ("to-torch", tmp_path / "none", f"--out={tmp_path}/a.pth"): "holds no checkpoint",
    }
    for given, message in cases.items():
        status, _, errors = call(convert.main, *given)
        assert (status, errors.count("\n")) == (2, 1), errors
        assert message in errors
