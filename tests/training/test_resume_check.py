"""Changes that make a run another one; every field of the recipe is classified."""

import copy
import json

import pytest

from configs import finetune, pretrain
from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.workdir import MAY_CHANGE, check_same_run
from sar_mixmae_jax.utils.errors import InputError
from tests.descriptions import SOURCE, describe

BEFORE = describe(json.loads(pretrain.get_config().to_json_best_effort())).to_json()
"""A pretraining run, as its `run.json` describes it."""


def check(before: dict, now: dict) -> list[str]:
    return check_same_run(RunDescription.from_json(before), RunDescription.from_json(now))


def changed(before: dict, name: str, value) -> dict:
    """The same with another value of a field, which becomes a new one if there is none."""
    now = copy.deepcopy(before)
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
        ("model.architecture.depths", [2, 2, 2, 2]),
        ("config.a_field_of_another_version", 1),
    ],
)
def test_what_defines_a_run_may_not_change(name, value):
    old = dict(flatten(BEFORE)).get(name)
    with pytest.raises(InputError) as refused:
        check(BEFORE, changed(BEFORE, name, value))
    assert name.removeprefix("config.") in str(refused.value)
    assert repr(old) in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("name", ["config.epochs", "config.log_every", "config.data_dir"])
def test_what_does_not_may(name):
    assert check(BEFORE, changed(BEFORE, name, 7)) == []


def test_another_batch_size_is_told():
    (note,) = check(BEFORE, changed(BEFORE, "config.batch_size", 64))
    assert note.startswith("batch_size was 2048 and is now 64: the learning rate")


def test_the_table_names_fields_that_there_are():
    tuning = {"config": finetune.get_config().to_dict()}
    assert set(MAY_CHANGE) <= {name for part in (BEFORE, tuning) for name, _ in flatten(part)}


TUNED = describe(
    json.loads(finetune.get_config("init=runs/base").to_json_best_effort()),
    pretrained=SOURCE,
    task="classification",
    classes=("a", "b"),
).to_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config.task", "flood"),
        ("config.init", "random"),
        ("config.label_fraction", 0.1),
        ("config.label_seed", 1),
        ("config.train_split", "train+validation"),
        ("config.validation_split", "train"),
        ("config.tiling", "released"),
        ("config.pooling", "max"),
        ("config.drop_path", 0.2),
        ("config.random_flip", False),
        ("config.optimizer.layer_decay", 1.0),
        ("config.model.image_size", 256),
        ("model.pretrained.sha256", "b" * 64),
        ("model.classes", ["b", "a"]),
        ("config.validate_every", 7),
        ("config.best_metric", "validation/f1_macro"),
        ("config.keep_best", 2),
        ("config.batch_size", 512),
    ],
)
def test_a_tuned_model_stays_the_same(name, value):
    """The last four are no part of what it is."""
    last = name.rpartition(".")[2]
    now = changed(TUNED, name, value)
    assert now != TUNED
    if name in MAY_CHANGE:
        assert all(name.removeprefix("config.") in note for note in check(TUNED, now))
    else:
        with pytest.raises(InputError, match=name.removeprefix("config.")):
            check(TUNED, now)
    assert (name in MAY_CHANGE) == (
        last in ("validate_every", "best_metric", "keep_best", "batch_size")
    )


def test_facts_about_the_data_that_an_older_run_lacks_are_no_difference():
    now = changed(BEFORE, "dataset.pixel_size", 10.0)
    assert check(BEFORE, now) == []
    with pytest.raises(InputError, match=r"dataset.pixel_size was 10.0 and is now 20.0"):
        check(now, changed(BEFORE, "dataset.pixel_size", 20.0))


def test_a_run_from_before_a_field_goes_on():
    """Pretraining could only begin from random parameters then."""
    before = copy.deepcopy(BEFORE)
    del before["config"]["init"]
    assert check(before, BEFORE) == []
    with pytest.raises(InputError, match="init was 'random' and is now 'runs/base'"):
        check(before, changed(BEFORE, "config.init", "runs/base"))


def test_a_refusal_names_the_flag_that_resumes_the_run():
    """A run of an earlier default domain of the weights is resumed with that flag."""
    now = changed(BEFORE, "config.weighting.domain", "another")
    old = BEFORE["config"]["weighting"]["domain"]
    with pytest.raises(InputError, match=f"set --config.weighting.domain={old}$"):
        check(BEFORE, now)


def test_a_refusal_names_a_few_of_many_fields():
    """A `run.json` without its configuration differs in all of them."""
    with pytest.raises(InputError, match=r"; and \d+ more$") as refused:
        check({**BEFORE, "config": {}}, BEFORE)
    assert str(refused.value).count(" was None and is now ") == 8
