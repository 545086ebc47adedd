"""The log of a run: continued, without what came later, and written again if it vanishes."""

import json

import pytest

from sar_mixmae_jax.training.metric_logger import MetricWriter, read_metrics
from sar_mixmae_jax.utils.errors import InputError


def test_what_came_after_the_checkpoint_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\nnonsense\n{"step": 3, "lo')
    log = MetricWriter(tmp_path, 1)
    log.write(2, {"loss": 2.5})
    log.close()
    assert read_metrics(path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}]


def test_what_is_not_finite_becomes_null(tmp_path):
    log = MetricWriter(tmp_path, -1)
    log.write(0, {"loss": float("nan"), "rate": float("inf"), "epoch": 1.0})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"step": 0, "loss": None, "rate": None, "epoch": 1.0}


def test_a_log_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    log = MetricWriter(tmp_path, -1)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match="log or picture cannot be written"):
        log.write(0, {"loss": 1.0})
