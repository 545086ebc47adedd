"""Looking at a model from outside: what is drawn is what it claims to be."""

import logging as python_logging

import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.data.record_source import RecordSource
from sar_mixmae_jax.models.masking import patchify
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.reconstruction_evaluator import ReconstructionEvaluator
from tests.training.test_train_step import SIZE


class Oracle(MixMAE):
    """Model that predicts the normalised target exactly."""

    def __call__(self, images, mask):
        """Return the target of `norm_pix`, for images without nodata."""
        cells = patchify(images, self.arch.mask_unit)
        deviation = jnp.sqrt(cells.var(-1, keepdims=True, ddof=1) + 1e-6)
        return (cells - cells.mean(-1, keepdims=True)) / deviation


@pytest.fixture(scope="module")
def patches() -> PatchDataset:
    rng = np.random.default_rng(0)
    records = [
        {"id": b"patch", "backscatter": rng.normal(-15, 5, (32, 32, 2)).astype(np.float32)}
        for _ in range(4)
    ]
    source = RecordSource(records, None)
    statistics = Statistics((-19.0, -12.0), (5.0, 6.0), "nothing")
    return PatchDataset(source, "test", ("VH", "VV"), "dB", statistics)


def inspector(patches, weighting=Weighting(), drawn=2):  # noqa: B008, it is frozen
    settings = Preprocessing(32, patches.statistics.mean, patches.statistics.std, weighting)
    objective = PretrainObjective(Oracle(SIZE), settings, mask_ratio=0.5, norm_pix_loss=True)
    return ReconstructionEvaluator(objective, patches, count=4, drawn=drawn, seed=0)


def test_the_reconstruction_of_an_oracle_is_the_measurement_in_db(patches):
    scalars, panels = inspector(patches).reconstruct({})
    source = np.stack([patches.source[index]["backscatter"] for index in range(2)])
    np.testing.assert_allclose(panels.measured, source, atol=1e-4)
    np.testing.assert_allclose(panels.reconstructed, source, atol=1e-3)
    assert scalars["explained_variance"] == pytest.approx(1.0, abs=1e-4)
    assert scalars["bias_db/VH"] == pytest.approx(0.0, abs=1e-3)


def test_the_mixture_is_own_where_the_mask_is_0_and_partner_where_it_is_1(patches):
    panels = inspector(patches, drawn=4).reconstruct({})[1]
    cell = 32 // len(panels.mask)
    for row, column in np.ndindex(panels.mask.shape):
        here = np.s_[:, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        source = panels.measured[::-1] if panels.mask[row, column] else panels.measured
        np.testing.assert_array_equal(panels.mixed[here], source[here])
    assert panels.mask.sum() == panels.mask.size / 2


def warnings_of(inspector, cv: float) -> list[str]:
    records = []
    handler = python_logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.get_absl_logger().addHandler(handler)
    try:
        inspector.warn({"weight_cv/VH": 0.07, "weight_cv/VV": cv})
    finally:
        logging.get_absl_logger().removeHandler(handler)
    return records


def test_a_nearly_constant_weighting_is_warned_of(patches):
    (message,) = warnings_of(inspector(patches), cv=0.028)
    assert "weights are nearly constant" in message
    assert "0.028 in VV" in message
    assert not warnings_of(inspector(patches), cv=0.031)
    assert not warnings_of(inspector(patches, Weighting("none")), cv=0.0)
