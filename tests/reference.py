"""Tensors and golden folders of the PyTorch reference: names, layouts and models."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from sar_mixmae_jax.models.architecture import Architecture

RENAMES = (
    (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"encoder/stage_\1_block_\2/"),
    (r"^layers\.(\d+)\.downsample\.", r"encoder/merge_\1/"),
    (r"^patch_embed\.", "encoder/patch_embed/"),
    (r"^norm\.", "encoder/norm/"),
    (r"^decoder_blocks\.(\d+)\.attn\.", r"decoder/block_\1/"),
    (r"^decoder_blocks\.(\d+)\.", r"decoder/block_\1/"),
    (r"^decoder_", "decoder/"),
    (r"^mask_token$", "decoder/mask_token"),
    (r"relative_position_bias_table$", "bias_table"),
    (r"norm(\d?)([./])weight$", r"norm\1\2scale"),
    (r"weight$", "kernel"),
    (r"\.", "/"),
)
BUFFERS = ("absolute_pos_embed", "decoder_pos_embed", "relative_position_index")


def parameter_path(name: str) -> str:
    """Return the path of a tensor in this project's parameters, by its PyTorch name."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def parameter_layout(name: str, tensor: np.ndarray) -> np.ndarray:
    """Return a tensor of the reference in this project's layout."""
    if name == "patch_embed.proj.weight":  # (out, band, row, column)
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    if name.endswith(".weight") and tensor.ndim == 2:
        return tensor.T
    return tensor


def params_from(tensors: Mapping[str, np.ndarray]) -> dict:
    """Return the parameter tree of the reference's tensors, buffers left out."""
    flat = {
        parameter_path(name): parameter_layout(name, np.asarray(tensor))
        for name, tensor in tensors.items()
        if not name.endswith(BUFFERS)
    }
    return unflatten_dict(flat, sep="/")


def compare_trees(
    tree: dict, tensors: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (PyTorch name, value, expected value) of every tensor.

    The bias of the keys is left out: a constant added to every key cancels in the softmax, so that
    its gradient is rounding error.

    Args:
      tree: parameters or gradients of this project.
      tensors: the same of the reference, by PyTorch name.
    """
    flat = flatten_dict(tree, sep="/")
    assert set(flat) == {parameter_path(name) for name in tensors}
    for name, tensor in tensors.items():
        value, expected = np.asarray(flat[parameter_path(name)]), parameter_layout(name, tensor)
        if name.endswith("qkv.bias"):
            keep = np.arange(expected.size) // (expected.size // 3) != 1
            value, expected = value[keep], expected[keep]
        yield name, value, expected


class Arrays(dict[str, np.ndarray]):
    """Arrays of a file by name; a test that reads a missing array is skipped, with its name."""

    def __init__(self, path: Path) -> None:
        super().__init__(np.load(path) if path.exists() else {})
        self.path = path

    def __missing__(self, name: str) -> np.ndarray:
        pytest.skip(f"{self.path} has no array {name!r}")


def architecture_from(tensors: Mapping[str, np.ndarray], image_size: int) -> Architecture:
    """Return the sizes of an encoder from its tensors.

    Args:
      tensors: tensors by PyTorch name.
      image_size: side of the images, used if no tensor determines it.
    """
    depths: list[int] = []
    tables = {}
    for name, tensor in tensors.items():
        if block := re.match(r"layers\.(\d+)\.blocks\.(\d+)\..*bias_table$", name):
            stage = int(block[1])
            depths.extend([0] * (stage + 1 - len(depths)))
            depths[stage] += 1
            tables[stage] = tensor.shape
    positions = tensors.get("absolute_pos_embed")
    kernel = tensors["patch_embed.proj.weight"]
    if positions is not None:
        image_size = round(positions.shape[1] ** 0.5) * kernel.shape[-1]
    return Architecture(
        embed_dim=kernel.shape[0],
        bands=kernel.shape[1],
        patch_size=kernel.shape[-1],
        depths=tuple(depths),
        num_heads=tuple(tables[stage][1] for stage in range(len(depths))),
        window_sizes=tuple(
            (round(tables[stage][0] ** 0.5) + 1) // 2 for stage in range(len(depths))
        ),
        image_size=image_size,
    )


class Golden:
    """A golden folder, with the files of `tests/golden`.

    `config.json`, `mixmim_*.npz` and `pretrain.npz` are required. A test that needs another file is
    skipped if it is missing, with its name. Nothing is read from other folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads(self.path("config.json").read_text())
        self.pretrain = Arrays(self.path("pretrain.npz"))
        self.finetune = Arrays(folder / "finetune.npz")
        self.tensors = dict(np.load(self.path("mixmim_*.npz")))

    def path(self, pattern: str) -> Path:
        """Return the first path that matches a pattern; skip the test if there is none."""
        paths = sorted(self.folder.glob(pattern))
        if not paths:
            pytest.skip(f"{self.folder} has no {pattern}")
        return paths[0]

    def pretrain_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays of `pretrain.npz` with a prefix, by the rest of their name."""
        arrays = {
            name.removeprefix(prefix): array
            for name, array in self.pretrain.items()
            if name.startswith(prefix)
        }
        if not arrays:
            pytest.skip(f"{self.folder / 'pretrain.npz'} has no array under {prefix!r}")
        return arrays

    def architecture(self) -> Architecture:
        """Return the sizes of the pretraining model."""
        config = self.config
        return Architecture(
            embed_dim=config["embed"],
            depths=tuple(config["depths"]),
            num_heads=tuple(config["heads"]),
            window_sizes=tuple(config["window"]),
            image_size=config["img"],
            decoder_embed_dim=config["dd"],
            decoder_depth=config["ddep"],
            decoder_num_heads=config["dh"],
        )

    def params(self) -> dict:
        """Return the parameters of the pretraining model."""
        return params_from(self.tensors)

    def finetuned(self, kind: str) -> tuple[Architecture, dict, int]:
        """Return architecture, parameters and number of outputs of a fine-tuned model.

        Args:
          kind: task of the model, "classify" or "flood".
        """
        arrays = self.folder / f"finetuned_{kind}.npz"  # the same tensors, readable without torch
        if arrays.exists():
            tensors = dict(np.load(arrays))
        else:
            path = self.path(f"mixmim_*_{kind}.pth")
            torch = pytest.importorskip("torch", reason=f"{path} is read by PyTorch")
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("model", state)
            tensors = {name: tensor.numpy() for name, tensor in state.items()}
        tensors = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}
        outputs = tensors["head.weight"].shape[0]
        return architecture_from(tensors, self.config["img"]), params_from(tensors), outputs


def nhwc(images: np.ndarray) -> np.ndarray:
    """Return (batch, band, row, column) images as (batch, row, column, band)."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def relative_error(value: np.ndarray, expected: np.ndarray) -> float:
    """Return the norm of the difference over the norm of the expected value.

    If the latter is 0, the largest absolute value is returned.
    """
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    assert value.shape == expected.shape, f"{value.shape} != {expected.shape}"
    scale = np.linalg.norm(expected)
    return float(np.linalg.norm(value - expected) / scale) if scale else float(np.abs(value).max())
