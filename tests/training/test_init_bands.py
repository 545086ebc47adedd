"""Models of other bands than their encoder: rules of filters and prediction head, statistics."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest

from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.models.resize import (
    BAND_RULES,
    change_decoder_bands,
    change_encoder_bands,
    check_band_rule,
)
from sar_mixmae_jax.run_report.history import read_history
from sar_mixmae_jax.run_report.sections import initialisation_section
from sar_mixmae_jax.training import finetune, pretrain
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.source_checkpoint import (
    encoder_param_shapes,
    find_source_checkpoint,
    inherit_statistics,
)
from sar_mixmae_jax.utils.errors import InputError
from tests.shrink import TWO_STAGES, small_config, small_tuning

BOTH = ("VH", "VV")
PATCH, WIDTH, UNIT = 4, 5, 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def embedding(rng, bands: int):
    """An encoder of a patch embedding alone."""
    kernel = rng.normal(size=(PATCH * PATCH * bands, WIDTH)).astype(np.float32)
    bias = rng.normal(size=WIDTH).astype(np.float32)
    return {"patch_embed": {"proj": {"kernel": kernel, "bias": bias}, "norm": {"scale": bias}}}


def token(params, image):
    """Return the token of one (PATCH, PATCH, band) image, row by row, bands last."""
    projection = params["patch_embed"]["proj"]
    return image.reshape(-1) @ projection["kernel"] + projection["bias"]


@pytest.mark.parametrize(
    ("old", "new"),
    [(BOTH, ("VV",)), (("VV",), BOTH), (BOTH, ("VV", "VH")), (("VV",), ("HH", "VV", "VH"))],
)
def test_a_subset_sees_other_bands_as_nodata(rng, old, new):
    """Nodata is 0 after standardisation; the band that both have gives the same token."""
    params = embedding(rng, len(old))
    changed = change_encoder_bands(params, old, new, "subset")
    image = {name: rng.normal(size=(PATCH, PATCH)).astype(np.float32) for name in {*old, *new}}
    shared = {name: values * (name in old and name in new) for name, values in image.items()}
    before = token(params, np.stack([shared[name] for name in old], -1))
    after = token(changed, np.stack([image[name] for name in new], -1))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    assert changed["patch_embed"]["norm"] is params["patch_embed"]["norm"]


@pytest.mark.parametrize(("old", "new"), [(BOTH, ("HH",)), (("VV",), BOTH), (BOTH, ("HV", "HH"))])
def test_a_mean_keeps_the_token_of_equal_bands(rng, old, new):
    params = embedding(rng, len(old))
    changed = change_encoder_bands(params, old, new, "mean")
    image = rng.normal(size=(PATCH, PATCH, 1)).astype(np.float32)
    before, after = (
        token(tree, np.repeat(image, len(bands), -1))
        for tree, bands in ((params, old), (changed, new))
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    kernel = changed["patch_embed"]["proj"]["kernel"].reshape(PATCH, PATCH, len(new), WIDTH)
    np.testing.assert_array_equal(kernel, kernel[:, :, :1].repeat(len(new), 2))


def test_the_prediction_head_predicts_the_same_bands(rng):
    """A new band begins at the prediction 0, the mean of the unit; a mean predicts their mean."""
    head = {
        "kernel": rng.normal(size=(WIDTH, UNIT * UNIT * 2)).astype(np.float32),
        "bias": rng.normal(size=UNIT * UNIT * 2).astype(np.float32),
    }
    token = rng.normal(size=WIDTH).astype(np.float32)

    def predict(pred, bands: int):
        return (token @ pred["kernel"] + pred["bias"]).reshape(UNIT, UNIT, bands)

    both = predict(head, 2)
    change = partial(change_decoder_bands, {"pred": head, "embed": 1}, BOTH)
    np.testing.assert_allclose(predict(change(("VV",), "subset")["pred"], 1), both[..., 1:])
    new = predict(change(("HH", "VH"), "subset")["pred"], 2)
    np.testing.assert_allclose(new, np.stack([0 * both[..., 0], both[..., 0]], -1))
    mean = predict(change(("HV", "HH"), "mean")["pred"], 2)
    np.testing.assert_allclose(mean, both.mean(-1, keepdims=True).repeat(2, -1), atol=1e-5)
    assert change(("VV",), "mean")["embed"] == 1


@pytest.mark.parametrize(
    ("rule", "new", "message"),
    [
        ("strict", ("VV",), "the bands VH, VV, and the model has VV: set --config.bands"),
        ("strict", ("VV", "VH", "HH"), "the model has VV, VH, HH: set .*init_bands=subset"),
        ("subset", ("HV", "HH"), "share none: set --config.init_bands=mean"),
    ],
)
def test_rules_that_do_not_apply(rule, new, message):
    with pytest.raises(InputError, match=message):
        check_band_rule(rule, BOTH, new)
    check_band_rule(rule, BOTH, BOTH)


@pytest.mark.parametrize("rule", BAND_RULES)
def test_another_order_of_the_bands_keeps_the_tokens_under_every_rule(rng, rule):
    params, image = embedding(rng, 2), rng.normal(size=(PATCH, PATCH, 2)).astype(np.float32)
    check_band_rule(rule, BOTH, BOTH[::-1])
    changed = change_encoder_bands(params, BOTH, BOTH[::-1], rule)
    np.testing.assert_allclose(token(changed, image[..., ::-1]), token(params, image), rtol=1e-5)
    head = {"bias": np.arange(UNIT * UNIT * 2, dtype=np.float32)}
    swapped = change_decoder_bands({"pred": head}, BOTH, BOTH[::-1], rule)["pred"]["bias"]
    np.testing.assert_array_equal(swapped.reshape(-1, 2)[:, ::-1].ravel(), head["bias"])


def starting(data_dir, encoder_run, **changes):
    start = {**TWO_STAGES, "init": str(encoder_run), "bands": ("VV",), **changes}
    return small_config(data_dir, **start)


def test_pretraining_goes_on_with_one_of_two_bands(built, encoder_run, tmp_path, caplog):
    """Filters, head and statistics of that band; the rule is recorded and reported."""
    with pytest.raises(InputError, match=r"checkpoints/2 has the bands VH, VV, and the model has"):
        pretrain.set_up(starting(built, encoder_run), tmp_path)
    with pytest.raises(InputError, match="unknown init_bands 'some'"):
        pretrain.set_up(starting(built, encoder_run, init_bands="some"), tmp_path)
    setup = pretrain.set_up(starting(built, encoder_run, init_bands="subset"), tmp_path)
    model = setup.description.model
    assert (model.bands, model.architecture.bands) == (("VV",), 1)
    assert (model.pretrained.bands, model.pretrained.init_bands) == (BOTH, "subset")
    assert setup.source[0]["backscatter"].shape[-1] == 1
    source = find_source_checkpoint(encoder_run)
    assert model.statistics == source.statistics.select([1])

    shapes = jax.eval_shape(setup.init_state)
    state = setup.load_weights(shapes)
    assert jax.tree.map(np.shape, state.params) == jax.tree.map(np.shape, shapes.params)
    assert "128 px and the bands VH, VV: moments of AdamW start at zero" in caplog.text
    like = {"params": {"encoder": encoder_param_shapes(source.arch)}}
    stored = read_subtree(source.path, like)["params"]["encoder"]["patch_embed"]["proj"]["kernel"]
    np.testing.assert_array_equal(
        state.params["encoder"]["patch_embed"]["proj"]["kernel"], stored[1::2]
    )

    description = RunDescription.from_json(setup.description.to_json())
    assert description == setup.description
    record = {**setup.description.to_json(), "starts": []}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "metrics.jsonl").write_text("")
    section = initialisation_section(read_history(tmp_path))
    assert "VH, VV; changed by init_bands=subset" in str(section)


def test_a_model_can_be_tuned_with_bands_that_its_encoder_lacks(built, encoder_run, tmp_path):
    """They are standardised with the statistics of the dataset; without a choice, all are kept."""
    kept = finetune.set_up(small_tuning(built, f"init={encoder_run}"), tmp_path)
    assert kept.config.bands == kept.description.model.bands == BOTH
    assert kept.description.model.pretrained.init_bands == "strict"
    changes = {"bands": ("VV",), "init_bands": "mean"}
    tuned = finetune.set_up(small_tuning(built, f"init={encoder_run}", **changes), tmp_path)
    assert tuned.description.model.architecture.bands == 1
    assert tuned.description.model.pretrained.init_bands == "mean"

    source = find_source_checkpoint(encoder_run)
    one = dataclasses.replace(source.metadata.model, bands=("HH", "VV"))
    other = dataclasses.replace(source, metadata=dataclasses.replace(source.metadata, model=one))
    patches = load_patch_dataset("bigearthnet_s1", built, "train", BOTH)
    patches = dataclasses.replace(patches, statistics=Statistics((1.0, 2.0), (3.0, 4.0), "mine"))
    statistics = inherit_statistics(patches, other).statistics
    assert statistics.mean == (1.0, source.statistics.mean[1])
    assert statistics.std == (3.0, source.statistics.std[1])
    assert statistics.computed_on == f"VH: mine; VV: {source.statistics.computed_on}"
