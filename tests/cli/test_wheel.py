"""The wheel runs the main job from any folder, without the source tree and without TensorFlow."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

from sar_mixmae_jax.cli import train
from tests.launch import call
from tests.shrink import flags

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from sar_mixmae_jax.cli import main; main()"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a folder with the content of the wheel, as pip would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        wheel = folder / build_wheel(str(folder))
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> tuple[str, str]:
    """Run `sar-mixmae` of the wheel in a folder and return its output and its errors."""
    (folder / "poison").mkdir(exist_ok=True)
    (folder / "poison/tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')\n")
    path = f"{folder / 'poison'}:{installed}"
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr


def test_the_wheel_holds_packages_configurations_and_templates(installed):
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "sar_mixmae_jax",
        "tfds_builders",
    }
    assert (installed / "sar_mixmae_jax/configs/pretrain.py").is_file()
    assert (installed / "sar_mixmae_jax/run_report/page.html.j2").is_file()


def test_raw_patches_to_checkpoint_and_picture(installed, raw, tmp_path):
    """One command to build, one to train, one more to find it done."""
    output, _ = run(installed, tmp_path, "build", "bigearthnet_s1", f"--manual_dir={raw}")
    assert "bigearthnet_s1/v1/2.0.0: train, 8 patches" in output

    settings = flags(Path("data"), total_steps=2, checkpoint_every=2, picture_patches=1)
    arguments = ("--config=pretrain", *settings[1:], f"--workdir={tmp_path / 'run'}")
    output, errors = run(installed, tmp_path, "train", *arguments)
    assert "done: 2 steps of tiny on bigearthnet_s1/v1/2.0.0/train+validation" in output
    assert "(spatially dependent split)" in output
    assert "step 2/2" in errors
    named = [line.split(": ")[1] for line in output.splitlines() if line[:2] == "  "]
    assert len(named) == 6
    assert all(Path(path).exists() for path in named)
    losses = (tmp_path / "run/metrics.jsonl").read_text()
    assert json.loads(losses.splitlines()[1])["step"] == 1

    _, again, _ = call(train.main, *arguments, f"--config.data_dir={tmp_path / 'data'}")
    passing = ("compiling the step", "records:")  # lines about what is done only once
    kept = [line for line in output.splitlines() if not line.startswith(passing)]
    complete = "the run is complete, with 2 steps: nothing is trained"
    assert complete in again
    assert [line for line in again.splitlines() if line != complete] == kept
    assert (tmp_path / "run/metrics.jsonl").read_text() == losses
