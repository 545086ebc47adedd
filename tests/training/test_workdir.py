"""The folder of a run: one at a time, and the record of what it is."""

import json

import pytest

from sar_mixmae_jax.training.workdir import RunRecord, lock_workdir, read_run_record
from sar_mixmae_jax.utils.errors import InputError


def description(**config) -> dict:
    return {
        "config": {"epochs": 64.0, "seed": 0, **config},
        "dataset": {"checksum": "a" * 64, "statistics": {"mean": [-19.0], "std": [3.0]}},
        "model": {"variant": "base"},
    }


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


ORIGIN = {"checkpoint": "a/checkpoints/1", "step": 1, "dataset": "d", "weighting": {"name": "x"}}


def test_a_record_knows_its_encoder(tmp_path):
    content = {
        "config": {},
        "starts": [],
        "model": {"pretrained": {**ORIGIN, "pretrained": ORIGIN}},
    }
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert read_run_record(tmp_path) == content


@pytest.mark.parametrize(
    "model",
    [
        *(None, 1, "x", [1]),
        *({"pretrained": value} for value in ([{}], {}, 0, "x")),
        *({"pretrained": {**ORIGIN, "step": value}} for value in (None, "1", True)),
        *({"pretrained": {**ORIGIN, "weighting": value}} for value in (5, {}, {"name": 5})),
        {"pretrained": {**ORIGIN, "checkpoint": None}},
        {"pretrained": {**ORIGIN, "pretrained": {**ORIGIN, "dataset": 5}}},
    ],
)
def test_a_record_of_no_model_or_encoder_is_named(tmp_path, model):
    content = json.dumps({"config": {}, "starts": [], "model": model})
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(
        InputError, match=r"run\.json cannot be read \(TypeError: its model.*expect"
    ):
        read_run_record(tmp_path)


def test_a_record_without_end_is_named(tmp_path):
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"run\.json cannot be read \(RecursionError"):
        read_run_record(tmp_path)
