"""A configuration comes back from the record of a run, whatever the run trained."""

import json

import pytest

from configs import finetune, pretrain, repeat
from sar_mixmae_jax.utils.errors import InputError


def recorded(tmp_path, config, **model) -> str:
    """A record as `workdir.RunRecord` writes it."""
    path = tmp_path / "run.json"
    content = {"config": json.loads(config.to_json_best_effort()), "dataset": {}, "model": model}
    path.write_text(json.dumps({**content, "starts": []}))
    return str(path)


@pytest.mark.parametrize(
    "config",
    [
        pretrain.get_config("variant=tiny,weighting=none"),
        finetune.get_config("task=flood,dataset=flood_pairs,variant=tiny"),
        finetune.get_config("task=linear_probe,dataset=synthetic_s1"),
        finetune.get_config("task=knn,dataset=synthetic_s1"),
    ],
    ids=lambda config: config.get("task", "pretraining"),
)
def test_every_program_is_repeated_with_every_field(config, tmp_path):
    config.seed = 7
    config.model.depths = (1, 1)
    config.model.image_size = 64
    if config.trainer == "finetune":
        config.best_metric = "validation/f1"
        config.optimizer.layer_decay = 0.9
        config.total_steps = 12
    if config.trainer == "probe":
        config.probe.learning_rates = (0.1, 0.3)
    again = repeat.get_config(recorded(tmp_path, config))
    assert again.to_dict() == config.to_dict()


def test_it_begins_with_the_checkpoint_that_the_run_began_with(tmp_path):
    config = finetune.get_config("task=classification,init=runs/base")
    before = {"checkpoint": "/runs/base/checkpoints/40", "step": 40}
    again = repeat.get_config(recorded(tmp_path, config, pretrained=before))
    assert again.init == "/runs/base/checkpoints/40"
    assert {**again.to_dict(), "init": "runs/base"} == config.to_dict()
    random = repeat.get_config(recorded(tmp_path, finetune.get_config(), pretrained=None))
    assert random.init == "random"


def test_a_record_with_earlier_names_of_fields_is_read(tmp_path):
    path = recorded(tmp_path, pretrain.get_config())
    content = json.loads((tmp_path / "run.json").read_text())
    fields = content["config"]
    fields["accumulate"], fields["program"] = 4, fields.pop("trainer")
    del fields["grad_accum_steps"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert repeat.get_config(path).grad_accum_steps == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trainer": "guess"}, "unknown trainer 'guess'"),
        ({"weighting": {"name": "none"}}, r"unknown configuration field 'weighting\.name'"),
        ({"batch_size": "many"}, "cannot be used"),
    ],
)
def test_a_record_with_fields_of_another_program_is_refused(change, told, tmp_path):
    path = recorded(tmp_path, finetune.get_config())
    content = json.loads((tmp_path / "run.json").read_text())
    content["config"].update(change)
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=told):
        repeat.get_config(path)


@pytest.mark.parametrize("model", [[], "x", {"pretrained": "x"}, {"pretrained": {"step": 1}}])
def test_a_model_that_is_none_is_refused(model, tmp_path):
    path = recorded(tmp_path, finetune.get_config())
    content = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**content, "model": model}))
    with pytest.raises(InputError, match=r"expected the run\.json of a run"):
        repeat.get_config(path)
