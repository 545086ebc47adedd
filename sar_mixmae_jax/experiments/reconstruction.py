"""Reconstruction errors of one batch, with and without a truth, as sums that can be added up."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.experiments.statistics import Metric
from sar_mixmae_jax.experiments.tables import Section
from sar_mixmae_jax.models.masking import random_mask
from sar_mixmae_jax.objectives.preprocess import RESIZE_MODES, pad, preprocess
from sar_mixmae_jax.objectives.radiometry import destandardise
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, reconstruct, restored_images
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.utils.errors import DivergedError, InputError

ESTIMATES = ("model", "null", "measured")
"""What is compared with the truth: the model, a prediction of 0, and the speckled input itself."""

EDGES_DB = (-24.0, -18.0, -12.0, -6.0)
"""Between the bins of true intensity."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What must be the same for all models that are compared, besides the batches.

    Attributes:
      bands: names of the bands.
      classes: names of the classes of land cover.
      masks: per batch.
      seed: of the masks.
      edges: between the bins of true intensity, dB.
    """

    bands: tuple[str, ...]
    classes: tuple[str, ...] = ()
    masks: int = 4
    seed: int = 0
    edges: tuple[float, ...] = EDGES_DB

    @property
    def bins(self) -> tuple[str, ...]:
        """Names of the bins; the lower end belongs to a bin."""
        inner = [f"{low:g} to {high:g} dB" for low, high in pairwise(self.edges)]
        return (f"below {self.edges[0]:g} dB", *inner, f"from {self.edges[-1]:g} dB")


class Sums(NamedTuple):
    """Sums over the pixels of every image and over masks; groups are bins, then classes.

    Attributes:
      error: (batch,) of (prediction - target)².
      null_error: (batch,) the same for a prediction of 0.
      values: (batch,) how many.
      squares: (batch, estimate, group, band) of (estimate - truth)², dB².
      biases: the same of estimate - truth, dB.
      pixels: (batch, group, band) how many.
    """

    error: Any
    null_error: Any
    values: Any
    squares: Any
    biases: Any
    pixels: Any


@partial(jax.jit, static_argnames=("objective", "protocol"))
def batch_sums(
    params: Any,
    backscatter: jax.Array,
    noise_free: jax.Array | None,
    land_cover: jax.Array | None,
    key: jax.Array,
    objective: PretrainObjective,
    protocol: Protocol,
) -> Sums:
    """The sums of a batch.

    Args:
      params: of the model.
      backscatter: (batch, height, width, band) dB, NaN = nodata.
      noise_free: the same without speckle and noise; without it there are no pixels in dB.
      land_cover: (batch, height, width) index of a class, or None.
      key: of the masks.
      objective: without flips, weighting `none`.
      protocol: bands, classes, masks.
    """
    settings, model = objective.preprocessing, objective.model
    size, cell, bands = settings.image_size, model.arch.mask_unit, len(protocol.bands)
    batch = preprocess(backscatter, key, settings)
    truth = jnp.full_like(batch.images, jnp.nan)
    if noise_free is not None:
        truth = RESIZE_MODES[settings.resize_mode](noise_free.astype(jnp.float32), size)
    known = batch.valid & jnp.isfinite(truth)
    truth = jnp.where(known, truth, 0.0)
    groups = jax.nn.one_hot(jnp.digitize(truth, jnp.array(protocol.edges)), len(protocol.bins))
    if land_cover is not None and protocol.classes:
        cover = fit_classes(land_cover, size, settings.resize_mode)[..., None]
        classes = jax.nn.one_hot(jnp.broadcast_to(cover, truth.shape), len(protocol.classes))
        groups = jnp.concatenate([groups, classes], axis=-1)
    groups = jnp.where(known[..., None], groups, 0.0)  # batch, row, column, band, group

    def of_mask(mask_key: jax.Array) -> Sums:
        mask = random_mask(mask_key, model.arch.mask_grid, objective.mask_ratio)
        result = reconstruct(model, params, batch, mask, norm_pix_loss=objective.norm_pix_loss)
        nothing = result._replace(prediction=jnp.zeros_like(result.prediction))
        restored = [restored_images(one, cell, bands) for one in (result, nothing)]
        images = jnp.stack([*restored, batch.images], axis=1)  # as ESTIMATES
        db = destandardise(images, jnp.array(settings.mean), jnp.array(settings.std))
        apart = jnp.where(known[:, None], db - truth[:, None], 0.0)
        sum_groups = partial(jnp.einsum, "behwk,bhwkg->begk", precision="highest")
        return Sums(
            result.error.sum((1, 2)),
            result.null_error.sum((1, 2)),
            result.valid.sum((1, 2), dtype=jnp.float32),
            sum_groups(jnp.square(apart), groups),
            sum_groups(apart, groups),
            groups.sum((1, 2)).swapaxes(1, 2),
        )

    each = jax.lax.map(of_mask, jax.random.split(key, protocol.masks))
    return jax.tree.map(lambda leaf: leaf.sum(0), each)


def fit_classes(land_cover: jax.Array, size: int, resize_mode: str) -> jax.Array:
    """Brings a map of classes to the model's input size as `spatial.FITS` does images.

    Args:
      land_cover: (batch, height, width) index of a class.
      size: side of the input in pixels.
      resize_mode: "resize" takes the nearest pixel; "pad" surrounds it with -1, no class.
    """
    if resize_mode == "pad":
        padded = pad(land_cover[..., None].astype(jnp.float32), size)[..., 0]
        return jnp.where(jnp.isfinite(padded), padded, -1).astype(jnp.int32)
    shape = (len(land_cover), size, size)
    return jax.image.resize(land_cover.astype(jnp.int32), shape, method="nearest")


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
"""What to say below the tables, by `norm_pix_loss`."""


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


def measure_reconstruction(
    objective: PretrainObjective, params: Any, batches: Iterable[Batch], protocol: Protocol
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
    settings = dataclasses.replace(objective.preprocessing, weighting=weighting, random_flip=False)
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
    objective: PretrainObjective, params: Any, number: int, batch: Batch, protocol: Protocol
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
        "model": {"error": _mean_error(total.error, total.values)},
        "null": {"error": _mean_error(total.null_error, total.values)},
        "measured": {},
        "pixels": {"error": float(total.values / protocol.masks)},
    }
    for name, groups, bands in _selections(protocol, total.pixels.shape[0]):
        chosen = np.ix_(groups, bands)
        pixels = total.pixels[chosen].sum()
        for name_of_measure in ("rmse_db", "bias_db"):
            found["pixels"][name_of_measure + name] = float(pixels / protocol.masks)
        for number, estimate in enumerate(ESTIMATES):
            square = _mean_error(total.squares[number][chosen].sum(), pixels)
            found[estimate]["rmse_db" + name] = None if square is None else square**0.5
            bias = _mean_error(total.biases[number][chosen].sum(), pixels)
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


def _mean_error(total: Any, count: Any) -> float | None:
    return float(total / count) if count else None


def sections(protocol: Protocol, *, norm_pix_loss: bool, truth: bool) -> tuple[Section, ...]:
    """The tables of the measure, for results of the task `TASK`.

    Args:
      protocol: bands, classes.
      norm_pix_loss: whether targets were normalised, for the note.
      truth: whether the records have it; without, there is one table of one metric.
    """
    error = Metric(TASK, "error", "unweighted error", ".4f", higher_is_better=False)
    title = "Pretraining, measured without weights"
    if not truth:
        return (Section(title, (error,)),)
    note = NOTES[norm_pix_loss]
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
