"""The ways in which TFDS itself builds: its command, its import by path, Beam runners."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tfds_builders
from sar_mixmae_jax.data.metadata import open_builder
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import plan
from tfds_builders.build import builder_names, make_builder
from tfds_builders.geotiff import write_bands
from tfds_builders.sen1floods11 import fake_chips
from tfds_builders.sen12_flood import fake_archive
from tfds_builders.synthetic_s1.synthetic_s1_dataset_builder import Builder, Config

ROOT = Path(tfds_builders.__file__).parents[1]


def read_back(folder) -> list[int]:
    """Read all records of all splits and return the shard lengths of train."""
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
    from tfds_builders.plan import BuildSettings
    config = Config(name="few", patches=1100, size=32)
    settings = BuildSettings(processes=2)
    builder = Builder(data_dir={str(tmp_path)!r}, config=config, settings=settings)
    builder.download_and_prepare()

"""
    (tmp_path / "program.py").write_text(program)
    subprocess.run([sys.executable, str(tmp_path / "program.py")], cwd=ROOT, check=True)
    assert read_back(tmp_path / "synthetic_s1/few/1.1.0") == [550, 550]


def test_what_other_processes_call_is_not_in_a_builder_itself(raw, tmp_path):
    scene = np.random.default_rng(0).normal(-15, 3, (2, 64, 64)).astype(np.float32)
    write_bands(tmp_path / "a.tif", scene, descriptions=("VH", "VV"))
    options = {"s1_folder": {"unit": "dB", "size": 64}, "sen12_flood": {"size": 32}}
    fake_archive.write_archive(
        tmp_path / "flood", fake_archive.EXAMPLE, fake_archive.EXAMPLE_SPLITS, 32
    )
    fake_chips.write_dataset(tmp_path / "chips", 32)
    roots = {
        "bigearthnet_s1": raw,
        "s1_folder": tmp_path,
        "sen12_flood": tmp_path / "flood",
        "sen1floods11": tmp_path / "chips",
    }
    for name in builder_names():
        builder = make_builder(name, "nowhere", options.get(name))
        planned = builder.plan(roots.get(name, Path()), tmp_path, 1)
        assert not planned.read.__module__.endswith("_dataset_builder")


@pytest.mark.parametrize("form", ["runner", "options"])
def test_a_beam_runner_writes_more_than_ten_unequal_shards(tmp_path, monkeypatch, form):
    """TFDS sorts their lengths as text, and reading fails past the end; ours come from files.

    The command of TFDS names a runner in the options of the pipeline.
    """
    beam = pytest.importorskip("apache_beam", reason="needs the extra tensorflow")
    monkeypatch.setattr(plan, "PATCHES_PER_SHARD", 3)
    runner = {
        "runner": {"beam_runner": "DirectRunner"},
        "options": {"beam_options": beam.pipeline.PipelineOptions(["--runner=DirectRunner"])},
    }[form]
    builder = Builder(data_dir=tmp_path, config=Config(name="few", patches=35, size=32))
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**runner))
    lengths = read_back(builder.data_path)
    assert len(lengths) == 12
    assert set(lengths) == {2, 3}
    alone = Builder(data_dir=tmp_path / "alone", config=Config(name="few", patches=35, size=32))
    alone.download_and_prepare()
    assert builder.info.metadata["checksum"] == alone.info.metadata["checksum"]


def test_the_command_of_tfds(tmp_path):
    pytest.importorskip("tensorflow", reason="needs the extra tensorflow")
    command = [Path(sys.executable).with_name("tfds"), "build", "tfds_builders/synthetic_s1"]
    config = json.dumps({"name": "few", "patches": 8, "size": 32})
    core = min(os.sched_getaffinity(0))  # one process: others would import TensorFlow too
    done = subprocess.run(
        [*command, f"--data_dir={tmp_path}", f"--config={config}"],
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "synthetic_s1/few/1.1.0"
    assert read_back(folder) == [8]
    assert json.loads((folder / "dataset_info.json").read_text())["fileFormat"] == "array_record"


KEY, OWN = '"pythonClassName"', "tensorflow_datasets.core.features.text_feature.Text"
LEGACY = {"type": "foreign_code.Feature", "content": {}}


def put(tmp_path, built, change, file="features.json"):
    """A copy of a dataset in which the text of a file is changed."""
    folder = shutil.copytree(built / "bigearthnet_s1", tmp_path / "data/bigearthnet_s1")
    for path in folder.rglob(file):
        path.write_text(change(path.read_text()))
    return tmp_path / "data"


FOREIGN = {
    "plain": lambda text: text.replace(OWN, "foreign_code.Feature", 1),
    "escaped": lambda text: text.replace(OWN, "foreign_code.Feature", 1).replace(
        KEY, '"python\\u0043lassName"'
    ),
    "snake case": lambda text: text.replace(OWN, "foreign_code.Feature", 1).replace(
        KEY, '"python_class_name"'
    ),
    "older": lambda text: json.dumps(LEGACY),
    "text in text": lambda text: json.dumps(
        {
            "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
            "jsonFeature": {"json": " " + json.dumps({"id": LEGACY})},
        }
    ),
}


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A module that can be imported, and whether it was."""
    (tmp_path / "foreign_code.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: "foreign_code" in sys.modules
    sys.modules.pop("foreign_code", None)


@pytest.mark.parametrize("how", FOREIGN)
def test_code_that_a_dataset_names_is_not_run(tmp_path, built, foreign, how):
    data = put(tmp_path, built, FOREIGN[how])
    with pytest.raises(InputError, match=r"features\.json: names the code foreign_code\.Feature"):
        open_builder("bigearthnet_s1", data)
    assert not foreign()
    with pytest.raises(ValueError, match="Unrecognized FeatureConnector type"):  # so it would be
        tfds.builder_from_directory(next(data.rglob("features.json")).parent)
    assert foreign()


def test_code_is_found_by_any_name_of_the_dataset_and_behind_links(tmp_path, built, foreign):
    data = put(tmp_path, built, FOREIGN["plain"])
    (data / "linked").mkdir()
    (data / "linked/v1").symlink_to(data / "bigearthnet_s1/v1")
    (data / "big_name").symlink_to(data / "bigearthnet_s1")
    for name in ("linked/v1", "BigName/v1", "bigearthnet_s1/v1:2.0.0"):
        with pytest.raises(InputError, match="names the code"):
            open_builder(name, data)
    assert not foreign()


def test_the_module_that_a_dataset_says_it_is_of_is_not_imported(tmp_path, built, foreign):
    def change(text):
        return json.dumps({**json.loads(text), "moduleName": "foreign_code"})

    builder = open_builder("bigearthnet_s1", put(tmp_path, built, change, "dataset_info.json"))
    assert len(builder.as_data_source("train")) == 8
    assert not foreign()


@pytest.mark.parametrize("text", ["{", "", "[3", "[" * 100_000], ids=range(4))
def test_features_that_are_no_json_are_named(tmp_path, built, text):
    data = put(tmp_path, built, lambda _: text)
    with pytest.raises(InputError, match=r"features\.json: cannot be read as JSON"):
        open_builder("bigearthnet_s1", data)


def test_a_damaged_description_is_named(tmp_path, built):
    data = put(tmp_path, built, lambda text: text[:-20], "dataset_info.json")
    with pytest.raises(InputError, match=r"2\.0\.0: dataset_info\.json or .* remove the folder"):
        open_builder("bigearthnet_s1", data)
    for path in data.rglob("dataset_info.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"2\.0\.0: dataset_info\.json or .* remove the folder"):
        open_builder("bigearthnet_s1", data)


@pytest.mark.parametrize(
    "name", ["", "/", "/tmp", "..", "a/..", "a/../b", "./a", "a//b", "a\0", "a" * 5000]
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_read(built, monkeypatch, name):
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("it looked"))
    with pytest.raises(InputError, match="is no name of a dataset"):
        open_builder(name, built)
