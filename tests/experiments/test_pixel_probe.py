"""The decoder of a frozen encoder sees channels of mean 0 and deviation 1."""

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.data.record_cache import PackedSource
from sar_mixmae_jax.experiments.pixel_probe import standardise_head
from sar_mixmae_jax.experiments.seed_training import load_records, select_seed, stack
from sar_mixmae_jax.models.segmenter import Segmenter
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, init_model_params
from tests.models.test_segmenter import ARCH

ROWS = [np.array([0, 2, 3]), np.array([1, 2, 4])]


def test_norms_standardise_the_records_of_each_seed():
    model = Segmenter(ARCH, 2, decoder_width=0)
    settings = Preprocessing(ARCH.image_size, (-18.0, -12.0), (5.0, 4.0))
    task = get_task("segmentation")
    objective = FinetuneObjective(task, model, settings, freeze_encoder=True)
    random = np.random.default_rng(0)
    (name,) = task.images
    shape = (5, ARCH.image_size, ARCH.image_size, 2)
    images = random.normal(-15, 5, shape).astype(np.float32)
    source = PackedSource({"id": np.arange(5).astype(str), name: images})
    records = load_records(source, np.arange(5))
    keys = [jax.random.key(seed) for seed in (0, 1)]
    initial = stack([jax.device_get(init_model_params(objective, key)) for key in keys])
    params = standardise_head(objective, initial, records, ROWS, 4)
    for seed, rows in enumerate(ROWS):
        of_seed = select_seed(params, seed)
        given = (images[rows] - np.array(settings.mean)) / np.array(settings.std)
        maps = model.apply({"params": of_seed}, [jnp.asarray(given)], method="feature_maps")
        for stage, features in enumerate(np.asarray(each, np.float64) for each in maps):
            centred = features - features.mean(-1, keepdims=True)
            normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
            norm = of_seed["head"][f"norm_{stage}"]
            seen = normed * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
            np.testing.assert_allclose(seen.mean((0, 1, 2)), 0, atol=2e-3)
            np.testing.assert_allclose(seen.std((0, 1, 2)), 1, rtol=2e-3)
