"""Stored runs of version 0.1: resumed, fine-tuned from, evaluated and reported under new names."""

import json
import tarfile
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import repeat
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.run_report import page
from sar_mixmae_jax.run_report.history import read_history
from sar_mixmae_jax.training import encoder_loading, finetune, migration, pretrain
from sar_mixmae_jax.training.checkpoint import checkpoint_steps, read_metadata, select_step
from sar_mixmae_jax.training.metric_logger import parse_metrics
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.workdir import read_run_record
from tests.shrink import small_tuning

ARCHIVE = Path(__file__).parents[1] / "stored_runs/version_0_1.tar.xz"
LOSSES = {3: 2.9967057704925537, 4: 2.7733254432678223}
"""Losses of the next two steps of the pretraining, as version 0.1 computed them."""

pytestmark = pytest.mark.usefixtures("no_drawing_in_module")


@pytest.fixture
def stored(tmp_path):
    """A folder with the runs `pretraining` and `finetuning`."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def repeated(workdir: Path, built: Path, **changes) -> ConfigDict:
    config = repeat.get_config(str(workdir / "run.json"))
    config.update_from_flattened_dict({"data_dir": str(built), **changes})
    return config.lock()


def test_pretraining_is_resumed_with_the_same_losses(stored, built):
    workdir = stored / "pretraining"
    outcome = pretrain.train(repeated(workdir, built, total_steps=4), workdir)
    assert outcome.finished
    lines, invalid = parse_metrics(workdir / "metrics.jsonl")
    assert not invalid
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert {step: losses[step] for step in LOSSES} == pytest.approx(LOSSES, rel=1e-5)
    record = read_run_record(workdir)
    assert (len(record.starts), record.saved) == (2, 4)
    before, now = (start["settings"] for start in record.starts)
    assert before.keys() <= now.keys()  # under the present names, with fields added since
    assert now["model.attention"] == now["model.norm"] == "plain"


def test_fine_tuning_begins_with_a_stored_encoder(stored, built, tmp_path):
    config = small_tuning(built, f"init={stored / 'pretraining'}", total_steps=1)
    assert finetune.train(config, tmp_path / "tuned").finished
    record = read_run_record(tmp_path / "tuned")
    assert record.model.pretrained.trainer == "pretrain"
    assert record.model.pretrained.weighting.domain == "physical"


def test_a_stored_model_is_resumed_and_evaluated(stored, built):
    """The encoder of the run is used, although the checkpoint it began with is gone."""
    workdir = stored / "finetuning"
    config = repeated(workdir, built, total_steps=2, init="pretraining")
    assert encoder_loading.resolve_encoder(config, workdir).path == workdir / "checkpoints/1"
    files = evaluate(workdir, split="test", data_dir=str(built))
    provenance = json.loads(files["metrics.json"].read_text())["about"]
    assert provenance["checkpoint"] == str(workdir / "checkpoints/1")
    assert provenance["encoder"]["trainer"] == "pretrain"
    assert finetune.train(config, workdir).finished
    assert [path.name for path in checkpoint_steps(workdir)] == ["1", "2"]


@pytest.mark.parametrize("name", ["pretraining", "finetuning"])
def test_a_stored_run_is_reported(stored, name):
    text = page.write_page(stored / name).read_text()
    assert "total_steps" in text
    assert "max_steps" not in text
    assert ("explained_variance" in read_history(stored / name).metrics) == (name == "pretraining")
    assert select_step(stored / name, "best") == checkpoint_steps(stored / name)[-1]


@pytest.mark.parametrize("name", ["pretraining", "finetuning"])
def test_every_old_name_is_replaced(stored, name):
    (path,) = checkpoint_steps(stored / name)
    for content in (
        json.loads((stored / name / "run.json").read_text()),
        json.loads((path / "metadata/metadata").read_text()),
    ):
        old = {name for table in (migration.CONFIG, migration.ARCHITECTURE) for name in table}
        old |= {*migration.METRIC_NAMES, "floor"}
        assert len(old & set(keys(content))) > 10
        assert not old & set(keys(migration.upgrade(content)))
        description = RunDescription.from_json(content)
        assert RunDescription.from_json(description.to_json()) == description
        assert description.config["remat"] == "none"  # stored as false
    assert read_metadata(path).model == read_run_record(stored / name).model


def keys(content):
    """Yield the keys in a JSON value, at any depth."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name
            yield from keys(value)
    elif isinstance(content, list):
        for value in content:
            yield from keys(value)
