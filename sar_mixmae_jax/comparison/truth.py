"""One measure of pretraining for all weightings: reconstruction errors that no weight enters.

Two errors, of the same masks and partners for every model that is measured on the same batches:

- in the normalised target space: the mean of (prediction - target)² over valid pixels, the loss of
  the weighting `none`, for any dataset;
- in dB against the truth without noise, for simulated datasets: root mean square and mean of
  restored - truth, over everything, by true intensity and by land cover.

Every pixel counts: each cell is predicted from the view in which it was hidden.

With `norm_pix` a restored cell gets the mean and the deviation of its target back, and the target
is speckled. So its level is given, not learnt, and with it most of the bias: the mean of speckled
dB lies below the dB of the truth. Hence two references are measured beside the model. `null`
predicts 0 everywhere: the cell's own mean with `norm_pix`, the dataset's mean without. What a
model does better than `null` is learnt. `measured` is the speckled input itself.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.comparison.restoration import ESTIMATES, Protocol, Sums, batch_sums
from sar_mixmae_jax.comparison.statistics import Metric
from sar_mixmae_jax.comparison.table import Section
from sar_mixmae_jax.errors import DivergedError, InputError
from sar_mixmae_jax.objective import Objective
from sar_mixmae_jax.weighting import Weighting

__all__ = ["Batch", "Protocol", "measure", "sections"]

Metrics = dict[str, float | None]
TASK = "pretraining"
SMOOTHING = (
    "Whatever smooths is too high where the truth is dark and too low where it is bright, so a "
    "bias in a row is to be read beside that of `null`."
)

OWN = (
    "The unweighted error is what `none` is trained for, so a weighted arm can hardly be better in "
    "it; whether weights do what they are for is seen where the truth is dark, beside the overall "
    "bias: a shift of everything down helps there too."
)

NOTES = {
    True: f"{OWN} Targets were normalised cell by cell: a restored cell gets the mean and the "
    "deviation of its speckled target back, so its level is given and not learnt, and most of the "
    "bias with it. `null` is the cell's mean alone: only what is better than it is learnt. "
    "`measured` is the input itself, with its speckle.",
    False: f"{OWN} `null` is the mean of the dataset everywhere. `measured` is the input itself, "
    "with its speckle.",
}
"""What to say below the tables, by `norm_pix`."""


class Batch(NamedTuple):
    """Records of a split, as they are stored.

    Attributes:
      backscatter: (batch, height, width, band) dB, NaN = nodata.
      noise_free: the same without speckle and noise, or None.
      land_cover: (batch, height, width) index of a class, or None.
    """

    backscatter: np.ndarray
    noise_free: np.ndarray | None = None
    land_cover: np.ndarray | None = None


def measure(
    objective: Objective, params: Any, batches: Iterable[Batch], protocol: Protocol
) -> dict[str, Metrics]:
    """Measures a model.

    Args:
      objective: what it was trained for; its weighting and flips are left out.
      params: its parameters, of the host or of one device.
      batches: of the held-out split. They decide who is whose partner, so every model needs the
        same ones. An odd one is made even by an image that does not count.
      protocol: bands, classes, masks.

    Returns:
      Metrics for "model", "null" and "measured", and in "pixels" how many values each is of:
      `error` (not of "measured"), `rmse_db` and `bias_db` over all bands, and the same with
      `/BAND`, `/BAND/BIN` and `/BAND/CLASS`. None where nothing was measured, or has no truth.

    Raises:
      InputError: there is no batch, or one with a single image, which has no partner.
      DivergedError: the model predicts something that is not finite.
    """
    weighting = Weighting("none")
    settings = dataclasses.replace(objective.preprocessing, weighting=weighting, flips=False)
    objective = dataclasses.replace(objective, preprocessing=settings)
    sums = [_summed(objective, params, *numbered, protocol) for numbered in enumerate(batches)]
    if not sums:
        raise InputError("measuring reconstruction: found no batch, expected at least one")
    total = Sums(*(sum(leaves) for leaves in zip(*sums, strict=True)))
    if not all(np.isfinite(leaf).all() for leaf in total):
        raise DivergedError(
            "measuring reconstruction: the model predicts values that are not finite, expected "
            "numbers: take a checkpoint from before it diverged"
        )
    return _metrics(total, protocol)


def _summed(
    objective: Objective, params: Any, number: int, batch: Batch, protocol: Protocol
) -> Sums:
    """The sums of a batch over its images, float64."""
    count = len(batch.backscatter)
    key = jax.random.fold_in(jax.random.key(protocol.seed), number)
    sums = batch_sums(params, *_even(batch), key, objective, protocol)
    return Sums(*(np.asarray(leaf)[:count].sum(0, dtype=np.float64) for leaf in sums))


def _even(batch: Batch) -> Batch:
    """A batch in which nobody is its own partner, the mirror image in the batch."""
    count = len(batch.backscatter)
    if count == 1:
        raise InputError(
            "measuring reconstruction: a batch holds 1 image, expected at least 2, as images are "
            "mixed in pairs: choose another batch size"
        )
    if count % 2 == 0:
        return batch
    # The second image again: the first, repeated, would be mixed with itself.
    rows = np.append(np.arange(count), 1)
    others = (None if each is None else each[rows] for each in batch[1:])
    return Batch(batch.backscatter[rows], *others)


def _metrics(total: Sums, protocol: Protocol) -> dict[str, Metrics]:
    """Means of what was summed, by estimate and name."""
    found: dict[str, Metrics] = {
        "model": {"error": _mean(total.error, total.values)},
        "null": {"error": _mean(total.null_error, total.values)},
        "measured": {},
        "pixels": {"error": float(total.values / protocol.masks)},
    }
    for name, groups, bands in _selections(protocol, total.pixels.shape[0]):
        chosen = np.ix_(groups, bands)
        pixels = total.pixels[chosen].sum()
        for name_of_measure in ("rmse_db", "bias_db"):
            found["pixels"][name_of_measure + name] = float(pixels / protocol.masks)
        for number, estimate in enumerate(ESTIMATES):
            square = _mean(total.squares[number][chosen].sum(), pixels)
            found[estimate]["rmse_db" + name] = None if square is None else square**0.5
            bias = _mean(total.biases[number][chosen].sum(), pixels)
            found[estimate]["bias_db" + name] = bias
    return found


def _selections(
    protocol: Protocol, groups: int
) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    """Every name after `rmse_db`, with the groups and bands that it is of."""
    bins = range(len(protocol.bins))  # every pixel is in one of them
    yield "", bins, range(len(protocol.bands))
    for band, name in enumerate(protocol.bands):
        yield f"/{name}", bins, [band]
        for group, of_group in enumerate((*protocol.bins, *protocol.classes)[:groups]):
            yield f"/{name}/{of_group}", [group], [band]


def _mean(total: Any, count: Any) -> float | None:
    return float(total / count) if count else None


def sections(protocol: Protocol, *, norm_pix: bool, truth: bool) -> tuple[Section, ...]:
    """The tables of the measure, for results of the task `TASK`.

    Args:
      protocol: bands, classes.
      norm_pix: whether targets were normalised, for the note.
      truth: whether the records have it; without, there is one table of one metric.
    """
    error = Metric(TASK, "error", "unweighted error", ".4f", higher_is_better=False)
    title = "Pretraining, measured without weights"
    if not truth:
        return (Section(title, (error,)),)
    note = NOTES[norm_pix]
    overall = [error, Metric(TASK, "rmse_db", "RMSE (dB)", ".3f", higher_is_better=False)]
    overall += [_plain("bias_db", f"/{band}", f"bias {band} (dB)") for band in protocol.bands]
    by_group = [
        Section(
            f"Error against the truth by {what}",
            tuple(
                _plain(measure, f"/{band}/{group}", f"{word} {band}, {group} (dB)")
                for measure, word in (("rmse_db", "RMSE"), ("bias_db", "bias"))
                for band in protocol.bands
                for group in groups
            ),
            f"{note} {SMOOTHING}",
            upright=True,
        )
        for what, groups in (("true intensity", protocol.bins), ("land cover", protocol.classes))
        if groups
    ]
    return (Section(title, tuple(overall), note), *by_group)


def _plain(measure: str, place: str, title: str) -> Metric:
    """A metric that is shown and not compared."""
    form = ".3f" if measure == "rmse_db" else "+.3f"
    return Metric(TASK, measure + place, title, form, higher_is_better=None, compared=False)
