"""The folder of a run: one at a time, and the record of what it is."""

import copy
import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from sar_mixmae_jax.training.workdir import RunRecord, describe_start, lock_workdir, read_run_record
from sar_mixmae_jax.utils.errors import InputError
from tests.descriptions import SOURCE, describe


def description(**config):
    return describe({"epochs": 64.0, "seed": 0, "trainer": "pretrain", "init": "random", **config})


def started(workdir, **config) -> RunRecord:
    record = RunRecord(workdir, description(**config))
    record.add_start({"step": 0})
    return record


def test_a_run_may_be_made_longer_but_not_another(tmp_path):
    started(tmp_path)
    started(tmp_path, epochs=128.0)
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(InputError, match="seed was 0 and is now 1"):
        RunRecord(tmp_path, description(epochs=128.0, seed=1))
    assert (tmp_path / "run.json").read_text() == before
    content = json.loads(before)
    assert content["config"]["epochs"] == 128.0
    assert content["starts"] == [{"step": 0}, {"step": 0}]


def test_what_was_saved_is_remembered(tmp_path):
    started(tmp_path).note_saved(40)
    record = RunRecord(tmp_path, description())
    assert record.saved == 40


def test_reading_a_record_writes_nothing(tmp_path):
    RunRecord(tmp_path / "run", description())
    assert not (tmp_path / "run").exists()


def test_one_run_at_a_time(tmp_path):
    with (
        lock_workdir(tmp_path),
        pytest.raises(InputError, match="in use by another process"),
        lock_workdir(tmp_path),
    ):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", '{"config": 3}', '{"a": 1}'])
def test_a_broken_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        RunRecord(tmp_path, description())


def test_a_workdir_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="cannot be written"), lock_workdir(workdir):
            pass


def test_a_record_names_the_checkpoint_that_the_run_began_with(tmp_path):
    before = dataclasses.replace(SOURCE, pretrained=SOURCE)
    run = describe(pretrained=before)
    RunRecord(tmp_path, run).add_start({"step": 0})
    record = read_run_record(tmp_path)
    assert record.model.pretrained == before
    assert (record.config, record.dataset, record.model) == (run.config, run.dataset, run.model)
    assert record.to_json() == json.loads((tmp_path / "run.json").read_text())


CONTENT = {**describe(pretrained=SOURCE).to_json(), "starts": [{"step": 0}], "saved": 2}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("config", value) for value in (None, 1, [])),
        *(("starts", value) for value in (None, {}, [1])),
        *(("saved", value) for value in ("2", 2.0, True)),
        *(("model", value) for value in (None, 1, "x", [1])),
        *(("model.pretrained", value) for value in ([{}], {}, 0, "x")),
        *(("model.pretrained.step", value) for value in (None, "1", True)),
        *(("model.pretrained.weighting", value) for value in (5, {}, {"name": 5}, {"name": "x"})),
        ("model.pretrained.checkpoint", None),
        ("model.pretrained.pretrained", {**CONTENT["model"]["pretrained"], "dataset": 5}),
        ("model.architecture.a_size_of_another_version", 3),
        ("model.unit", "linear"),
        ("model.bands", ["VH", "VH"]),
        ("dataset.statistics.std", [1.0, float("nan")]),
        ("dataset.statistics.mean", [1.0, 10**400]),
    ],
)
def test_a_field_that_cannot_be_used_is_named(tmp_path, field, value):
    content = copy.deepcopy(CONTENT)
    *path, last = field.split(".")
    part = content
    for name in path:
        part = part[name]
    part[last] = value
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"run\.json cannot be read \(") as refused:
        read_run_record(tmp_path)
    assert (path[-1] if path else last) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_chain_of_checkpoints_has_an_end(tmp_path):
    content = copy.deepcopy(CONTENT)
    for _ in range(200):
        content["model"]["pretrained"] = {
            **CONTENT["model"]["pretrained"],
            "pretrained": content["model"]["pretrained"],
        }
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="names more than 100 checkpoints"):
        read_run_record(tmp_path)


def test_a_record_without_end_is_named(tmp_path):
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"run\.json cannot be read \(ValueError: nested"):
        read_run_record(tmp_path)


def test_a_start_names_the_revision_of_the_checkout():
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert describe_start(0)["git"].split()[0] == revision


def test_what_is_in_the_way_of_the_lock_is_moved_aside(tmp_path):
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "kept").touch()
    with lock_workdir(tmp_path):
        assert (tmp_path / "lock").is_file()
    assert (tmp_path / "lock-0" / "kept").exists()
