"""The ways in which TFDS itself builds: its command, its import by path, Beam runners."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tfds_builders
from tfds_builders import plan
from tfds_builders.build import builder_names, make_builder
from tfds_builders.geotiff import write_bands
from tfds_builders.sen12_flood import imitation
from tfds_builders.synthetic_s1.synthetic_s1_dataset_builder import Builder, Config

ROOT = Path(tfds_builders.__file__).parents[1]


def read_back(folder) -> list[int]:
    """Checks that every record that the splits name can be read; returns the shards of train."""
    builder = tfds.builder_from_directory(folder)
    for split, info in builder.info.splits.items():
        source = builder.as_data_source(split)
        assert len({source[index]["id"] for index in range(len(source))}) == info.num_examples
    return builder.info.splits["train"].shard_lengths


def test_a_builder_that_is_imported_by_its_path_works_in_other_processes(tmp_path):
    """`tfds build` imports a builder under a name that no other process knows."""
    program = f"""
import sys
import tensorflow_datasets  # as its command has by then
sys.path.insert(0, {str(ROOT / "tfds_builders")!r})
from synthetic_s1.synthetic_s1_dataset_builder import Builder, Config
sys.path.pop(0)
if __name__ == "__main__":
    from tfds_builders.plan import Build
    config = Config(name="few", patches=1100, size=32)
    builder = Builder(data_dir={str(tmp_path)!r}, config=config, build=Build(processes=2))
    builder.download_and_prepare()
"""
    (tmp_path / "program.py").write_text(program)
    subprocess.run([sys.executable, str(tmp_path / "program.py")], cwd=ROOT, check=True)
    assert read_back(tmp_path / "synthetic_s1/few/1.0.0") == [550, 550]


def test_what_other_processes_call_is_not_in_a_builder_itself(raw, tmp_path):
    scene = np.random.default_rng(0).normal(-15, 3, (2, 64, 64)).astype(np.float32)
    write_bands(tmp_path / "a.tif", scene, descriptions=("VH", "VV"))
    options = {"s1_folder": {"unit": "dB", "size": 64}, "sen12_flood": {"size": 32}}
    imitation.write_archive(tmp_path / "flood", imitation.EXAMPLE, imitation.EXAMPLE_SPLITS, 32)
    roots = {"bigearthnet_s1": raw, "s1_folder": tmp_path, "sen12_flood": tmp_path / "flood"}
    for name in builder_names():
        builder = make_builder(name, "nowhere", options.get(name))
        planned = builder.plan(roots.get(name, Path()), tmp_path, 1)
        assert not planned.read.__module__.endswith("_dataset_builder")


def test_a_beam_runner_writes_more_than_ten_unequal_shards(tmp_path, monkeypatch):
    """TFDS sorts their lengths as text, and reading fails past the end; ours come from files."""
    pytest.importorskip("apache_beam", reason="needs the extra tensorflow")
    monkeypatch.setattr(plan, "PATCHES_PER_SHARD", 3)
    config = tfds.download.DownloadConfig(beam_runner="DirectRunner")
    builder = Builder(data_dir=tmp_path, config=Config(name="few", patches=35, size=32))
    builder.download_and_prepare(download_config=config)
    lengths = read_back(builder.data_path)
    assert len(lengths) == 12
    assert set(lengths) == {2, 3}
    alone = Builder(data_dir=tmp_path / "alone", config=Config(name="few", patches=35, size=32))
    alone.download_and_prepare()
    assert builder.info.metadata["checksum"] == alone.info.metadata["checksum"]


@pytest.mark.parametrize("options", [[], ["--beam_pipeline_options=runner=DirectRunner"]])
def test_the_command_of_tfds(tmp_path, options):
    pytest.importorskip("tensorflow", reason="needs the extra tensorflow")
    tfds_command = Path(sys.executable).with_name("tfds")
    command = [tfds_command, "build", "tfds_builders/synthetic_s1", f"--data_dir={tmp_path}"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "synthetic_s1/small/1.0.0"
    assert sum(read_back(folder)) == 512
    assert json.loads((folder / "dataset_info.json").read_text())["fileFormat"] == "array_record"


def test_builds_do_without_jax():
    """Every worker would hold 140 MB more."""
    modules = [f"tfds_builders.{name}.{name}_dataset_builder" for name in builder_names()]
    program = (
        f"import sys, tfds_builders.build, {', '.join(modules)}; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
