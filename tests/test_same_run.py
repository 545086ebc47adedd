"""Which changes make a run another one; every field of the recipe has its place."""

import copy
import json

import pytest

from configs import pretrain
from sar_mixmae_jax.configuration import flatten
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.same_run import MAY_CHANGE, check_same

BEFORE = {
    "config": json.loads(pretrain.get_config().to_json_best_effort()),
    "dataset": {
        "name": "bigearthnet_s1/v1/2.0.0/train",
        "checksum": "a" * 64,
        "bands": ["VH", "VV"],
        "statistics": {"mean": [-19.0, -12.0], "std": [3.0, 3.0]},
    },
    "model": {"variant": "base", "dtype": "float32"},
}


def changed(name: str, value) -> dict:
    now = copy.deepcopy(BEFORE)
    *path, last = name.split(".")
    part = now
    for key in path:
        part = part[key]
    part[last] = value
    return now


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config.model.variant", "large"),
        ("config.bands", ["VV"]),
        ("config.weighting.scale", 2.0),
        ("config.mask_ratio", 0.75),
        ("config.optimizer.clip_norm", 1.0),
        ("config.seed", 1),
        ("model.dtype", "bfloat16"),
        ("dataset.checksum", "b" * 64),
        ("dataset.name", "bigearthnet_s1/v2/2.0.0/train"),
        ("dataset.statistics.mean", [-18.0, -12.0]),
        ("model.variant", "large"),
        ("config.a_field_of_another_version", 1),
    ],
)
def test_what_defines_a_run_may_not_change(name, value):
    old = dict(flatten(BEFORE)).get(name)
    with pytest.raises(InputError) as refused:
        check_same(BEFORE, changed(name, value))
    assert name.removeprefix("config.") in str(refused.value)
    assert repr(old) in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("name", ["config.epochs", "config.log_every", "config.data_dir"])
def test_what_does_not_may(name):
    assert check_same(BEFORE, changed(name, 7)) == []


def test_another_batch_size_is_told():
    (note,) = check_same(BEFORE, changed("config.batch_size", 64))
    assert note.startswith("batch_size was 2048 and is now 64: the learning rate")


def test_the_table_names_fields_that_there_are():
    assert set(MAY_CHANGE) <= {name for name, _ in flatten(BEFORE)}
