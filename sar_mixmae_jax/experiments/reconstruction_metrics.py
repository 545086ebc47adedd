"""Reconstruction metrics of a model on held-out images, and the tables that show them."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from sar_mixmae_jax.experiments.comparison_tables import Section
from sar_mixmae_jax.experiments.reconstruction_error import (
    ESTIMATES,
    Batch,
    ErrorSums,
    Protocol,
    batch_error_sums,
)
from sar_mixmae_jax.experiments.seed_statistics import Metric
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.utils.errors import DivergedError, InputError

Metrics = dict[str, float | None]
"""By name; None where undefined."""

PRETRAINING = "pretraining"
"""Stage of a comparison, and task of the results of this module."""

REFERENCES = ("null", "measured", "band_means", "truth")
"""Estimates that need no model."""

EXPLAINED = Metric(
    PRETRAINING, "explained_variance", "explained variance", ".4f", None, compared=False
)

ERROR = Metric(PRETRAINING, "error", "unweighted error", ".4f", higher_is_better=False)
RMSE = Metric(PRETRAINING, "rmse_db", "RMSE (dB)", ".3f", higher_is_better=False)
BIAS = Metric(PRETRAINING, "bias_db", "bias (dB)", "+.3f", None, compared=False)

SMOOTHING = (
    "A smooth estimate is too high where the truth is dark and too low where it is bright: compare "
    "the bias of a row with that of `null`."
)
UNWEIGHTED = (
    "The unweighted error is the loss of `none`, so weighted arms can hardly be better in it. The "
    "effect of weights shows where the truth is dark, beside the overall bias, since a general "
    "shift towards lower values reduces that error too."
)
OTHERS = "Arms that change `norm_pix_loss` or the masks have no entry: theirs is another task."
"""Text below every table, see `trials.has_comparable_metrics`."""
NOTES = {
    True: f"{UNWEIGHTED} {OTHERS} "
    "Targets were normalised per mask unit: mean and standard deviation of the "
    "speckled target are given back to a reconstructed unit, so its level, and most of the bias, "
    "is not learned. `null` is the mean of the unit: only an improvement over it is learned. "
    "`measured` is the input with its speckle. The variance that `truth`, the noise-free image "
    "plus the mean of speckle, explains is about the ceiling of a model: the rest is speckle. "
    "`band_means` explains the levels of the bands in each unit alone. The mean in dB of a "
    "filtered target is higher than that of the speckled one: the unweighted error counts this "
    "against arms with a filter, RMSE and bias against the noise-free truth do not.",
    False: f"{UNWEIGHTED} {OTHERS} "
    "`null` is the mean of the dataset everywhere. `measured` is the input "
    "with its speckle.",
}
"""Text below the tables by `norm_pix_loss`."""


def measure_reconstruction(
    objective: PretrainObjective, params: Any, batches: Iterable[Batch], protocol: Protocol
) -> dict[str, Metrics]:
    """Measure the reconstructions of a model, without weights and flips.

    Errors are those to the measured image, also of a model whose targets were filtered: its
    prediction is restored with the moments of its own targets.

    Args:
      objective: objective of the pretraining.
      params: parameters of the model, on the host or on one device.
      batches: batches of the held-out split, the same for all models, as images of a batch are
        mixed with each other. A batch of odd size is completed by an image that does not count.
      protocol: bands, classes, masks.

    Returns:
      Metrics of "model", "null" and "measured": `error` (not of "measured"), `rmse_db` and
      `bias_db` over all bands, and both with `/BAND`, `/BAND/BIN` and `/BAND/CLASS`; None without
      pixels or ground truth. "pixels" holds the number of values of each. `error` and
      `explained_variance`, 1 - error / that of "null", also of "band_means", the mean of each band
      in a mask unit, and of "truth", the noise-free image plus the mean of speckle in dB.

    Raises:
      InputError: there are no batches, or one with a single image.
      DivergedError: a prediction is not finite.
    """
    settings = dataclasses.replace(
        objective.preprocessing, weighting=Weighting("none"), random_flip=False
    )
    objective = dataclasses.replace(objective, preprocessing=settings)
    sums = [
        _sum_over_images(objective, params, number, batch, protocol)
        for number, batch in enumerate(batches)
    ]
    if not sums:
        raise InputError("reconstruction metrics: found no batch, expected at least one")
    total = ErrorSums(*(sum(leaves) for leaves in zip(*sums, strict=True)))
    if not all(np.isfinite(leaf).all() for leaf in total):
        raise DivergedError(
            "reconstruction metrics: predictions are not finite: use a checkpoint from before the "
            "run diverged"
        )
    return _means(total, protocol)


def _sum_over_images(
    objective: PretrainObjective, params: Any, number: int, batch: Batch, protocol: Protocol
) -> ErrorSums:
    """Return the sums of a batch over its images, float64."""
    count = len(batch.backscatter)
    key = jax.random.fold_in(jax.random.key(protocol.seed), number)
    sums = batch_error_sums(params, *_complete(batch), key, objective, protocol)
    return ErrorSums(*(np.asarray(leaf)[:count].sum(0, dtype=np.float64) for leaf in sums))


def _complete(batch: Batch) -> Batch:
    """Return a batch of even size, in which no image is mixed with itself.

    Image i is mixed with image -1 - i. The second image is appended to an odd batch: the first
    would be mixed with itself.
    """
    count = len(batch.backscatter)
    if count == 1:
        raise InputError(
            "reconstruction metrics: a batch has 1 image, expected at least 2, as images are "
            "mixed in pairs: choose another batch size"
        )
    if count % 2 == 0:
        return batch
    rows = np.append(np.arange(count), 1)
    fields = (None if field is None else field[rows] for field in batch[1:])
    return Batch(batch.backscatter[rows], *fields)


def _means(total: ErrorSums, protocol: Protocol) -> dict[str, Metrics]:
    """Return the means of the sums by estimate and name."""
    has_truth = bool(total.pixels.any())
    metrics: dict[str, Metrics] = {
        "model": {"error": _mean(total.error, total.values)},
        "null": {"error": _mean(total.null_error, total.values)},
        "measured": {},
        "band_means": {"error": _mean(total.band_error, total.values)},
        "truth": {"error": _mean(total.truth_error, total.values) if has_truth else None},
        "pixels": {"error": float(total.values / protocol.masks)},
    }
    for estimate in ("model", "band_means", "truth"):
        error, null = metrics[estimate]["error"], metrics["null"]["error"]
        explained = None if error is None or not null else 1 - error / null
        metrics[estimate]["explained_variance"] = explained
    for suffix, groups, bands in _selections(protocol, total.pixels.shape[0]):
        selection = np.ix_(groups, bands)
        pixels = total.pixels[selection].sum()
        for measure in ("rmse_db", "bias_db"):
            metrics["pixels"][measure + suffix] = float(pixels / protocol.masks)
        for number, estimate in enumerate(ESTIMATES):
            square = _mean(total.squares[number][selection].sum(), pixels)
            metrics[estimate]["rmse_db" + suffix] = None if square is None else square**0.5
            bias = _mean(total.biases[number][selection].sum(), pixels)
            metrics[estimate]["bias_db" + suffix] = bias
    return metrics


def _selections(
    protocol: Protocol, groups: int
) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    """Yield every suffix of `rmse_db` with its groups and bands."""
    bins = range(len(protocol.bins))  # they partition the pixels
    yield "", bins, range(len(protocol.bands))
    for band, name in enumerate(protocol.bands):
        yield f"/{name}", bins, [band]
        for group, group_name in enumerate((*protocol.bins, *protocol.classes)[:groups]):
            yield f"/{name}/{group_name}", [group], [band]


def _mean(total: Any, count: Any) -> float | None:
    return float(total / count) if count else None


# ---- tables


def reconstruction_sections(
    protocol: Protocol, *, norm_pix_loss: bool, has_truth: bool
) -> tuple[Section, ...]:
    """Return the tables of the metrics.

    Args:
      protocol: bands, classes.
      norm_pix_loss: True if targets were normalised, for the note.
      has_truth: True if the records have a ground truth; else there is one table of one metric.
    """
    title = "Pretraining, measured without weights"
    if not has_truth:
        return (Section(title, (ERROR, EXPLAINED), OTHERS),)
    note = NOTES[norm_pix_loss]
    overall = [ERROR, EXPLAINED, RMSE]
    overall += [_uncompared("bias_db", f"/{band}", f"bias {band} (dB)") for band in protocol.bands]
    by_group = [
        Section(
            f"Error against the truth by {criterion}",
            tuple(
                _uncompared(measure, f"/{band}/{group}", f"{label} {band}, {group} (dB)")
                for measure, label in (("rmse_db", "RMSE"), ("bias_db", "bias"))
                for band in protocol.bands
                for group in groups
            ),
            f"{note} {SMOOTHING}",
            transposed=True,
        )
        for criterion, groups in (
            ("true intensity", protocol.bins),
            ("land cover", protocol.classes),
        )
        if groups
    ]
    return (Section(title, tuple(overall), note), *by_group)


def _uncompared(measure: str, suffix: str, title: str) -> Metric:
    """Return a metric that is shown without differences between arms."""
    form = ".3f" if measure == "rmse_db" else "+.3f"
    return Metric(PRETRAINING, measure + suffix, title, form, higher_is_better=None, compared=False)
