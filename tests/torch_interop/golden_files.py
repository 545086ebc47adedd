"""The golden PyTorch files, their content, and changed copies of them."""

import argparse
from pathlib import Path

import numpy as np

from sar_mixmae_jax.torch_interop.from_torch import ImportOptions
from sar_mixmae_jax.torch_interop.infer_architecture import InferredModel, expected_shapes
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint

try:
    import torch
except ImportError:
    torch = None


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
    found = find_source_checkpoint(checkpoint)
    like = expected_shapes(InferredModel(kind, found.variant, found.arch, outputs))
    return read_subtree(checkpoint, {"params": like})["params"]
