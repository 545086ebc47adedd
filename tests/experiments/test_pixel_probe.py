"""Tokens of a frozen encoder with their pixels, and the layer that is fitted to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sar_mixmae_jax.experiments import pixel_probe
from sar_mixmae_jax.experiments.pixel_probe import encode_tokens, fit_head, select_records
from sar_mixmae_jax.models.segmenter import LinearPixelHead, Segmenter
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, init_model_params
from sar_mixmae_jax.utils.errors import InputError
from tests.models.test_segmenter import ARCH

SIDE = ARCH.image_size
GRID = SIDE // 4
"""Tokens along a side of the first stage."""
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(-15, 5, (3, SIDE, SIDE, 2)).astype(np.float32)
IMAGES[0, :4, :4, 1] = np.nan
LABELS = (IMAGES[..., 0] < -17).astype(np.int32)
LABELS[1, 4:8, :2] = -1


@pytest.fixture(scope="module")
def objective():
    """Segmentation of two classes with a linear decoder."""
    settings = Preprocessing(SIDE, (-15.0, -15.0), (5.0, 5.0))
    model = Segmenter(ARCH, 2, decoder_width=0)
    return FinetuneObjective(get_task("segmentation"), model, settings, freeze_encoder=True)


@pytest.fixture(scope="module")
def params(objective):
    return init_model_params(objective, jax.random.key(0))


@pytest.fixture(scope="module")
def tokens(objective, params):
    (name,) = objective.task.images
    batch = {name: jnp.asarray(IMAGES), objective.task.label_field: jnp.asarray(LABELS)}
    outputs = jax.jit(encode_tokens, static_argnames="objective")(params, batch, objective)
    return {name: np.asarray(values) for name, values in outputs.items()}


def test_pixels_are_those_with_a_label_and_a_measurement(tokens):
    assert GRID**2 <= pixel_probe.TOKENS  # all tokens, in a random order
    measured = np.isfinite(IMAGES).all(-1)
    for value in (0, 1):
        expected = ((value == LABELS) & measured).reshape(3, GRID, 4, GRID, 4).sum((2, 4))
        found = tokens["pixels"][..., value]
        np.testing.assert_array_equal(np.sort(found, 1), np.sort(expected.reshape(3, -1), 1))


def test_the_head_is_the_logistic_regression(objective, params, tokens):
    labelled, held_out = select_records(tokens, [0, 1]), select_records(tokens, [2])
    head = fit_head(params["head"], labelled, held_out)
    features = np.concatenate([labelled["features"]] * 2).reshape(-1, tokens["features"].shape[-1])
    weights = np.concatenate([labelled["pixels"][..., value].ravel() for value in (0, 1)])
    classes = np.repeat([0, 1], len(features) // 2)
    used = weights > 0
    scaled = (features - features[used].mean(0)) / features[used].std(0)
    candidates = [
        LogisticRegression(C=inverse_penalty / weights.sum(), max_iter=300, tol=1e-3)
        .fit(scaled[used], classes[used], weights[used])
        .decision_function(scaled)
        for inverse_penalty in pixel_probe.INVERSE_PENALTIES
    ]
    logits = features @ head["classify"]["kernel"] + head["classify"]["bias"]
    errors = [np.abs(logits[:, 1] - logits[:, 0] - each).max() for each in candidates]
    assert min(errors) < 1e-3 * np.abs(candidates).max()
    maps = objective.model.apply({"params": params}, [jnp.zeros((1, SIDE, SIDE, 2))],
                                 method="feature_maps")  # fmt: skip
    assert LinearPixelHead(2).apply({"params": head}, maps).shape == (1, GRID, GRID, 2)


def test_a_class_without_labels_is_never_predicted(params, tokens):
    kernel = np.zeros((tokens["features"].shape[-1], 3))
    head = {**params["head"], "classify": {"kernel": kernel, "bias": np.zeros(3)}}
    wide = {
        "features": tokens["features"],
        "pixels": np.concatenate([tokens["pixels"], np.zeros_like(tokens["pixels"][..., :1])], -1),
    }
    classify = fit_head(head, wide, wide)["classify"]
    logits = wide["features"] @ classify["kernel"] + classify["bias"]
    assert (logits[..., 2] < logits[..., :2].min(-1)).all()


def test_labels_of_one_class_are_refused(params, tokens):
    dry = {**tokens, "pixels": tokens["pixels"] * [1.0, 0.0]}
    with pytest.raises(InputError, match="choose a larger label_fraction"):
        fit_head(params["head"], dry, tokens)
