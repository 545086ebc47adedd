"""Files, options and folders that an import refuses, without running code or leaving output."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS
from sar_mixmae_jax.torch_interop import published_checkpoints, tensor_files
from sar_mixmae_jax.torch_interop.from_torch import ImportOptions, from_torch
from sar_mixmae_jax.torch_interop.to_torch import to_torch
from sar_mixmae_jax.training import checkpoint
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from tests.torch_interop.golden_files import (
    arrays,
    choices,
    content_of,
    file_of,
    written,
)

try:
    import safetensors.numpy
    import torch
except ImportError:
    torch = None

pytestmark = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


class Bomb:
    """An object whose unpickling creates a file."""

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
    with pytest.raises(InputError, match=r"open.*torch\.save\(.*weights_only=False"):
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
        ("exp_avg_sq", torch and -torch.ones(8), "has values that are not finite, or negative"),
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
    found = find_source_checkpoint(made.checkpoint)
    assert found.statistics.std == PUBLISHED_STATISTICS["bigearthnet_v1"].std
    assert found.description.weighting is None  # no file records it
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

    def slowly(*given):
        (run / "checkpoints" / "7").mkdir(parents=True)
        (run / "run.json").write_text("{}")
        return read(*given)

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
