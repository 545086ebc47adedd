"""Cost of converting a model of full size: `python -m tests.campaigns.convert --variant=large`.

A PyTorch file of random tensors, with the state of an optimizer, is converted from PyTorch with and
without the optimizer, and back to PyTorch, each in a process of its own. Time and peak memory of
the conversions are printed, and the tensors of both files are compared.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from absl import app, flags
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.torch_interop import tensor_files
from sar_mixmae_jax.torch_interop.infer_architecture import InferredModel, expected_shapes
from sar_mixmae_jax.torch_interop.name_mapping import make_buffers, torch_layout, torch_name
from sar_mixmae_jax.torch_interop.optimizer_state import numbered_params
from tests.launch import ROOT, environment

VARIANT = flags.DEFINE_string("variant", "base", "an entry of VARIANTS")
FOLDER = flags.DEFINE_string("folder", None, "folder for the files; a temporary one by default")


def main(argv: Sequence[str]) -> None:
    """Convert a model in both directions, print a table and compare the tensors."""
    del argv
    with tempfile.TemporaryDirectory(dir=FOLDER.value) as name:
        folder = Path(name)
        path, exported, workdir = folder / "model.pth", folder / "back.pth", folder / "run"
        write_model(path, VARIANT.value)
        size = path.stat().st_size
        print(f"| {VARIANT.value}, {size / 1e9:.2f} GB | seconds | peak memory | … of the file |")
        print("|---|---:|---:|---:|")
        from_torch = ("from-torch", path, "--statistics=bigearthnet_v2")
        conversions = {
            "from-torch": (*from_torch, f"--workdir={workdir}"),
            "from-torch --nooptimizer": (
                *from_torch,
                f"--workdir={workdir}_model",
                "--nooptimizer",
            ),
            "to-torch": ("to-torch", workdir, f"--out={exported}"),
        }
        for title, arguments in conversions.items():
            seconds, peak = measure_command(*map(str, arguments))
            print(f"| {title} | {seconds:.1f} | {peak / 1e9:.2f} GB | {peak / size:.2f} |")
        before, after = (tensor_files.read_tensor_file(file).tensors for file in (path, exported))
        are_equal = before.keys() == after.keys()
        are_equal = are_equal and all(np.array_equal(before[name], after[name]) for name in before)
        print(f"\n{len(before)} tensors, {'equal bit by bit' if are_equal else 'DIFFERENT'}")
        sys.exit(not are_equal)


def write_model(path: Path, variant: str) -> None:
    """Write a PyTorch file of a pretraining model with random parameters and moments."""
    arch, rng = VARIANTS[variant], np.random.default_rng(0)
    shapes = flatten_dict(expected_shapes(InferredModel("pretraining", variant, arch, 0)), sep="/")
    tensors = {
        torch_name(name): torch_layout(name, rng.standard_normal(leaf.shape, np.float32), arch)
        for name, leaf in shapes.items()
    }
    names = sorted(numbered_params(arch), key=lambda name: tensors[name].ndim > 1)
    undecayed = sum(tensors[name].ndim <= 1 for name in names)
    state = {
        number: {
            "step": torch.tensor(12.0),
            "exp_avg": torch.randn(tensors[name].shape),
            "exp_avg_sq": torch.rand(tensors[name].shape),
        }
        for number, name in enumerate(names)
    }
    groups = [
        {"params": list(range(undecayed)), "weight_decay": 0.0, "lr": 1e-3},
        {"params": list(range(undecayed, len(names))), "weight_decay": 0.05, "lr": 1e-3},
    ]
    model = tensors | make_buffers(arch, decoder=True)
    content = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in model.items()}
    torch.save({"model": content, "optimizer": {"state": state, "param_groups": groups}}, path)


def measure_command(*arguments: str) -> tuple[float, int]:
    """Run `convert` in a process of its own; return seconds and peak resident memory in bytes."""
    code = (
        "import json, resource, subprocess, sys; "
        "command = [sys.executable, '-m', 'sar_mixmae_jax.cli.convert', *sys.argv[1:]]; "
        "process = subprocess.run(command); "
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss; "
        "print(json.dumps([process.returncode, peak]))"
    )
    start = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, env=environment(1), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    status, peak = json.loads(process.stdout.splitlines()[-1])
    if status:
        sys.exit(f"{arguments[0]} ended with {status}")
    return time.monotonic() - start, peak * 1024


if __name__ == "__main__":
    app.run(main)
