"""The wheel runs the main job from any folder, without the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.shrink import flags

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from sar_mixmae_jax.cli import main; main()"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder with the content of the wheel, as pip would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, f"--wheel-dir={folder}", ROOT], check=True)
    (path,) = folder.glob("*.whl")
    zipfile.ZipFile(path).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """Run `sar-mixmae` of the wheel in a folder and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_packages_configurations_and_templates(installed):
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "sar_mixmae_jax",
        "tfds_builders",
    }
    assert (installed / "sar_mixmae_jax/configs/pretrain.py").is_file()
    assert (installed / "sar_mixmae_jax/run_report/page.html.j2").is_file()


def test_the_wheel_builds_a_dataset_and_trains(installed, tmp_path):
    options = ("--patches=8", "--size=32", "--processes=1")
    assert "train, 8 patches" in run(installed, tmp_path, "build", "synthetic_s1/few", *options)
    settings = flags(Path("data"), dataset="synthetic_s1/few", total_steps=1, split="train")
    arguments = ("--config=pretrain", *settings[1:], "--workdir=run")
    assert "done: 1 steps of tiny" in run(installed, tmp_path, "train", *arguments)
    assert (tmp_path / "run/summary.html").is_file()
