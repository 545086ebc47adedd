"""The folder of a run: one at a time, and the record of what it is."""

import json

import pytest

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.workdir import RunRecord, claim


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
        claim(tmp_path),
        pytest.raises(InputError, match="in use by another process"),
        claim(tmp_path),
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
        with pytest.raises(InputError, match="cannot be written"), claim(workdir):
            pass
