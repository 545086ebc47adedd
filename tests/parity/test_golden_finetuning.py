"""The published fine-tuning models: features, logits, loss, gradients, rates and resizing."""

import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from sar_mixmae_jax.models.architecture import VARIANTS
from sar_mixmae_jax.models.heads import Classifier, FloodDetector
from sar_mixmae_jax.models.layers import sincos_position_embedding
from sar_mixmae_jax.models.resize import bicubic_resize, resize_position_tables
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.training.optimizer import decay_mask, layer_scales
from tests.reference import here, nhwc, params_from, relative_error, to_here

HERE = Path(__file__).parents[1] / "golden"
VALUES = dict(np.load(HERE / "finetune.npz"))
LOSS_TOLERANCE, TOLERANCE = 1e-6, 1e-5


def tuned(name: str) -> dict:
    return params_from(np.load(HERE / f"finetuned_{name}.npz"))


@pytest.fixture(scope="module")
def classifier(golden) -> Classifier:
    return Classifier(golden.architecture(), outputs=19)


def test_golden_classification(classifier):
    """Features, logits, loss, and the gradients of three tensors."""
    params, images = tuned("classify"), nhwc(VALUES["classify/x"])
    labels = VALUES["classify/labels"]

    def loss(params):
        logits = classifier.apply({"params": params}, images)
        return get_task("classification").loss(logits, labels).mean(), logits

    (value, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    features = jax.jit(lambda p: classifier.apply({"params": p}, images, method="features"))(params)
    assert relative_error(features, VALUES["classify/features"]) < TOLERANCE
    assert relative_error(logits, VALUES["classify/logits"]) < TOLERANCE
    assert float(value) == pytest.approx(float(VALUES["classify/loss"]), rel=LOSS_TOLERANCE)
    flat = flatten_dict(gradient, sep="/")
    names = [name for name in VALUES if name.startswith("classify/grad/")]
    assert len(names) == 3
    for name in names:
        tensor = name.removeprefix("classify/grad/")
        theirs = to_here(tensor, VALUES[name])
        assert relative_error(flat[here(tensor)], theirs) < TOLERANCE, tensor


@pytest.mark.parametrize("tiling", ["released", "spatial"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_golden_flood_logits(golden, tiling, pooling):
    detector = FloodDetector(golden.architecture(), 2, tiling=tiling, pooling=pooling)
    before, after = nhwc(VALUES["flood/before"]), nhwc(VALUES["flood/after"])
    logits = jax.jit(lambda p: detector.apply({"params": p}, before, after))(tuned("flood"))
    name = "flood/logits_" + {"mean": "avg", "max": "max"}[pooling]
    name += "_spatial" if tiling == "spatial" else ""
    assert relative_error(logits, VALUES[name]) < TOLERANCE


def test_the_mean_of_the_evidence_is_the_difference_of_the_logits(golden):
    detector = FloodDetector(golden.architecture(), 2)
    dates = nhwc(VALUES["flood/before"]), nhwc(VALUES["flood/after"])
    params = {"params": tuned("flood")}
    evidence = np.asarray(detector.apply(params, *dates, method="evidence"))
    logits = VALUES["flood/logits_avg_spatial"]
    assert evidence.shape == (2, 2, 2)
    np.testing.assert_allclose(evidence.mean((1, 2)), logits[:, 1] - logits[:, 0], atol=1e-5)
    # the map is in its place: an upper right tile that does not change has no evidence of a change
    after = dates[0].copy()
    after[:, 128:] = dates[1][:, 128:]
    still = np.asarray(detector.apply(params, dates[0], after, method="evidence"))
    bias = params["params"]["head"]["bias"]
    np.testing.assert_allclose(still[:, 0], bias[1] - bias[0], atol=1e-6)
    np.testing.assert_allclose(still[:, 1], evidence[:, 1], atol=1e-5)


@pytest.mark.parametrize("variant", ["golden", "base"])
def test_golden_rates_and_decay_of_every_tensor(golden, variant):
    arch = golden.architecture() if variant == "golden" else VARIANTS[variant]
    file = "layer_decay_0.7.json" if variant == "golden" else "layer_decay_0.7_base.json"
    expected = json.loads((HERE / file).read_text())
    model = Classifier(arch, 19)
    images = jax.ShapeDtypeStruct((2, 128, 128, 2), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    scales = flatten_dict(layer_scales(params, 0.7), sep="/")
    decays = flatten_dict(decay_mask(params), sep="/")
    assert set(scales) == {here(name) for name in expected}
    for name, theirs in expected.items():
        assert scales[here(name)] == pytest.approx(theirs["lr_scale"], rel=1e-12), name
        assert decays[here(name)] == (theirs["weight_decay"] > 0), name


def test_golden_resizing_to_another_input_size(golden):
    prefix = "resize_128_to_256/"
    embedding = bicubic_resize(sincos_position_embedding(32, 8), 64).reshape(1, 4096, 8)
    assert relative_error(embedding, VALUES[prefix + "absolute_pos_embed"]) < TOLERANCE
    params = golden.params()["encoder"]
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    tables = {name: VALUES[name] for name in VALUES if prefix in name and "bias_table" in name}
    for name, theirs in tables.items():
        block = here(name.removeprefix(prefix)).split("/")[1]
        wanted[block]["attn"]["bias_table"] = jax.ShapeDtypeStruct(theirs.shape, np.float32)
    resized = resize_position_tables(params, wanted)
    assert len(tables) == 2
    for name, theirs in tables.items():
        block = here(name.removeprefix(prefix)).split("/")[1]
        assert relative_error(resized[block]["attn"]["bias_table"], theirs) < TOLERANCE


def test_the_layers_rate_scales_the_whole_update():
    """Decay included, as a rate of its own for every tensor would."""
    from sar_mixmae_jax.training.optimizer import adamw

    rng = np.random.default_rng(0)
    names = ("patch_embed", "stage_0_block_0", "merge_0", "stage_1_block_0", "norm")
    params = {
        "encoder": {name: {"w": rng.normal(size=(3, 3))} for name in names},
        "head": {"w": rng.normal(size=(3, 3))},
    }
    gradient = jax.tree.map(lambda leaf: leaf * 0.1 + 1, params)
    settings = {"b1": 0.9, "b2": 0.999, "weight_decay": 0.05}
    plain = adamw(lambda _: 1e-2, **settings)
    by_layer = adamw(lambda _: 1e-2, **settings, layer_decay=0.5)
    updates = [o.update(gradient, o.init(params), params)[0] for o in (plain, by_layer)]
    factors = {"patch_embed": 0.125, "stage_0_block_0": 0.25, "merge_0": 0.5, "norm": 0.5}
    for name, factor in {**factors, "stage_1_block_0": 0.5}.items():
        ours, whole = (update["encoder"][name]["w"] for update in updates[::-1])
        np.testing.assert_allclose(ours, factor * whole, rtol=1e-6)
    assert float(optax.global_norm(updates[1]["head"])) == pytest.approx(
        0.5 * float(optax.global_norm(updates[0]["head"])), rel=1e-5
    )
