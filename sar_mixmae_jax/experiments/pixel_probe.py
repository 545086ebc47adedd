"""Linear probe of pixels: a logistic regression on the maps of a frozen encoder, at its tokens.

Features are standardised and the penalty is chosen on the validation split: a few hundred gradient
steps of one rate depend on how much each channel varies (docs/comparison.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from sar_mixmae_jax.models.layers import layer_norm
from sar_mixmae_jax.models.segmenter import resize_map
from sar_mixmae_jax.tasks.supervised import (
    Batch,
    FinetuneObjective,
    measured_on_all_dates,
    prepare_dates,
    prepare_labels,
)
from sar_mixmae_jax.utils.errors import InputError

TOKENS = 256
"""Tokens of a record, drawn once for all records."""
INVERSE_PENALTIES = (30.0, 300.0, 3000.0)
"""Sums of the weights of all pixels that are tried: the larger, the weaker the penalty."""
SMALLEST_DEVIATION = 1e-6
NEVER = 100.0
"""Distance of the logit of a class without labels from the others."""

Tokens = Mapping[str, np.ndarray]
"""Results of `encode_tokens`, (record, …) each."""


def is_linear_on_pixels(config: ConfigDict) -> bool:
    """Return True if a configuration trains only a linear layer on the maps of an encoder."""
    segmentation = config.get("segmentation")
    return bool(config.get("freeze_encoder") and not segmentation.decoder_width)


def encode_tokens(params: Any, batch: Batch, objective: FinetuneObjective) -> dict[str, jax.Array]:
    """Return features and labels of some tokens of the first stage.

    Args:
      params: {"encoder"}.
      batch: raw images and labels.
      objective: with a segmenter whose decoder is linear.

    Returns:
      "features" (batch, token, channel) float32, the maps of all stages as the decoder sees them;
      "pixels" (batch, token, class) float32, labelled and measured pixels of each class.
    """
    images, valid = prepare_dates(batch, None, objective)
    labels = prepare_labels(batch[objective.task.label_field], None, objective)
    measured = measured_on_all_dates(valid)
    maps: Any = objective.model.apply({"params": params}, images, method="feature_maps")
    rows, columns = maps[0].shape[1:3]
    norm: Any = layer_norm(jnp.float32).clone(use_scale=False, use_bias=False)
    normed = [resize_map(norm.apply({}, each), (rows, columns)) for each in maps]
    features = jnp.concatenate(normed, -1)
    classes = jnp.arange(objective.model.outputs)
    pixels = (labels[..., None] == classes) & measured[..., None]
    side = labels.shape[1] // rows
    pixels = pixels.reshape(len(labels), rows, side, columns, side, -1).sum((2, 4))
    drawn = np.random.default_rng(0).permutation(rows * columns)[:TOKENS]
    features, pixels = (
        each.reshape(len(labels), rows * columns, -1)[:, drawn] for each in (features, pixels)
    )
    return {"features": features, "pixels": pixels.astype(jnp.float32)}


def fit_head(head: Mapping[str, Any], training: Tokens, validation: Tokens) -> dict[str, Any]:
    """Return parameters of a `LinearPixelHead` that are fitted to tokens.

    Args:
      head: shapes of its parameters.
      training: tokens to fit.
      validation: tokens by whose loss the penalty is chosen.

    Raises:
      InputError: the training tokens have labels of one class only.
    """
    features, labels, weights = _samples(training)
    known = np.unique(labels)
    if len(known) < 2:
        raise InputError(
            "a linear layer on pixels needs labels of two classes, and the labelled records have "
            f"{len(known)}: choose a larger label_fraction"
        )
    mean, deviation = features.mean(0), np.maximum(features.std(0), SMALLEST_DEVIATION)
    held_out, held_out_labels, held_out_weights = _samples(validation)
    seen = np.isin(held_out_labels, known)
    fits = []
    for inverse_penalty in INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse_penalty / weights.sum(), max_iter=300, tol=1e-3)
        model.fit((features - mean) / deviation, labels, weights)
        predicted = model.predict_proba((held_out[seen] - mean) / deviation)
        loss = log_loss(
            held_out_labels[seen],
            predicted,
            sample_weight=held_out_weights[seen],
            labels=model.classes_,
        )
        fits.append((loss, model))
    best = min(fits, key=lambda fit: fit[0])[1]
    coefficients, constants = best.coef_, best.intercept_
    if len(coefficients) == 1:  # of the second of two classes
        coefficients, constants = (
            np.stack([np.zeros_like(each[0]), each[0]]) for each in (coefficients, constants)
        )
    kernel = np.zeros(head["classify"]["kernel"].shape, np.float32)
    kernel[:, known] = (coefficients / deviation).T
    bias = np.full(kernel.shape[1], constants.min() - NEVER, np.float32)
    bias[known] = constants - coefficients @ (mean / deviation)
    norms = {
        name: {
            "scale": np.ones(norm["scale"].shape, np.float32),
            "bias": np.zeros(norm["bias"].shape, np.float32),
        }
        for name, norm in head.items()
        if name != "classify"
    }
    return {**norms, "classify": {"kernel": kernel, "bias": bias}}


def _samples(tokens: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, class and number of pixels of every token and class that it has."""
    pixels = tokens["pixels"].reshape(-1, tokens["pixels"].shape[-1])
    features = tokens["features"].reshape(len(pixels), -1)
    token, label = np.nonzero(pixels)
    return features[token], label, pixels[token, label]


def select_records(tokens: Tokens, rows: Sequence[int] | np.ndarray) -> Tokens:
    """Return the tokens of some records."""
    return {name: values[rows] for name, values in tokens.items()}
