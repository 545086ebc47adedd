"""Preparation of batches of several dates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.models.heads import FloodDetector
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    finetune_loss,
    predict_outputs,
    prepare_batch,
)

RAMP = np.arange(16, dtype=np.float32).reshape(4, 4)
FLIPS = [RAMP, RAMP[::-1], RAMP[:, ::-1], RAMP[::-1, ::-1]]


def flips_of(images: jax.Array) -> list[int]:
    """The entry of `FLIPS` that each image is, nodata aside."""
    found = []
    for image in np.asarray(images)[..., 0]:
        (number,) = [n for n, flip in enumerate(FLIPS) if ((image == flip) | (image == 0)).all()]
        found.append(number)
    return found


@pytest.mark.parametrize("independent", [False, True])
def test_flips_of_the_dates_of_a_pair(independent):
    """In the released code every date is flipped on its own; nodata stays common to both."""
    before = np.repeat(RAMP[None, :, :, None], 24, axis=0)
    after = before.copy()
    after[:, 0, 1] = np.nan  # value 1
    objective = FinetuneObjective(
        get_task("flood"),
        FloodDetector(VARIANTS["tiny"], 2),
        Preprocessing(image_size=4, mean=(0.0,), std=(1.0,)),
        independent,
    )
    batch = {"before": jnp.asarray(before), "after": jnp.asarray(after)}
    dates = prepare_batch(batch, jax.random.key(0), objective)
    was, now = map(flips_of, dates)
    assert set(was) == set(now) == {0, 1, 2, 3}
    assert (was == now) != independent
    assert not any((date == 1).any() for date in dates)
    assert all((date == 2).any((1, 2, 3)).all() for date in dates)
    upright = prepare_batch(batch, None, objective)
    assert [flips_of(date) for date in upright] == [[0] * 24] * 2


class LaterImage:
    """A model whose logits are the two bands of the second date."""

    def apply(self, variables, before, after, key=None):
        """Return the image of the second date."""
        return after


def test_labels_without_a_measurement_are_not_learned():
    """The right half of the one date and a band of a pixel of the other are nodata."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 1, 4, 4, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (1, 4, 4)).astype(np.int8)
    measured = np.ones((1, 4, 4), bool)
    measured[:, :, 2:] = measured[0, 1, 1] = False
    batch = {"before": before.copy(), "after": after.copy(), "labels": labels}
    batch["before"][:, :, 2:] = np.nan
    batch["after"][0, 1, 1, 0] = np.nan
    settings = Preprocessing(4, (0.0, 0.0), (1.0, 1.0), random_flip=False)
    objective = FinetuneObjective(get_task("pair_segmentation"), LaterImage(), settings)
    logits, truth = after[measured], labels[measured].astype(int)
    right = np.take_along_axis(logits, truth[:, None], -1)[:, 0]
    expected = (np.log(np.exp(logits).sum(-1)) - right).mean()
    total, (count, _) = finetune_loss(None, batch, jax.random.key(0), objective)
    assert (float(total), float(count)) == (pytest.approx(expected, rel=1e-5), 1)
    outputs = predict_outputs(None, batch, objective)
    np.testing.assert_allclose(outputs["loss"], [expected], rtol=1e-5)
    assert int(outputs["confusion"].sum()) == 7
    assert int(outputs["unmeasured"].sum()) == 9
