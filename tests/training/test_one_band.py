"""One band from end to end: built, pretrained, probed, evaluated, reported, embedded."""

import json
import re

import numpy as np
import pytest

from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.inference.evaluator import evaluate
from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.training import linear_probe, pretrain
from sar_mixmae_jax.training.checkpoint import checkpoint_steps, read_metadata
from tests.shrink import SMALLEST_MODEL, probe_config, small_config
from tfds_builders.build import build
from tfds_builders.plan import BuildSettings

DATASET = "synthetic_s1/one"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Simulated patches of 32 px in HH alone: 16 for training, 2 and 2 held out."""
    folder = tmp_path_factory.mktemp("data")
    options = {"patches": 16, "size": 32, "bands": "HH"}
    build(DATASET, folder, options=options, settings=BuildSettings(processes=1))
    return folder


@pytest.fixture(scope="module")
def pretrained(data_dir, tmp_path_factory):
    """The workdir of two steps of pretraining on HH."""
    workdir = tmp_path_factory.mktemp("pretraining")
    small = {"total_steps": 2, "picture_patches": 1, **SMALLEST_MODEL, "split": "train"}
    pretrain.train(small_config(data_dir, dataset=DATASET, bands=("HH",), **small), workdir)
    return workdir


def test_one_band_is_pretrained_and_reported(pretrained):
    """Weights, diagnostics and picture are of that band; the weights vary."""
    model = read_metadata(checkpoint_steps(pretrained)[-1]).model
    assert (model.bands, model.architecture.bands) == (("HH",), 1)
    assert len(model.statistics.mean) == 1
    lines = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    logged = {name for line in lines for name in line}
    assert {"weight_cv/HH", "bias_db/HH"} <= logged
    assert not {name for name in logged if name.endswith(("/VH", "/VV"))}
    assert max(line.get("weight_cv/HH", 0) for line in lines) > 0.03
    assert (pretrained / "reconstruction.png").stat().st_size > 1000
    write_page(pretrained)
    page = re.sub(r"base64,[^\"]*", "", (pretrained / "summary.html").read_text())
    assert "HH" in page
    assert not {"VH", "VV"} & set(re.findall(r"\w+", page))


@pytest.mark.usefixtures("no_drawing")
def test_one_band_is_probed_and_evaluated(pretrained, data_dir, tmp_path):
    """The bands of the encoder are those of the probe and of its evaluation, without a setting."""
    config = probe_config(data_dir, f"task=linear_probe,dataset={DATASET},init={pretrained}")
    linear_probe.train(config, tmp_path / "probe")
    files = evaluate(tmp_path / "probe", out=tmp_path / "report")
    assert read_metadata(checkpoint_steps(tmp_path / "probe")[-1]).model.bands == ("HH",)
    predicted = load_predictions(files["predictions.npz"])
    assert len(predicted.logits) == 2
    assert np.isfinite(predicted.logits).all()
    assert "undefined" in files["report.md"].read_text()  # two images have few classes
