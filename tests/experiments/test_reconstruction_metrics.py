"""The measure of pretraining that no weight enters: the sums written out again in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.experiments.comparison_report import explained_by_pretraining
from sar_mixmae_jax.experiments.comparison_tables import make_table, to_markdown
from sar_mixmae_jax.experiments.reconstruction_error import Batch, Protocol
from sar_mixmae_jax.experiments.reconstruction_metrics import (
    PRETRAINING,
    _complete,
    measure_reconstruction,
    reconstruction_sections,
)
from sar_mixmae_jax.experiments.seed_statistics import Result
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.masking import patchify, random_mask, unit_moments
from sar_mixmae_jax.models.mixmae import MixMAE, init_params
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess, resize_labels
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, reconstruct
from sar_mixmae_jax.objectives.speckle_filter import SpeckleFilter, reduce_speckle
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.utils.errors import DivergedError, InputError

SIZE = Architecture(
    embed_dim=8,
    num_heads=(1, 2),
    depths=(1, 1),
    window_sizes=(8, 4),
    image_size=32,
    decoder_embed_dim=16,
    decoder_depth=1,
    decoder_num_heads=2,
)


class Silent(MixMAE):
    """Model with the prediction 0."""

    def __call__(self, images, mask):
        """Return zeros, in cells."""
        return jnp.zeros((len(images), mask.size, images[0].size // mask.size))


MEAN, STD = (-19.0, -12.0), (5.0, 4.0)
PROTOCOL = Protocol(("VH", "VV"), ("water", "crops", "unseen"), masks=2, seed=3)


def objective(weighting="per_channel", norm_pix_loss=True, resize_mode="resize", model=None):
    model = model or MixMAE(SIZE)
    settings = Preprocessing(32, MEAN, STD, Weighting(weighting), resize_mode=resize_mode)
    return PretrainObjective(model, settings, mask_ratio=0.5, norm_pix_loss=norm_pix_loss)


@pytest.fixture(scope="module")
def params():
    return init_params(MixMAE(SIZE), jax.random.key(0))


def records(count: int, seed: int, side: int = 32) -> Batch:
    """Water below crops, speckled, the first image half cut off."""
    rng = np.random.default_rng(seed)
    cover = np.zeros((count, side, side), np.uint8)
    cover[:, : side // 3] = 1
    noise_free = np.where(cover[..., None] == 1, [-17.0, -11.0], [-27.0, -20.0])
    noise_free = (noise_free + rng.normal(0, 3, noise_free.shape)).astype(np.float32)
    noise_free[0, :, side // 2 :] = np.nan
    speckle = 10 * np.log10(rng.gamma(4.4, 1 / 4.4, noise_free.shape))
    return Batch((noise_free + speckle).astype(np.float32), noise_free, cover)


PREPROCESS = jax.jit(preprocess, static_argnums=2)
RECONSTRUCT = jax.jit(reconstruct, static_argnames=("model", "norm_pix_loss"))


def by_hand(params, batches, norm_pix_loss):
    """(prediction - target)² and restored - truth, cell by cell, in float64."""
    errors, nulls, apart = [], [], {name: [] for name in ("model", "null", "measured")}
    truths, covers = [], []
    settings = dataclasses.replace(objective("none").preprocessing, random_flip=False)
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(3), number)
        for mask_key in jax.random.split(key, 2):
            mask = random_mask(mask_key, SIZE.mask_grid, 0.5)
            prepared = PREPROCESS(batch.backscatter, key, settings)
            result = RECONSTRUCT(MixMAE(SIZE), params, prepared, mask, norm_pix_loss=norm_pix_loss)
            side, grid = SIZE.mask_unit, SIZE.mask_grid
            for image in range(len(batch.backscatter)):
                for cell in range(grid * grid):
                    row, column = side * (cell // grid), side * (cell % grid)
                    here = np.s_[image, row : row + side, column : column + side]
                    db = batch.backscatter[here].astype(float)
                    z = (db - MEAN) / STD
                    seen = np.isfinite(db)
                    prediction = np.array(result.prediction[image, cell], float)
                    prediction = prediction.reshape(side, side, 2)
                    level, scale = 0.0, 1.0
                    if norm_pix_loss and seen.any():
                        level, scale = z[seen].mean(), np.sqrt(z[seen].var(ddof=1) + 1e-6)
                    errors.append(np.square(prediction - (z - level) / scale)[seen])
                    nulls.append(np.square((z - level) / scale)[seen])
                    known = batch.noise_free[here].astype(float)
                    for name, estimate in (
                        ("model", prediction * scale + level),
                        ("null", np.full_like(z, level)),
                        ("measured", z),
                    ):
                        apart[name].append((estimate * STD + MEAN - known).reshape(-1, 2))
                    truths.append(known.reshape(-1, 2))
                    covers.append(np.repeat(batch.land_cover[here].reshape(-1, 1), 2, axis=1))
    joined = {name: np.concatenate(each) for name, each in apart.items()}
    return np.concatenate(errors), np.concatenate(nulls), joined, truths, covers


def references_by_hand(batches, norm_pix_loss) -> tuple[float, float]:
    """Mean squared error of the means of bands in cells, and of the truth with speckle's mean."""
    levels, ceilings, side, grid = [], [], SIZE.mask_unit, SIZE.mask_grid
    for batch in batches:
        speckle = np.nanmean((batch.backscatter - batch.noise_free) / STD, axis=(0, 1, 2))
        for image, row, column in np.ndindex(len(batch.backscatter), grid, grid):
            rows, columns = side * row, side * column
            here = np.s_[image, rows : rows + side, columns : columns + side]
            z = (batch.backscatter[here].astype(float) - MEAN) / STD
            truth = (batch.noise_free[here].astype(float) - MEAN) / STD + speckle
            seen = np.isfinite(z)
            if not seen.any():
                continue
            scale = np.sqrt(z[seen].var(ddof=1) + 1e-6) if norm_pix_loss else 1.0
            levels.append(np.square((np.nanmean(z, (0, 1)) - z) / scale)[seen])
            ceilings.append(np.square((truth - z) / scale)[seen])
    return np.concatenate(levels).mean(), np.concatenate(ceilings).mean()


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_measures_are_those_of_numpy(params, norm_pix_loss):
    batches = [records(4, 0), records(4, 1)]
    found = measure_reconstruction(
        objective(norm_pix_loss=norm_pix_loss), params, batches, PROTOCOL
    )
    errors, nulls, apart, truths, covers = by_hand(params, batches, norm_pix_loss)
    truths, covers = np.concatenate(truths), np.concatenate(covers)
    assert found["model"]["error"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["null"]["error"] == pytest.approx(nulls.mean(), rel=1e-4)
    assert found["pixels"]["error"] * 2 == errors.size
    edges = [-np.inf, -24, -18, -12, -6, np.inf]
    bins = ["below -24 dB", "-24 to -18 dB", "-18 to -12 dB", "-12 to -6 dB", "from -6 dB"]
    groups = {
        name: (truths >= edges[at]) & (truths < edges[at + 1]) for at, name in enumerate(bins)
    }
    groups |= {"water": covers == 0, "crops": covers == 1, "unseen": covers == 2}
    chosen = {"": np.ones_like(truths, bool)}
    for band, name in enumerate(("VH", "VV")):
        only = np.arange(2) == band
        chosen[f"/{name}"] = np.broadcast_to(only, truths.shape)
        chosen |= {f"/{name}/{group}": pixels & only for group, pixels in groups.items()}
    levels, ceilings = references_by_hand(batches, norm_pix_loss)
    for name, expected in (("band_means", levels), ("truth", ceilings)):
        assert found[name]["error"] == pytest.approx(expected, rel=1e-4)
        explained = 1 - expected / nulls.mean()
        assert found[name]["explained_variance"] == pytest.approx(explained, abs=1e-4)
    explained = 1 - errors.mean() / nulls.mean()
    assert found["model"]["explained_variance"] == pytest.approx(explained, abs=1e-4)
    for estimate, values in apart.items():
        keys = {measured + name for name in chosen for measured in ("rmse_db", "bias_db")}
        assert found[estimate].keys() - {"error", "explained_variance"} == keys
        for name, pixels in chosen.items():
            inside = values[pixels & np.isfinite(truths)]
            rmse, bias = found[estimate]["rmse_db" + name], found[estimate]["bias_db" + name]
            assert found["pixels"]["rmse_db" + name] * 2 == inside.size
            if not inside.size:
                assert rmse is bias is None
                continue
            assert rmse == pytest.approx(np.sqrt(np.square(inside).mean()), rel=1e-4)
            assert bias == pytest.approx(inside.mean(), abs=1e-3)
    assert found["model"]["rmse_db/VH/unseen"] is None
    assert found["pixels"]["rmse_db/VV/water"] > 0


def test_the_weighting_changes_nothing(params):
    batches = [records(4, 0)]
    found = [
        measure_reconstruction(objective(name), params, batches, PROTOCOL)
        for name in ("none", "per_channel")
    ]
    assert found[0] == found[1]


def test_a_measurement_without_speckle_is_the_truth():
    batch = records(2, 0, side=30)
    quiet = batch._replace(backscatter=batch.noise_free)
    for fit in ("resize", "pad"):
        found = measure_reconstruction(
            objective(resize_mode=fit, model=Silent(SIZE)), {}, [quiet], PROTOCOL
        )
        assert found["model"]["rmse_db"] == found["null"]["rmse_db"]
        assert found["measured"]["rmse_db"] == pytest.approx(0, abs=1e-4)
        assert found["null"]["rmse_db"] > 1


def test_an_odd_batch_mixes_no_image_with_itself_and_counts_none_twice(params):
    three = records(3, 0)
    completed = _complete(three)
    partners = completed.backscatter[::-1]
    for image, partner in zip(completed.backscatter, partners, strict=True):
        assert not np.array_equal(image, partner, equal_nan=True)
    found = measure_reconstruction(objective(), params, [three], PROTOCOL)
    valid = np.isfinite(three.backscatter).sum()
    assert found["pixels"]["error"] == found["pixels"]["rmse_db"] == valid
    # The three images of the completed batch, one mask at a time, without the fourth.
    errors, *_ = by_hand(params, [completed], norm_pix_loss=True)
    by_mask = np.split(errors, 2)
    expected = np.mean([one[:valid] for one in by_mask])
    assert found["model"]["error"] == pytest.approx(expected, rel=1e-4)


def test_without_a_truth_there_is_the_error_alone():
    batch = Batch(records(2, 0).backscatter)
    found = measure_reconstruction(objective(model=Silent(SIZE)), {}, [batch], PROTOCOL)
    assert found["model"]["error"] > 0
    in_db = [name for name in found["model"] if "_db" in name]
    assert {found["model"][name] for name in in_db} == {None}
    assert found["truth"]["explained_variance"] is None


class FilteredTarget(Silent):
    """Model that predicts the filtered target, normalised by the target's own moments."""

    def __call__(self, images, mask):
        """Return the normalised cells."""
        raw = jnp.asarray(QUIET.backscatter)
        target = (reduce_speckle(raw, SpeckleFilter("boxcar")) - jnp.array(MEAN)) / jnp.array(STD)
        cells = patchify(jnp.where(jnp.isfinite(target), target, 0.0), self.arch.mask_unit)
        offset, spread = unit_moments(cells, patchify(jnp.isfinite(target), self.arch.mask_unit))
        return (cells - offset) / spread


QUIET = records(2, 0)


def test_filtered_targets_are_restored_with_their_own_moments():
    settings = objective(model=FilteredTarget(SIZE))
    speckle = SpeckleFilter("boxcar")
    preprocessing = dataclasses.replace(settings.preprocessing, speckle=speckle)
    settings = dataclasses.replace(settings, preprocessing=preprocessing)
    found = measure_reconstruction(settings, {}, [QUIET], PROTOCOL)
    error = np.asarray(reduce_speckle(jnp.asarray(QUIET.backscatter), speckle)) - QUIET.noise_free
    assert found["model"]["rmse_db"] == pytest.approx(np.sqrt(np.nanmean(error**2)), rel=1e-4)
    assert found["model"]["bias_db"] == pytest.approx(np.nanmean(error), abs=1e-3)
    measured = measure_reconstruction(objective(model=Silent(SIZE)), {}, [QUIET], PROTOCOL)
    assert found["null"] == measured["null"]


def test_too_few_images_and_diverged_models_are_refused(params):
    with pytest.raises(InputError, match="a batch has 1 image, expected at least 2"):
        measure_reconstruction(objective(), params, [records(1, 0)], PROTOCOL)
    with pytest.raises(InputError, match="found no batch"):
        measure_reconstruction(objective(), params, [], PROTOCOL)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(DivergedError, match="not finite"):
        measure_reconstruction(objective(), broken, [records(4, 0)], PROTOCOL)


def test_classes_are_those_of_the_nearest_pixel():
    cover = np.random.default_rng(0).integers(0, 5, (2, 30, 30)).astype(np.uint8)
    found = resize_labels(jnp.asarray(cover), 32, "resize")
    centres = np.floor((np.arange(32) + 0.5) * 30 / 32).astype(int)
    np.testing.assert_array_equal(found, cover[:, centres][:, :, centres])
    padded = resize_labels(jnp.asarray(cover), 32, "pad")
    np.testing.assert_array_equal(padded[:, 1:31, 1:31], cover)
    assert (np.delete(padded, np.s_[1:31], axis=1) == -1).all()


def test_tables_show_the_metrics(params):
    found = measure_reconstruction(objective(), params, [records(4, 0)], PROTOCOL)
    results = [Result("none", 0, PRETRAINING, found["model"])]
    baselines = [Result(name, None, PRETRAINING, found[name]) for name in ("null", "measured")]
    sections = reconstruction_sections(PROTOCOL, norm_pix_loss=True, has_truth=True)
    assert {metric.name for one in sections for metric in one.metrics} <= found["model"].keys()
    page = to_markdown(
        "Truth", [make_table(one, results, baselines, ("none",)) for one in sections]
    )
    assert f"{found['model']['rmse_db/VV/water']:.3f} (1)" in page
    assert f"| {found['null']['bias_db/VH/crops']:+.3f} |" in page
    assert "its level, and most of the bias, is not learned" in page
    (alone,) = reconstruction_sections(PROTOCOL, norm_pix_loss=True, has_truth=False)
    assert [metric.name for metric in alone.metrics] == ["error", "explained_variance"]


def test_the_error_that_each_pretraining_removes():
    results = [
        Result(arm, seed, PRETRAINING, {"error": error + 0.01 * seed})
        for arm, error in (("none", 0.97), ("weighted", 1.0))
        for seed in (0, 1)
    ]
    null = [Result("null", None, PRETRAINING, {"error": 1.0})]
    (told,) = explained_by_pretraining(results, null)
    assert "none 2.5%, weighted -0.5%" in told
    assert "**weighted: none of it.**" in told
    assert explained_by_pretraining(results, []) == explained_by_pretraining([], null) == []
