"""The published fine-tuning models: features, logits, loss, gradients, rates and resizing."""

import json

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
from tests.reference import nhwc, parameter_layout, parameter_path, relative_error

LOSS_TOLERANCE, TOLERANCE = 1e-6, 1e-5


@pytest.fixture(scope="module")
def classifier(golden):
    """The classifier of the golden folder with its parameters."""
    architecture, params, outputs = golden.finetuned("classify")
    return Classifier(architecture, outputs), params


def test_golden_classification(golden, classifier):
    """Features, logits, loss, and the gradients that are stored."""
    (model, params), arrays = classifier, golden.finetune
    images, labels = nhwc(arrays["classify/x"]), arrays["classify/labels"]

    def loss(params):
        logits = model.apply({"params": params}, images)
        features = model.apply({"params": params}, images, method="features")
        return get_task("classification").loss(logits, labels).mean(), (logits, features)

    value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (logits, features)), gradient = value_and_grad(params)
    assert relative_error(features, arrays["classify/features"]) < TOLERANCE
    assert relative_error(logits, arrays["classify/logits"]) < TOLERANCE
    assert float(value) == pytest.approx(float(arrays["classify/loss"]), rel=LOSS_TOLERANCE)
    flat = flatten_dict(gradient, sep="/")
    names = [name for name in arrays if name.startswith("classify/grad/")]
    assert names
    for name in names:
        tensor = name.removeprefix("classify/grad/")
        expected = parameter_layout(tensor, arrays[name])
        assert relative_error(flat[parameter_path(tensor)], expected) < TOLERANCE, tensor


@pytest.fixture(scope="module")
def flood(golden):
    """Parameters, dates, and a function of these: (evidence, logits by tiling and pooling)."""
    architecture, params, outputs = golden.finetuned("flood")

    @jax.jit
    def compute(params, before, after):
        evidence = FloodDetector(architecture, outputs).apply(
            {"params": params}, before, after, method="evidence"
        )
        logits = {
            (tiling, pooling): FloodDetector(
                architecture, outputs, tiling=tiling, pooling=pooling
            ).apply({"params": params}, before, after)
            for tiling in ("released", "spatial")
            for pooling in ("mean", "max")
        }
        return evidence, logits

    dates = nhwc(golden.finetune["flood/before"]), nhwc(golden.finetune["flood/after"])
    return params, dates, compute


@pytest.mark.parametrize("tiling", ["released", "spatial"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_golden_flood_logits(golden, flood, tiling, pooling):
    params, dates, compute = flood
    logits = compute(params, *dates)[1][tiling, pooling]
    name = "flood/logits_" + {"mean": "avg", "max": "max"}[pooling]
    name += "_spatial" if tiling == "spatial" else ""
    assert relative_error(logits, golden.finetune[name]) < TOLERANCE


def test_golden_evidence_averages_to_the_difference_of_the_logits(golden, flood):
    params, dates, compute = flood
    evidence = np.asarray(compute(params, *dates)[0])
    logits = golden.finetune["flood/logits_avg_spatial"]
    tile = golden.finetuned("flood")[0].image_size
    assert evidence.shape == (len(logits), *(side // tile for side in dates[0].shape[1:3]))
    np.testing.assert_allclose(evidence.mean((1, 2)), logits[:, 1] - logits[:, 0], atol=1e-5)
    # Georeference of the map: tiles of the first row that do not change have no evidence.
    after = dates[0].copy()
    after[:, tile:] = dates[1][:, tile:]
    partial = np.asarray(compute(params, dates[0], after)[0])
    bias = params["head"]["bias"]
    np.testing.assert_allclose(partial[:, 0], bias[1] - bias[0], atol=1e-6)
    np.testing.assert_allclose(partial[:, 1:], evidence[:, 1:], atol=1e-5)


@pytest.mark.parametrize("variant", ["golden", "base"])
def test_golden_rates_and_decay_of_every_tensor(golden, variant):
    file = "layer_decay_0.7.json" if variant == "golden" else "layer_decay_0.7_base.json"
    expected = json.loads(golden.path(file).read_text())
    if variant == "golden":
        architecture, _, outputs = golden.finetuned("classify")
    else:
        architecture, outputs = VARIANTS[variant], 19
    model, side = Classifier(architecture, outputs), architecture.image_size
    images = jax.ShapeDtypeStruct((2, side, side, architecture.bands), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    scales = flatten_dict(layer_scales(params, 0.7), sep="/")
    decays = flatten_dict(decay_mask(params), sep="/")
    assert set(scales) == {parameter_path(name) for name in expected}
    for name, settings in expected.items():
        assert scales[parameter_path(name)] == pytest.approx(settings["lr_scale"], rel=1e-12), name
        assert decays[parameter_path(name)] == (settings["weight_decay"] > 0), name


def test_golden_resizing_to_another_input_size(golden):
    """Position embedding and bias tables, bicubic, of the sizes that the folder names."""
    prefixes = {name.split("/")[0] for name in golden.finetune if name.startswith("resize_")}
    if not prefixes:
        pytest.skip(f"{golden.folder / 'finetune.npz'} has no array under 'resize_'")
    for prefix in prefixes:
        expected = golden.finetune[f"{prefix}/absolute_pos_embed"]
        before, after, width = (
            round(golden.tensors["absolute_pos_embed"].shape[1] ** 0.5),
            round(expected.shape[1] ** 0.5),
            expected.shape[2],
        )
        embedding = bicubic_resize(sincos_position_embedding(before, width), after)
        assert relative_error(embedding.reshape(expected.shape), expected) < TOLERANCE
        params = golden.params()["encoder"]
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        tables = {
            parameter_path(name.removeprefix(f"{prefix}/")).split("/")[1]: array
            for name, array in golden.finetune.items()
            if name.startswith(f"{prefix}/") and "bias_table" in name
        }
        assert tables
        for block, table in tables.items():
            target[block]["attn"]["bias_table"] = jax.ShapeDtypeStruct(table.shape, np.float32)
        resized = resize_position_tables(params, target)
        for block, table in tables.items():
            assert relative_error(resized[block]["attn"]["bias_table"], table) < TOLERANCE


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
