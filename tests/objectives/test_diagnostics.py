"""Diagnostics of a batch against NumPy."""

import jax
import numpy as np
import pytest

from sar_mixmae_jax.models.masking import patchify
from sar_mixmae_jax.objectives.diagnostics import constant_weights_warning, diagnose
from sar_mixmae_jax.objectives.preprocess import PreparedBatch, Preprocessing
from sar_mixmae_jax.objectives.reconstruction import Reconstruction
from sar_mixmae_jax.objectives.weighting import Weighting

SETTINGS = Preprocessing(32, mean=(-19.0, -12.0), std=(3.0, 4.0), weighting=Weighting())
BANDS = ("VH", "VV")


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    shape = (3, 32, 32, 2)
    valid = rng.random(shape) > 0.2
    images = np.where(valid, rng.normal(size=shape), 0).astype(np.float32)
    weights = np.where(valid, rng.uniform(1, 2.7, shape), 0).astype(np.float32)
    prediction = images + np.array([0.5, -0.25], np.float32)  # biased, per band
    error = weights * (prediction - images) ** 2
    null_error = weights * images**2
    cells = [patchify(array, 8) for array in (prediction, error, null_error, valid)]
    result = Reconstruction(*cells, offset=np.zeros(()), spread=np.ones(()))
    run = jax.jit(lambda batch, result: diagnose(batch, result, SETTINGS, BANDS, 8))
    scalars = run(PreparedBatch(images, weights, valid, images), result)
    return images, weights, valid, error, null_error, {k: float(v) for k, v in scalars.items()}


def test_values(case):
    images, weights, valid, error, null_error, scalars = case
    for band, name in enumerate(BANDS):
        per_patch = [(weights[i, ..., band][valid[i, ..., band]]) for i in range(3)]
        cv = np.median([w.std() / w.mean() for w in per_patch])
        assert scalars[f"weight_cv/{name}"] == pytest.approx(cv, rel=1e-4)
        everything = np.concatenate(per_patch)
        for key, percentile in (("p05", 5), ("p95", 95)):
            expected = np.percentile(everything, percentile)
            assert scalars[f"weight_{key}/{name}"] == pytest.approx(expected, rel=1e-4)
        ratios, dark_error = [], 0.0
        for i in range(3):
            seen, w = images[i, ..., band][valid[i, ..., band]], per_patch[i]
            low, high = np.percentile(seen, (10, 90))
            ratios.append(w[seen <= low].mean() / w[seen >= high].mean())
            dark_error += error[i, ..., band][valid[i, ..., band]][seen <= low].sum()
        assert scalars[f"weight_dark_bright/{name}"] == pytest.approx(np.median(ratios), rel=1e-3)
        share = dark_error / error[..., band].sum()
        assert scalars[f"loss_dark_share/{name}"] == pytest.approx(share, rel=1e-2)
        assert scalars[f"weight_flat_share/{name}"] == 0
    assert scalars["bias_db/VH"] == pytest.approx(0.5 * 3.0, rel=1e-4)
    assert scalars["bias_db/VV"] == pytest.approx(-0.25 * 4.0, rel=1e-4)
    explained = 1 - error.sum() / null_error.sum()
    assert scalars["explained_variance"] == pytest.approx(explained, rel=1e-4)


def test_a_nearly_constant_weighting_is_seen():
    warning = constant_weights_warning({"VH": 0.07, "VV": 0.028})
    assert warning is not None
    assert "is 0.028 in VV, below 0.03" in warning
    assert constant_weights_warning({"VH": 0.07, "VV": 0.031}) is None
