"""Weights from PyTorch and back: bit by bit, on the golden files and on files from elsewhere."""

import argparse
import json
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS
from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.models.heads import Classifier, FloodDetector
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.torch_interop import published_checkpoints, tensor_files
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, from_torch
from sar_mixmae_jax.torch_interop.infer_architecture import InferredModel, expected_shapes
from sar_mixmae_jax.torch_interop.name_mapping import (
    make_buffers,
    torch_layout,
    torch_name,
    torch_parameters,
)
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.training import checkpoint, initialisation
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.optimizer import adamw
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.utils.errors import InputError
from tests.reference import compare_trees, here, nhwc, params_from, relative_error, to_here

try:
    import safetensors.numpy
    import torch
except ImportError:
    torch = None

pytestmark = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")

TOLERANCE = 1e-5
V2 = PUBLISHED_STATISTICS["bigearthnet_v2"]


def choices(golden, **more) -> ImportOptions:
    heads = golden.config["dh"]
    return ImportOptions(**{"statistics": "bigearthnet_v2", "decoder_num_heads": heads, **more})


def file_of(golden, kind: str = "") -> Path:
    """The golden checkpoint of a model: pretraining, "_classify" or "_flood"."""
    return golden.path(f"{golden.path('mixmim_*.npz').stem}{kind}.pth")


def content_of(path: Path) -> dict:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


def arrays(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in content_of(path)["model"].items()}


def written(path: Path, model: dict, **more) -> Path:
    """A checkpoint with changed tensors."""
    torch.save({"model": {n: torch.as_tensor(t) for n, t in model.items()}, **more}, path)
    return path


def params_of(checkpoint: Path, kind: str, outputs: int = 0) -> dict:
    found = initialisation.find_source_checkpoint(checkpoint)
    like = expected_shapes(InferredModel(kind, found.variant, found.arch, outputs))
    return read_subtree(checkpoint, {"params": like})["params"]


@pytest.fixture(scope="module")
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


# ---- parity


def test_the_reconstruction_of_a_converted_pretraining(golden, imported):
    found = initialisation.find_source_checkpoint(imported["pretraining"])
    assert found.arch == golden.architecture()
    assert (found.statistics, found.bands) == (V2, ("VH", "VV"))
    params = params_of(imported["pretraining"], "pretraining")
    images = nhwc(golden.pretrain["x"])
    mask = jnp.asarray(golden.pretrain["mask"].reshape(found.arch.mask_grid, -1))
    model = MixMAE(found.arch)
    tokens = jax.jit(lambda p: model.apply({"params": p}, images, mask, method="encode"))(params)
    theirs = golden.pretrain["encoder_tokens"]
    assert relative_error(tokens.reshape(theirs.shape), theirs) < TOLERANCE
    decode = jax.jit(lambda p, t: model.apply({"params": p}, t, mask, method="decode"))
    theirs = golden.pretrain["norm_pix=1/weighting=none/reconstruction"]
    assert relative_error(decode(params, tokens), theirs) < TOLERANCE


def test_the_logits_of_a_converted_classifier(golden, imported):
    found = initialisation.find_source_checkpoint(imported["classify"])
    values = golden.finetune
    params = params_of(imported["classify"], "classification", 19)
    model = Classifier(found.arch, 19)
    logits = jax.jit(lambda p: model.apply({"params": p}, nhwc(values["classify/x"])))(params)
    assert relative_error(logits, values["classify/logits"]) < TOLERANCE
    assert read_metadata(imported["classify"]).model.classes[1].startswith("Industrial")


@pytest.mark.parametrize("tiling", ["released", "spatial"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_logits_of_a_converted_flood_detector(golden, imported, tiling, pooling):
    values = golden.finetune
    params = params_of(imported["flood"], "flood", 2)
    arch = initialisation.find_source_checkpoint(imported["flood"]).arch
    model = FloodDetector(arch, 2, tiling=tiling, pooling=pooling)
    dates = nhwc(values["flood/before"]), nhwc(values["flood/after"])
    logits = jax.jit(lambda p: model.apply({"params": p}, *dates))(params)
    name = {"mean": "avg", "max": "max"}[pooling] + ("_spatial" if tiling == "spatial" else "")
    assert relative_error(logits, values[f"flood/logits_{name}"]) < TOLERANCE


# ---- bit by bit


@pytest.mark.parametrize(
    ("kind", "task", "outputs"),
    [("", "pretraining", 0), ("_classify", "classification", 19), ("_flood", "flood", 2)],
)
def test_parameters_are_those_that_the_golden_tests_compute_with(
    golden, imported, kind, task, outputs
):
    """So whatever they prove of losses, gradients and steps holds for converted files."""
    found = params_of(imported[kind.lstrip("_") or task], task, outputs)
    expected = flatten_dict(params_from(arrays(file_of(golden, kind))), sep="/")
    assert expected.keys() == flatten_dict(found, sep="/").keys()
    for name, tensor in flatten_dict(found, sep="/").items():
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
    assert initialisation.find_source_checkpoint(again.checkpoint).statistics.std == V2.std
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
    note["bands"] = ["VV", "VH"]
    torch.save(content | {"sar_mixmae_jax": json.dumps(note)}, path)
    with pytest.raises(
        InputError, match="expects the bands VV, VH; only models of VH, VV in this order"
    ):
        from_torch(path, tmp_path / "one", choices(golden))


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


@pytest.mark.parametrize(
    "size",
    [
        VARIANTS["tiny"],
        VARIANTS["tiny"].__class__(
            embed_dim=24, num_heads=(2, 3, 6, 12), depths=(1, 2, 1, 1), window_sizes=(4, 4, 4, 2),
            image_size=64,
            decoder_embed_dim=48, decoder_depth=1, decoder_num_heads=3,
        ),
    ],
    ids=["tiny", "other"],
)  # fmt: skip
def test_other_sizes_there_and_back(size, tmp_path):
    """From here, as the reference names it, by names and layouts that the tests know."""
    found = InferredModel("pretraining", "custom", size, 0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), expected_shapes(found)
    )
    flat = flatten_dict(params, sep="/")
    tensors = {torch_name(name): torch_layout(name, array, size) for name, array in flat.items()}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(to_here(name, tensor), flat[here(name)])
    tensors |= make_buffers(size, decoder=True)
    path = written(tmp_path / "model.pth", tensors)
    heads = None if size == VARIANTS["tiny"] else 3
    asked = ImportOptions(statistics="-19,-12,5.5,5", decoder_num_heads=heads)
    made = from_torch(path, tmp_path / "run", asked)
    assert made.model.arch == size
    assert made.model.variant == ("tiny" if heads is None else "custom")
    to_torch(tmp_path / "run", tmp_path / "back.pth")
    for name, tensor in arrays(tmp_path / "back.pth").items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


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
    updates, _ = optimizer.update(params_from(gradient), state, params)
    after = optax.apply_updates(params, updates)
    for name, ours, tensor in compare_trees(after, {n: p.detach().numpy() for n, p in own.items()}):
        before = to_here(name, content["model"][name].numpy())
        if name.endswith("qkv.bias"):  # without its key third
            before = before[np.arange(before.size) // (before.size // 3) != 1]
        assert relative_error(ours - before, tensor - before) < 1e-4, name
    assert read_metadata(imported["pretraining"]).step == 12


# ---- another input size


def test_another_input_size_on_the_way_in(golden, tmp_path):
    values = golden.finetune
    asked = choices(golden, image_size=256)
    made = from_torch(file_of(golden), tmp_path / "run", asked)
    arch = initialisation.find_source_checkpoint(made.checkpoint).arch
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
    assert initialisation.find_source_checkpoint(again.checkpoint).arch == arch


# ---- what cannot be used


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(golden, tmp_path, zipped):
    made = tmp_path / "made"
    path = tmp_path / "bomb.pth"
    content = {"model": content_of(file_of(golden))["model"], "args": Bomb(made)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"open"):
        from_torch(path, tmp_path / "run", choices(golden))
    assert not made.exists()
    assert not (tmp_path / "run").exists()
    torch.load(path, weights_only=False)  # the bomb is one
    assert made.exists()


def changed(golden, **changes) -> dict:
    """The golden pretraining with tensors changed; None takes one away."""
    tensors = arrays(file_of(golden)) | changes
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


NAN = np.full(64, np.nan, np.float32)
REFUSED = {
    "missing tensors": ({"norm.weight": None, "extra": NAN}, "missing norm.weight; unexpected ext"),
    "wrong shape": ({"norm.bias": NAN[:3]}, r"norm.bias is float32\(3,\), expected float32\(64,\)"),
    "not finite": ({"norm.bias": NAN}, "norm.bias is not finite"),
    "RGB": ({"patch_embed.proj.weight": np.zeros((8, 3, 4, 4), np.float32)}, "MixMIM of ImageNet"),
    "learned positions": ({"absolute_pos_embed": np.ones((1, 1024, 8), np.float32)}, "learned"),
    "no positions": ({"absolute_pos_embed": None}, "no absolute_pos_embed"),
    "no patches": ({"patch_embed.proj.weight": None}, "no patch_embed.proj.weight"),
    "other index": (
        {"layers.0.blocks.0.attn.relative_position_index": np.zeros((64, 64), np.int64)},
        "relative_position_index differs from the fixed one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_are_none_of_ours(golden, tmp_path, case):
    changes, message = REFUSED[case]
    path = written(tmp_path / "model.pth", changed(golden, **changes))
    with pytest.raises(InputError, match=message):
        from_torch(path, tmp_path / "run", choices(golden))
    assert not (tmp_path / "run").exists()


def test_tensors_that_occur_twice_or_belong_to_nothing(golden, tmp_path):
    tensors = arrays(file_of(golden, "_classify"))
    twice = {f"module.{name}": tensor for name, tensor in tensors.items()} | tensors
    safetensors.numpy.save_file(twice, tmp_path / "twice.safetensors")
    for path in (written(tmp_path / "twice.pth", twice), tmp_path / "twice.safetensors"):
        with pytest.raises(InputError, match="tensors of the same name"):
            from_torch(path, tmp_path / "run", choices(golden))
    for extra in ("head.bias", "any.relative_position_index"):
        odd = {n: t for n, t in tensors.items() if n != "head.weight"} | {extra: np.zeros(19)}
        path = written(tmp_path / "odd.pth", odd)
        with pytest.raises(InputError, match=f"unexpected .*{extra}"):
            from_torch(path, tmp_path / "run", choices(golden))
    torch.save({"model": {(1, 2): torch.ones(1)}}, tmp_path / "keys.pth")
    with pytest.raises(InputError, match="keys that are not strings"):
        from_torch(tmp_path / "keys.pth", tmp_path / "run", choices(golden))


def test_a_head_that_is_a_scalar(golden, tmp_path):
    tensors = arrays(file_of(golden, "_classify")) | {"head.weight": np.float32(1)}
    path = written(tmp_path / "model.pth", tensors)
    with pytest.raises(InputError, match=r"head.weight is \(\): expected 2 axes"):
        from_torch(path, tmp_path / "run", choices(golden))


def test_tensors_that_are_not_dense(golden, tmp_path):
    tensors = content_of(file_of(golden))["model"]
    one = tensors["norm.weight"]
    for odd in (one.to_sparse(), one.to(torch.complex64), torch.ones(1).expand(2**31), 5):
        torch.save({"model": {**tensors, "norm.weight": odd}}, path := tmp_path / "model.pth")
        with pytest.raises(InputError, match=r"norm.weight is not a dense tensor"):
            from_torch(path, tmp_path / "run", choices(golden))


def test_a_head_of_another_task_and_the_encoder_alone(golden, tmp_path):
    tensors = arrays(file_of(golden, "_classify"))
    tensors["head.weight"], tensors["head.bias"] = np.zeros((43, 64)), np.zeros(43)
    path = written(tmp_path / "model.pth", tensors)
    with pytest.raises(InputError, match="43 outputs, expected 19"):
        from_torch(path, tmp_path / "run", choices(golden))
    asked = choices(golden, encoder_only=True)
    made = from_torch(path, tmp_path / "run", asked)
    assert (made.model.kind, made.steps) == ("encoder", None)
    to_torch(tmp_path / "run", tmp_path / "back.pth")
    assert {*tensors} - {*arrays(tmp_path / "back.pth")} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_a_flipped_bit_becomes_no_weight(golden, tmp_path, where):
    content = bytearray(file_of(golden, "_flood").read_bytes())
    content[int(where * len(content))] ^= 2
    path = tmp_path / "flipped.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"flipped.pth is (cut off or )?damaged"):
        from_torch(path, tmp_path / "run", choices(golden))


@pytest.mark.parametrize("packed", [True, False])
def test_records_that_are_packed_or_too_short(golden, tmp_path, packed):
    """The archive is sound, and what is in it is not what it should be."""
    path = tmp_path / "odd.pth"
    with zipfile.ZipFile(file_of(golden, "_flood")) as old, zipfile.ZipFile(path, "w") as new:
        for one in old.infolist():
            data, how = old.read(one), zipfile.ZIP_STORED
            if one.filename.endswith("data/9"):
                how = zipfile.ZIP_DEFLATED if packed else how
                data = data if packed else data[: len(data) // 2]
            new.writestr(one.filename, data, how)
    with pytest.raises(InputError, match=r"odd.pth is (cut off, )?damaged"):
        from_torch(path, tmp_path / "run", choices(golden))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(golden, tmp_path, share):
    content = file_of(golden).read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut\.pth is (cut off|damaged)"):
        from_torch(path, tmp_path / "run", choices(golden))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(99)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_checkpoints(golden, tmp_path, content, suffix):
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"other\\{suffix} is"):
        from_torch(path, tmp_path / "run", choices(golden))


def test_an_optimizer_of_another_model(golden, tmp_path):
    content = content_of(file_of(golden))
    content["optimizer"]["state"].pop(3)
    torch.save(content, path := tmp_path / "model.pth")
    with pytest.raises(InputError, match="110 tensors, and the model 111"):
        from_torch(path, tmp_path / "run", choices(golden))
    made = from_torch(path, tmp_path / "run", choices(golden, optimizer=False))
    assert (made.steps, made.checkpoint.name) == (None, "0")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step", torch and torch.tensor(float("inf")), "trained for 12, inf steps"),
        ("step", -1, "expected one whole number"),
        ("step", 10**300, "expected one whole number"),
        ("exp_avg_sq", torch and -torch.ones(8), "not finite or negative"),
        ("exp_avg", torch and torch.ones(9), r"exp_avg of patch_embed.proj.bias is float32\(9,\)"),
    ],
)
def test_an_optimizer_with_wrong_values(golden, tmp_path, field, value, message):
    content = content_of(file_of(golden))
    content["optimizer"]["state"][0][field] = value
    torch.save(content, path := tmp_path / "model.pth")
    with pytest.raises(InputError, match=message):
        from_torch(path, tmp_path / "run", choices(golden))


def test_statistics_are_asked_for(golden, tmp_path):
    asked = choices(golden, statistics=None)
    with pytest.raises(InputError, match="give --statistics, one of bigearthnet_v1"):
        from_torch(file_of(golden), tmp_path / "run", asked)
    for wrong in ("bigearthnet", "1,2", "1,2,3,-4", "a,b,c,d", "1,2,nan,4", "1,2,1e-300,4"):
        with pytest.raises(InputError, match="--statistics"):
            published_checkpoints.choose_statistics(wrong, None, None)


def test_published_files_are_known_by_their_content(golden, tmp_path, monkeypatch, capsys):
    path = tmp_path / "benv1_pretrain_checkpoint_64.pth"
    path.write_bytes(file_of(golden).read_bytes())
    with pytest.raises(InputError, match="name of a published file and another content"):
        from_torch(path, tmp_path / "run", choices(golden))
    known = published_checkpoints.FILES[path.name]._replace(
        sha256=published_checkpoints.file_digest(path)
    )
    monkeypatch.setitem(published_checkpoints.FILES, path.name, known)
    asked = choices(golden, statistics=None)
    made = from_torch(path.rename(tmp_path / "any.pth"), tmp_path / "run", asked)
    assert "any.pth is benv1_pretrain_checkpoint_64.pth" in capsys.readouterr().out
    found = initialisation.find_source_checkpoint(made.checkpoint)
    assert found.statistics.std == PUBLISHED_STATISTICS["bigearthnet_v1"].std
    weighting = found.description.weighting
    assert (weighting.name, weighting.domain) == ("per_channel", "standardised")
    with pytest.raises(InputError, match="leave the flag out"):
        published_checkpoints.choose_statistics("bigearthnet_v2", known, None)


def test_folders_and_files_that_are_taken_or_wrong(golden, imported, tmp_path):
    taken = imported["flood"].parents[1]
    with pytest.raises(InputError, match="is not empty"):
        from_torch(file_of(golden), taken, choices(golden))
    with pytest.raises(InputError, match="cannot be read"):
        from_torch(tmp_path / "none.pth", tmp_path / "run", choices(golden))
    out = tmp_path / "out.onnx"
    with pytest.raises(InputError, match=r"ends with \.pth or \.safetensors"):
        to_torch(taken, out)
    (tmp_path / "kept.pth").write_text("what was there")
    with pytest.raises(InputError, match="holds no checkpoint"):
        to_torch(tmp_path / "none", tmp_path / "kept.pth")
    assert (tmp_path / "kept.pth").read_text() == "what was there"
    assert not [*tmp_path.glob(".*partial")]


def test_a_folder_that_somebody_takes_meanwhile_is_left_alone(golden, tmp_path, monkeypatch):
    """A run that begins while the file is read keeps what it has."""
    run, read = tmp_path / "run", tensor_files.read_tensor_file

    def slowly(path):
        (run / "checkpoints" / "7").mkdir(parents=True)
        (run / "run.json").write_text("{}")
        return read(path)

    monkeypatch.setattr(tensor_files, "read_tensor_file", slowly)
    with pytest.raises(InputError, match="is not empty"):
        from_torch(file_of(golden), run, choices(golden))
    assert (run / "checkpoints" / "7").exists()
    assert (run / "run.json").read_text() == "{}"


def test_nothing_is_left_of_a_conversion_that_fails(golden, tmp_path, monkeypatch):
    def fails(*given, **named):
        raise InputError("the disk is full")

    monkeypatch.setattr(checkpoint.CheckpointManager, "save", fails)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        from_torch(file_of(golden), tmp_path / "old", choices(golden))
    with pytest.raises(InputError, match="the disk is full"):
        from_torch(file_of(golden), tmp_path / "new", choices(golden))
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "mine.txt").read_text() == "kept"


def test_metadata_written_by_version_0_1_are_read(golden, imported, tmp_path):
    """They name the heads of the decoder `decoder_heads`."""
    to_torch(imported["pretraining"].parents[1], tmp_path / "new.pth")
    content = content_of(tmp_path / "new.pth")
    metadata = json.loads(content["sar_mixmae_jax"])
    metadata["decoder_heads"] = metadata.pop("decoder_num_heads")
    torch.save(content | {"sar_mixmae_jax": json.dumps(metadata)}, path := tmp_path / "old.pth")
    again = from_torch(path, tmp_path / "again", ImportOptions())
    assert again.model.arch == golden.architecture()


def test_the_metadata_of_a_file_are_not_trusted(golden, tmp_path):
    tensors = arrays(file_of(golden))
    for note in (
        "[]",
        "{",
        json.dumps({"statistics": {"mean": [1, 2], "std": [0, 1]}}),
        "[" * 9999,
    ):
        path = written(tmp_path / "model.pth", tensors, sar_mixmae_jax=note)
        with pytest.raises(InputError, match="give --decoder_num_heads"):
            from_torch(path, tmp_path / "run", ImportOptions(statistics="bigearthnet_v1"))
