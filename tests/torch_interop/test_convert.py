"""The command `convert`, and what a converted checkpoint is good for."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from sar_mixmae_jax.cli import convert
from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.inference.features import embed, load_embedding_dataset
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, from_torch
from sar_mixmae_jax.torch_interop.optimizer_state import numbered_params
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.training import finetune, pretrain
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from tests.launch import call
from tests.shrink import TWO_STAGES, small_config, small_tuning
from tests.torch_interop.golden_files import arrays, content_of

try:
    import torch
except ImportError:
    torch = None

pytestmark = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

DOWNSTREAM = Path(__file__).parents[1] / "golden/mixmim_tiny_flood.pth"


def write_published_form(run: Path, path: Path) -> Path:
    """Write a pretraining as the published code does: tensors and AdamW after one step."""
    to_torch(run, path)
    model = content_of(path)["model"]
    arch = find_source_checkpoint(run).arch
    trained = [torch.nn.Parameter(model[name].clone()) for name in numbered_params(arch)]
    groups = [
        {
            "params": [tensor for tensor in trained if (tensor.ndim > 1) == decays],
            "weight_decay": rate,
        }
        for decays, rate in ((False, 0.0), (True, 0.05))
    ]
    optimizer = torch.optim.AdamW(groups)
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    torch.save({"model": model, "optimizer": optimizer.state_dict(), "epoch": 0}, path)
    return path


@pytest.fixture(scope="module")
def converted(encoder_run, tmp_path_factory) -> dict[str, Path]:
    """Workdirs of a pretraining, of the sizes of `encoder_run`, and of the golden flood model."""
    folder = tmp_path_factory.mktemp("converted")
    pretraining = write_published_form(encoder_run, folder / "pretraining.pth")
    files = {"pretraining": pretraining, "flood": DOWNSTREAM}
    flags = ("--statistics=bigearthnet_v1", "--decoder_num_heads=2")
    for name, path in files.items():
        status, output, errors = call(
            convert.main, "from-torch", path, f"--workdir={folder / name}", *flags
        )
        assert status == 0, errors
        assert "none of the published files" in errors
        assert "custom (" in output
    return {name: folder / name for name in files}


@pytest.mark.usefixtures("no_drawing")
def test_pretraining_goes_on_from_a_converted_checkpoint(converted, built, tmp_path):
    """With its parameters, moments and statistics, at the first step of its own schedule."""
    source = converted["pretraining"]
    changes = {"init": str(source), **TWO_STAGES, "model.image_size": 128}
    config = small_config(built, total_steps=1, **changes)
    outcome = pretrain.train(config, tmp_path / "run")
    like = {"params": outcome.state.params}
    before, after = (
        read_subtree(path, like)["params"]
        for path in (find_source_checkpoint(source).path, outcome.files["checkpoint"])
    )
    jax.tree.map(np.testing.assert_array_equal, after, before)  # the rate of the first step is 0
    counts = {type(node).__name__: int(node.count) for node in _counted(outcome.state.opt_state)}
    assert counts == {"ScaleByAdamState": 2, "ScaleByScheduleState": 1}
    model = read_metadata(outcome.files["checkpoint"]).model
    assert model.statistics == PUBLISHED_STATISTICS["bigearthnet_v1"]
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
        for part in state:
            yield from _counted(part)


@pytest.mark.usefixtures("no_drawing")
def test_fine_tuning_from_a_converted_checkpoint(converted, built, tmp_path):
    arguments = f"task=classification,init={converted['pretraining']}"
    finetune.train(small_tuning(built, arguments, total_steps=1), tmp_path / "run")
    files = evaluate(tmp_path / "run")
    about = json.loads(files["metrics.json"].read_text())["about"]
    assert about["overlap with training"].startswith("at least 0 of 2 images were seen")
    assert about["encoder"]["dataset"] == "not known"
    out = tmp_path / "back.pth"
    status, output, errors = call(convert.main, "to-torch", tmp_path / "run", f"--out={out}")
    assert status == 0, errors
    assert f"{len(arrays(out))} tensors of custom (classification)" in output


@pytest.mark.usefixtures("no_drawing")
def test_a_converted_flood_detector_is_evaluated(converted, floods, tmp_path):
    """With the tiles that it was trained with, so without evidence by tile."""
    files = evaluate(
        converted["flood"], dataset="flood_pairs/own", data_dir=str(floods), out=tmp_path / "report"
    )
    assert "evidence.npz" not in files
    about = json.loads(files["metrics.json"].read_text())["about"]
    assert "converted from mixmim_tiny_flood.pth" in about["trained on"]


def test_features_of_a_converted_encoder(converted, built):
    encoder = find_source_checkpoint(converted["pretraining"])
    patches = load_embedding_dataset(encoder, "bigearthnet_s1", str(built), "test")
    outputs = embed(encoder, patches, resize_mode="resize", dtype="float32", batch_size=4)
    assert outputs["features"].shape == (2, 16)


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
