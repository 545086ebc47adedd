"""Files of other trainings: order and prefixes of tensors, averages, extra tensors, formats."""

import dataclasses
import gc
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from sar_mixmae_jax.cli import convert
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.objectives.speckle_filter import SpeckleFilter
from sar_mixmae_jax.torch_interop.converted_run import describe_conversion, initial_state
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, convert_model, from_torch
from sar_mixmae_jax.torch_interop.optimizer_state import numbered_params
from sar_mixmae_jax.torch_interop.tensor_files import Selection, TensorFile, read_tensor_file
from sar_mixmae_jax.torch_interop.tensor_metadata import metadata_from_text, metadata_to_text
from sar_mixmae_jax.torch_interop.to_torch import exported_metadata, exported_model, to_torch
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from tests.launch import call
from tests.torch_interop.golden_files import arrays, choices, content_of, file_of, written

try:
    import safetensors.numpy
    import torch
except ImportError:
    torch = None

pytestmark = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_pytorch_numbers_parameters_in_the_order_of_the_published_class(golden):
    state = json.loads((golden.folder / "parameters.json").read_text())["mixmim_base"]["state"]
    trained = [name for name in state if not name.endswith(("_pos_embed", "position_index"))]
    assert [n for n in trained if n != "absolute_pos_embed"] == numbered_params(VARIANTS["base"])
    stored = [name for name in arrays(file_of(golden)) if not name.endswith(("_embed", "_index"))]
    assert stored == numbered_params(golden.architecture())


def test_moments_do_not_depend_on_the_order_of_a_file(golden, tmp_path):
    """Files of other tools store the bias of a LayerNorm before its weight."""
    file = read_tensor_file(file_of(golden))
    options = choices(golden)
    other = TensorFile(dict(sorted(file.tensors.items())), file.optimizer)
    assert [*other.tensors] != [*file.tensors]
    expected, found = (convert_model(one, None, options, tmp_path).moments for one in (file, other))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_prefixes_of_wrapped_models_are_removed(golden, tmp_path, prefix, zipped):
    tensors = content_of(file_of(golden, "_flood"))["model"]
    path = tmp_path / "wrapped.pth"
    model = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({"model": model}, path, _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensor_file(path).tensors, arrays(file_of(golden, "_flood")))


def test_a_moving_average_is_mentioned_and_can_be_chosen(golden, tmp_path, caplog):
    tensors = arrays(file_of(golden, "_classify"))
    average = {name: tensor + tensor.dtype.type(1) for name, tensor in tensors.items()}
    torch_average = {f"module.{name}": torch.as_tensor(t) for name, t in average.items()}
    path = written(tmp_path / "both.pth", tensors, model_ema=torch_average, optimizer={"state": {}})
    assert_equal(read_tensor_file(path).tensors, tensors)
    assert "--weights=model_ema" in caplog.text
    file = read_tensor_file(path, Selection("model_ema"))
    assert_equal(file.tensors, average)
    assert file.optimizer is None
    assert "the optimizer belongs to other weights" in caplog.text
    torch.save({"model_ema": torch_average}, path)
    with pytest.raises(InputError, match="holds no model: choose --weights=model_ema"):
        read_tensor_file(path)
    with pytest.raises(InputError, match="holds no model_ema: choose --weights=model"):
        read_tensor_file(written(path, tensors), Selection("model_ema"))
    with pytest.raises(InputError, match="unknown --weights 'ema'"):
        choices(golden, weights="ema").check()


def test_named_extra_tensors_are_left_out(golden, tmp_path):
    tensors = arrays(file_of(golden, "_classify"))
    extra = {"teacher.a": np.zeros(3), "teacher.b": np.zeros(3), "queue": np.zeros(3)}
    path = written(tmp_path / "extra.pth", tensors | extra)
    with pytest.raises(InputError, match=r"queue, teacher\.a, .*--ignore_unexpected=NAME"):
        from_torch(path, tmp_path / "run", choices(golden))
    options = choices(golden, ignore_unexpected=("teacher.*", "queue"))
    made = from_torch(path, tmp_path / "run", options)
    assert read_metadata(made.checkpoint).model.converted["ignored"] == sorted(extra)
    with pytest.raises(InputError, match="no tensor 'student', which --ignore_unexpected"):
        read_tensor_file(path, Selection(ignored=("student",)))
    with pytest.raises(InputError, match=r"missing norm\.weight"):  # it is no extra one
        convert_model(
            read_tensor_file(path, Selection(ignored=("teacher.*", "queue", "norm.weight"))),
            None, choices(golden), path,
        )  # fmt: skip


def test_formats_are_recognised_by_content(golden, tmp_path):
    tensors = arrays(file_of(golden, "_flood"))
    safetensors.numpy.save_file(tensors, path := tmp_path / "named.pth")
    assert_equal(read_tensor_file(path).tensors, tensors)
    torch_file = written(tmp_path / "model.pth", tensors)
    assert_equal(read_tensor_file(torch_file.rename(tmp_path / "a.safetensors")).tensors, tensors)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the maps of Linux")
def test_tensors_that_are_not_used_stay_in_the_file(golden, tmp_path):
    """The state of an optimizer is twice as large as the model; afterwards nothing is mapped."""
    path = tmp_path / "mapped.pth"
    path.write_bytes(file_of(golden).read_bytes())

    def is_mapped() -> bool:
        gc.collect()
        return str(path) in Path("/proc/self/maps").read_text()

    file = read_tensor_file(path)
    assert is_mapped()
    converted = convert_model(file, None, choices(golden), path)
    state = initial_state(converted.params, converted.moments)
    assert is_mapped()
    del file, converted
    assert not is_mapped()
    assert int(state.step) == 12


def test_spatial_flood_models_differ_from_the_published_class(golden, tmp_path, caplog):
    options = choices(golden, tiling="spatial")
    run = from_torch(file_of(golden, "_flood"), tmp_path / "run", options).checkpoint.parents[1]
    out = tmp_path / "flood.pth"
    with pytest.raises(InputError, match=r"tiling=spatial.*other logits.*leave out --require_pub"):
        to_torch(run, out, require_published_semantics=True)
    assert not out.exists()
    to_torch(run, out)
    assert "returns other logits" in caplog.text
    (caveat,) = json.loads(content_of(out)["sar_mixmae_jax"])["caveats"]
    assert "two neighbouring tiles of one band" in caveat
    source = find_source_checkpoint(run)
    speckle = SpeckleFilter("lee", apply_to="input_and_target")
    model = dataclasses.replace(source.metadata.model, speckle=speckle)
    filtered = dataclasses.replace(
        source, metadata=dataclasses.replace(source.metadata, model=model)
    )
    metadata = exported_metadata(filtered, exported_model(filtered))
    assert "inputs with reduced speckle (lee, window 7, 4.4 looks)" in metadata.caveats[-1]
    read = metadata_from_text(metadata_to_text(metadata))
    assert read.speckle == speckle
    described = describe_conversion(
        exported_model(filtered), (), BANDS, source.statistics, read, None, {"file": "a.pth"}, {}
    )
    assert described.model.speckle == speckle
    segmenter = dataclasses.replace(model, task="segmentation", classes=("land", "water"))
    segmenter = dataclasses.replace(
        source, metadata=dataclasses.replace(source.metadata, model=segmenter)
    )
    with pytest.raises(InputError, match="is a model of segmentation, whose decoder the publ"):
        exported_model(segmenter)
    again = from_torch(out, tmp_path / "again", ImportOptions(tiling="released"))
    to_torch(again.checkpoint.parents[1], out, require_published_semantics=True)


def test_flags_of_the_command_reach_the_import(golden, tmp_path):
    for flag, message in (
        ("--weights=ema", "unknown --weights 'ema'"),
        ("--ignore_unexpected=queue,teacher.*", "has no tensor 'queue', which --ignore_unexpected"),
    ):
        status, _, errors = call(
            convert.main, "from-torch", file_of(golden), f"--workdir={tmp_path / 'run'}", flag
        )
        assert (status, message in errors) == (2, True), errors
