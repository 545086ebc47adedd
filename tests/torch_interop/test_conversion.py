"""Conversion from PyTorch and back: bitwise equal parameters, equal outputs and equal steps."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS
from sar_mixmae_jax.models.architecture import VARIANTS, Architecture
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, from_torch
from sar_mixmae_jax.torch_interop.infer_architecture import (
    InferredModel,
    expected_shapes,
    infer_model,
)
from sar_mixmae_jax.torch_interop.name_mapping import (
    make_buffers,
    torch_layout,
    torch_name,
    torch_parameters,
)
from sar_mixmae_jax.torch_interop.published_checkpoints import choose_statistics
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.optimizer import adamw
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from tests.reference import (
    compare_trees,
    parameter_layout,
    parameter_path,
    params_from,
    relative_error,
)
from tests.torch_interop.golden_files import (
    arrays,
    choices,
    content_of,
    file_of,
    params_of,
    written,
)

try:
    import safetensors.numpy
    import torch
except ImportError:
    torch = None

pytestmark = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

TOLERANCE = 1e-5
V2 = PUBLISHED_STATISTICS["bigearthnet_v2"]


# ---- bit by bit


@pytest.mark.parametrize(
    ("kind", "task", "outputs"),
    [("", "pretraining", 0), ("_classify", "classification", 19), ("_flood", "flood", 2)],
)
def test_parameters_are_those_that_the_golden_tests_compute_with(
    golden, imported, kind, task, outputs
):
    """Their tokens, reconstructions, logits, losses, gradients and steps hold for the files."""
    source = find_source_checkpoint(imported[kind.lstrip("_") or task])
    arch = golden.finetuned(kind.lstrip("_"))[0] if kind else golden.architecture()
    assert source.arch == arch
    assert (source.statistics, source.bands) == (V2, ("VH", "VV"))
    if task == "classification":
        assert source.metadata.model.classes[1].startswith("Industrial")
    params = flatten_dict(params_of(source.path, task, outputs), sep="/")
    expected = flatten_dict(params_from(arrays(file_of(golden, kind))), sep="/")
    assert expected.keys() == params.keys()
    for name, tensor in params.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


@pytest.mark.parametrize("kind", ["pretraining", "classify", "flood"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back_is_equal_bit_by_bit(golden, imported, kind, suffix, tmp_path):
    before = arrays(file_of(golden, "" if kind == "pretraining" else f"_{kind}"))
    out = tmp_path / f"back{suffix}"
    to_torch(imported[kind].parents[1], out)
    load = {".pth": arrays, ".safetensors": safetensors.numpy.load_file}[suffix]
    after = load(out)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert after[name].flags.c_contiguous, name
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)
    again = from_torch(out, tmp_path / "again", ImportOptions())  # it says what it needs itself
    assert find_source_checkpoint(again.checkpoint).statistics.std == V2.std
    config = read_metadata(again.checkpoint).config
    assert config.get("tiling", "released") == "released"


def test_what_a_file_of_ours_says_comes_back(golden, imported, tmp_path):
    """Tiles of floods, and classes that are none of the published ones."""
    asked = choices(golden, tiling="spatial", pooling="max")
    from_torch(file_of(golden, "_flood"), tmp_path / "flood", asked)
    to_torch(tmp_path / "flood", tmp_path / "flood.pth")
    again = from_torch(tmp_path / "flood.pth", tmp_path / "again", ImportOptions())
    config = read_metadata(again.checkpoint).config
    assert (config["tiling"], config["pooling"]) == ("spatial", "max")

    to_torch(imported["classify"].parents[1], tmp_path / "classify.pth")
    content = content_of(tmp_path / "classify.pth")
    for name in ("head.weight", "head.bias"):
        content["model"][name] = content["model"][name][:3].clone()
    note = json.loads(content["sar_mixmae_jax"]) | {"classes": ["water", "land", "ice"]}
    torch.save(content | {"sar_mixmae_jax": json.dumps(note)}, path := tmp_path / "three.pth")
    made = from_torch(path, tmp_path / "three", ImportOptions())
    assert read_metadata(made.checkpoint).model.classes == ("water", "land", "ice")
    note["classes"] = ["water"]
    torch.save(content | {"sar_mixmae_jax": json.dumps(note)}, path)
    with pytest.raises(InputError, match="3 outputs, and classification has 1 class names"):
        from_torch(path, tmp_path / "one", ImportOptions())


def test_names_and_shapes_of_base_are_the_published_ones(golden):
    expected = json.loads((golden.folder / "parameters.json").read_text())["mixmim_base"]["state"]
    shapes = expected_shapes(InferredModel("pretraining", "base", VARIANTS["base"], 0))
    ours = {n: shape for n, (_, shape) in torch_parameters(shapes, VARIANTS["base"]).items()}
    ours |= {n: one.shape for n, one in make_buffers(VARIANTS["base"], decoder=True).items()}
    assert ours == {name: tuple(shape) for name, shape in expected.items()}


def test_floats_of_16_bits(golden, tmp_path, caplog):
    tensors = content_of(file_of(golden))["model"]
    halved = {n: t.bfloat16() if t.is_floating_point() else t for n, t in tensors.items()}
    path = written(tmp_path / "half.pth", halved)
    made = from_torch(path, tmp_path / "run", choices(golden))
    assert caplog.text.count("16 bits") == 1
    found = params_of(made.checkpoint, "pretraining")["encoder"]["norm"]["scale"]
    np.testing.assert_array_equal(found, halved["norm.weight"].float().numpy())


@pytest.mark.parametrize("bands", [("VH", "VV"), ("HH",)])
def test_a_variant_is_recognised_by_its_sizes(bands):
    """Also the heads of its decoder, which no shape shows."""
    arch = dataclasses.replace(VARIANTS["tiny"], bands=len(bands))
    shapes = expected_shapes(InferredModel("pretraining", "tiny", arch, 0))
    tensors = {
        name: np.zeros(shape, np.float32)
        for name, (_, shape) in torch_parameters(shapes, arch).items()
    }
    model = infer_model(tensors | make_buffers(arch, decoder=True), bands=bands)
    assert model == InferredModel("pretraining", "tiny", arch, 0)


def test_other_sizes_there_and_back(tmp_path):
    """From here, as the reference names it, by names and layouts that the tests know."""
    size = Architecture(
        embed_dim=24,
        num_heads=(2, 3, 6, 12),
        depths=(1, 2, 1, 1),
        window_sizes=(4, 4, 4, 2),
        image_size=64,
        decoder_embed_dim=48,
        decoder_depth=1,
        decoder_num_heads=3,
    )
    shapes = expected_shapes(InferredModel("pretraining", "custom", size, 0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    flat = flatten_dict(params, sep="/")
    tensors = {torch_name(name): torch_layout(name, array, size) for name, array in flat.items()}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(parameter_layout(name, tensor), flat[parameter_path(name)])
    tensors |= make_buffers(size, decoder=True)
    path = written(tmp_path / "model.pth", tensors)
    asked = ImportOptions(statistics="-19,-12,5.5,5", decoder_num_heads=3)
    imported_model = from_torch(path, tmp_path / "run", asked).model
    assert (imported_model.arch, imported_model.variant) == (size, "custom")
    to_torch(tmp_path / "run", tmp_path / "back.pth")
    for name, tensor in arrays(tmp_path / "back.pth").items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


def test_one_band_there_and_back(golden, tmp_path, caplog):
    """The bands of a file are told once; the export says them, and what the published class has."""
    arch = dataclasses.replace(golden.architecture(), bands=1)
    shapes = expected_shapes(InferredModel("encoder", "custom", arch, 0))
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, (_, shape) in torch_parameters(shapes, arch).items()
    }
    path = written(tmp_path / "one.pth", tensors | make_buffers(arch, decoder=False))
    with pytest.raises(InputError, match=r"is \(8, 1, 4, 4\), expected \(width, 2, .*--bands"):
        from_torch(path, tmp_path / "no", ImportOptions(statistics="-19,-12,5,5"))
    with pytest.raises(InputError, match="the model expects HH: give MEAN_HH,STD_HH in dB"):
        from_torch(path, tmp_path / "no", ImportOptions("bigearthnet_v1", bands=("HH",)))
    from_torch(path, tmp_path / "run", ImportOptions("-13,4.5", bands=("HH",)))
    to_torch(tmp_path / "run", tmp_path / "back.pth")
    assert "expects the bands HH: the published class loads it only with as many" in caplog.text
    for name, tensor in arrays(tmp_path / "back.pth").items():
        np.testing.assert_allclose(tensor, tensors.get(name, tensor), rtol=0, err_msg=name)
    again = from_torch(tmp_path / "back.pth", tmp_path / "again", ImportOptions())
    found = read_metadata(again.checkpoint).model
    assert (found.bands, found.statistics.mean, found.statistics.std) == (("HH",), (-13.0,), (4.5,))
    with pytest.raises(InputError, match="the metadata of the file have HH: leave the flag out"):
        from_torch(tmp_path / "back.pth", tmp_path / "no", ImportOptions(bands=("VV",)))
    with pytest.raises(InputError, match="expects the bands HH"):
        to_torch(tmp_path / "run", tmp_path / "strict.pth", require_published_semantics=True)


def test_one_of_two_published_statistics():
    """For an encoder of VV alone, as converted by others."""
    found = choose_statistics("bigearthnet_v2", None, None, ("VV",))
    assert (found.mean, found.std) == (V2.mean[1:], V2.std[1:])


def test_buffers_computed_elsewhere_are_accepted_and_recomputed(golden, tmp_path):
    """A file whose sine table is rounded otherwise converts; the export loads by name and shape."""
    tensors = arrays(file_of(golden))
    original = tensors["absolute_pos_embed"]
    tensors["absolute_pos_embed"] = np.nextafter(original, np.float32(9))
    path = written(tmp_path / "other.pth", tensors)
    from_torch(path, tmp_path / "run", choices(golden))
    to_torch(tmp_path / "run", tmp_path / "back.pth")
    back = arrays(tmp_path / "back.pth")
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in tensors.items()}
    np.testing.assert_allclose(back["absolute_pos_embed"], original, rtol=0, atol=1e-6)


# ---- the optimizer


def test_the_next_step_is_that_of_pytorch(golden, imported):
    """AdamW of PyTorch and ours go on from the golden state with the same gradient."""
    content = content_of(file_of(golden))
    names = [n for n in content["model"] if not n.endswith(("_embed", "_index"))]
    own = {name: torch.nn.Parameter(content["model"][name].clone()) for name in names}
    plain, decayed = (
        [own[n] for n in names if (own[n].ndim > 1) == is2d] for is2d in (False, True)
    )
    theirs = torch.optim.AdamW([{"params": plain}, {"params": decayed}])
    theirs.load_state_dict(content["optimizer"])
    rng = np.random.default_rng(1)
    gradient = {n: rng.normal(size=own[n].shape).astype(np.float32) for n in names}
    for name, parameter in own.items():
        parameter.grad = torch.from_numpy(gradient[name].copy())
    theirs.step()

    optimizer = adamw(lambda step: 1e-3, b1=0.9, b2=0.95, weight_decay=0.05)
    params = params_of(imported["pretraining"], "pretraining")
    like = {"opt_state": jax.eval_shape(optimizer.init, params)}
    state = read_subtree(imported["pretraining"], like)["opt_state"]
    updates, _ = jax.jit(optimizer.update)(params_from(gradient), state, params)
    after = optax.apply_updates(params, updates)
    for name, ours, tensor in compare_trees(after, {n: p.detach().numpy() for n, p in own.items()}):
        before = parameter_layout(name, content["model"][name].numpy())
        if name.endswith("qkv.bias"):  # without its key third
            before = before[np.arange(before.size) // (before.size // 3) != 1]
        assert relative_error(ours - before, tensor - before) < 1e-4, name
    assert read_metadata(imported["pretraining"]).step == 12


# ---- another input size


def test_another_input_size_on_the_way_in(golden, tmp_path):
    values = golden.finetune
    asked = choices(golden, image_size=256)
    made = from_torch(file_of(golden), tmp_path / "run", asked)
    arch = find_source_checkpoint(made.checkpoint).arch
    assert (arch.image_size, arch.pretrain_image_size, arch.window_sizes) == (
        256,
        128,
        (16, 16, 16, 8),
    )
    to_torch(tmp_path / "run", tmp_path / "back.pth")
    back = arrays(tmp_path / "back.pth")
    prefix = "resize_128_to_256/"
    for name in values:
        if name.startswith(prefix):
            theirs = values[name]
            assert relative_error(back[name.removeprefix(prefix)], theirs) < TOLERANCE, name
    again = from_torch(tmp_path / "back.pth", tmp_path / "again", ImportOptions())
    assert find_source_checkpoint(again.checkpoint).arch == arch


def test_metadata_written_by_version_0_1_are_read(golden, imported, tmp_path):
    """They name the heads of the decoder `decoder_heads`."""
    to_torch(imported["pretraining"].parents[1], tmp_path / "new.pth")
    content = content_of(tmp_path / "new.pth")
    metadata = json.loads(content["sar_mixmae_jax"])
    metadata["decoder_heads"] = metadata.pop("decoder_num_heads")
    torch.save(content | {"sar_mixmae_jax": json.dumps(metadata)}, path := tmp_path / "old.pth")
    again = from_torch(path, tmp_path / "again", ImportOptions())
    assert again.model.arch == golden.architecture()
