"""Frozen encoders: features once, the best rate by validation, neighbours against NumPy."""

import json

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sar_mixmae_jax.cli.train import TRAINERS
from sar_mixmae_jax.inference.evaluator import predict
from sar_mixmae_jax.models.architecture import KNNConfig
from sar_mixmae_jax.models.knn import knn_predict
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.training import feature_cache, linear_probe, probe_heads
from sar_mixmae_jax.training.checkpoint import read_metadata
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.source_checkpoint import find_source_checkpoint
from sar_mixmae_jax.utils.errors import InputError
from tests.shrink import probe_config

pytestmark = pytest.mark.usefixtures("no_drawing_in_module")


@pytest.fixture(scope="module")
def probed(built, encoder_run, tmp_path_factory):
    """A linear probe of the small encoder: its configuration, workdir and outcome."""
    workdir = tmp_path_factory.mktemp("probe")
    changes = {"probe.stages": "all"}
    config = probe_config(built, f"task=linear_probe,init={encoder_run}", **changes)
    assert linear_probe.__name__.endswith(f".{TRAINERS[config.trainer]}")
    return config, workdir, linear_probe.train(config, workdir)


def test_the_encoder_stays_and_the_best_rate_is_kept(probed, encoder_run):
    config, workdir, outcome = probed
    told = json.loads((workdir / linear_probe.SCORES).read_text())
    metric = "validation/average_precision_macro"
    values = [scores.get(metric, -1) for scores in told["tried"].values()]
    assert len(values) == len(config.probe.learning_rates)
    assert told["chosen"].get(metric, -1) == max(values)
    path = outcome.files["checkpoint"]
    metadata = read_metadata(path)
    assert metadata.metrics == told["chosen"]
    before = read_metadata(find_source_checkpoint(encoder_run).path).arrays
    encoder = {name: sha for name, sha in metadata.arrays.items() if "encoder" in name}
    assert encoder
    assert all(before[name] == sha for name, sha in encoder.items())


def test_what_is_evaluated_is_the_head_on_the_features(probed, built):
    _, workdir, outcome = probed
    like = {"params": {"head": outcome.state.params["head"]}}
    head = read_subtree(outcome.files["checkpoint"], like)["params"]["head"]
    predicted = predict(workdir, split="validation", which="best").predictions
    with np.load(workdir / "features-validation.npz") as kept:
        assert kept["features"].shape[1] == 8 + 16  # channels of both stages
        expected = kept["features"] @ head["kernel"] + head["bias"]
        assert predicted.ids.tolist() == kept["ids"].tolist()
        np.testing.assert_array_equal(predicted.labels, kept["labels"])
    np.testing.assert_allclose(predicted.logits, expected, atol=1e-4)


def test_features_are_computed_once(probed, built, encoder_run, tmp_path, monkeypatch):
    """A start that finds its features computes none; one of another encoder computes its own."""
    config, workdir, _ = probed
    for name in ("features-train.npz", "features-validation.npz"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    calls = []
    predictor = feature_cache.BatchPredictor
    monkeypatch.setattr(
        feature_cache, "BatchPredictor", lambda *given: calls.append(given) or predictor(*given)
    )
    linear_probe.train(config, tmp_path)
    assert not calls
    other = probe_config(built, f"task=linear_probe,init={encoder_run / 'checkpoints' / '1'}")
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    (elsewhere / "features-train.npz").write_bytes((workdir / "features-train.npz").read_bytes())
    (elsewhere / "features-validation.npz").write_bytes(b"broken")
    linear_probe.train(other, elsewhere)
    assert len(calls) == 2


def test_a_finished_probe_does_nothing_and_another_is_refused(probed, built, encoder_run):
    config, workdir, outcome = probed
    again = linear_probe.train(config, workdir)
    assert again.files == outcome.files
    with pytest.raises(InputError, match="holds another run"):
        linear_probe.train(probe_config(built, f"task=knn,init={encoder_run}"), workdir)


def test_linear_fits_what_scikit_learn_fits():
    """Floods, at a rate that converges: the logits of a logistic regression without penalty."""
    rng = np.random.default_rng(0)
    features = rng.normal(3, [1, 20], (400, 2)).astype(np.float32)
    labels = (features @ [1.0, 0.05] + rng.normal(size=400) > 3.15).astype(np.int32)
    settings = {"steps": 3000, "batch_size": 400, "weight_decay": 0.0, "seed": 0}
    fit = probe_heads.fit_linear_layers(
        get_task("flood"), features, labels, 2, learning_rates=(1e-4, 3e-2), **settings
    )
    logits = fit.logits(features)
    assert logits.shape == (2, 400, 2)
    ours = logits[1, :, 1] - logits[1, :, 0]
    theirs = LogisticRegression(C=1e6).fit(features, labels).decision_function(features)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
    assert np.abs(ours - theirs).mean() < 0.15 * np.abs(theirs).mean()
    assert np.abs(logits[0]).max() < np.abs(logits[1]).max()  # rates do differ


def test_neighbours_vote_by_their_likeness():
    """Written out: the two most alike of three, weighted by exp(cosine / temperature)."""
    memory = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
    labels = np.array([[1, 0], [1, 1], [0, 1]], np.float32)
    votes = KNNConfig(records=3, neighbours=2, temperature=0.5, exclusive=False)
    features = np.array([[2.0, 0.2]], np.float32)
    cosine = memory @ (features[0] / np.linalg.norm(features[0]))
    weight = np.exp(cosine[:2] / 0.5)
    share = weight @ labels[:2] / weight.sum()
    share = np.clip(share, 1e-4, 1 - 1e-4)
    params = {"features": memory, "labels": labels}
    found = knn_predict(votes, params, features)
    np.testing.assert_allclose(found[0], np.log(share / (1 - share)), rtol=1e-4)


def test_neighbours_are_evaluated_like_any_model(floods, encoder_run, tmp_path):
    config = probe_config(
        floods, f"task=knn,dataset=flood_pairs/own,init={encoder_run}", **{"probe.neighbours": 3}
    )
    outcome = linear_probe.train(config, tmp_path)
    predicted = predict(tmp_path, split="test").predictions
    assert predicted.task == "flood"
    assert len(predicted.ids) == 4
    assert np.isfinite(predicted.logits).all()
    np.testing.assert_allclose(np.exp(predicted.logits).sum(1), 1, atol=1e-3)
    assert "knn" in outcome.title
    again = linear_probe.train(config, tmp_path)
    assert again.files == outcome.files
    for one, other in zip(
        jax.tree.leaves(again.state), jax.tree.leaves(outcome.state), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "linear"}, "did you mean 'linear_probe'"),
        ({"probe.neighbours": 0}, "neighbours is 0"),
        ({"validation_split": "test"}, "must not be trained or selected on the test split"),
        ({"train_split": "all"}, "must not be trained or selected on the test split"),
        ({"train_split": "train+test[:10%]"}, "must not be trained or selected on the test split"),
        ({"best_metric": "validation/accuracy"}, "unknown best_metric"),
        ({"tiling": "hexagons"}, "unknown tiling"),
        ({"train_split": "train+ test"}, "must not be trained or selected on the test split"),
        ({"probe.learning_rates": ()}, "probe.learning_rates is"),
        ({"probe.learning_rates": (0.1, -1.0)}, "probe.learning_rates is"),
        ({"probe.learning_rates": (float("nan"),)}, "probe.learning_rates is"),
        ({"probe.temperature": 1e-30}, "probe.temperature is"),
    ],
)
def test_bad_probes_are_refused(built, encoder_run, tmp_path, changes, message):
    config = probe_config(built, f"task=knn,init={encoder_run}").copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        linear_probe.train(config, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_rate_of_the_least_loss_is_kept_where_that_is_asked_for(
    built, encoder_run, probed, tmp_path
):
    _, workdir, _ = probed
    for name in ("features-train.npz", "features-validation.npz"):
        (tmp_path / name).write_bytes((workdir / name).read_bytes())
    metric = "validation/loss"
    config = probe_config(built, f"task=linear_probe,init={encoder_run}", best_metric=metric)
    linear_probe.train(config, tmp_path)
    told = json.loads((tmp_path / linear_probe.SCORES).read_text())
    losses = [scores[metric] for scores in told["tried"].values()]
    assert told["chosen"][metric] == min(losses) < losses[0]
