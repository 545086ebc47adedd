"""Configuration of an earlier run, read from its `run.json`.

  sar-mixmae train --config=repeat:runs/base/run.json --workdir=runs/again

With the same dataset and versions, on the same kind and number of devices, the losses are equal; on
CPU bit for bit. A run that started from a checkpoint starts from the same checkpoint.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import finetune, pretrain
from sar_mixmae_jax.training.config import flatten
from sar_mixmae_jax.training.migration import add_defaults
from sar_mixmae_jax.training.run_description import RunOutline
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line, look_up

CONFIGS: dict[str, Callable[[], ConfigDict]] = {
    "pretrain": pretrain.get_config,
    "finetune": finetune.get_config,
    "probe": partial(finetune.get_config, f"task={finetune.FROZEN[0]}"),
}
"""Configurations with all fields of a run, by its trainer."""


def get_config(record: str) -> ConfigDict:
    """Return the configuration of the last start of a run.

    Args:
      record: path of a `run.json`.

    Raises:
      InputError: the file cannot be read, or has unknown fields.
    """
    try:
        run = RunOutline.from_json(json.loads(Path(record).read_text()))
        fields = dict(flatten(add_defaults(run.config)))
        config = look_up(CONFIGS, fields.get("trainer", ""), "trainer")()
        known = dict(flatten(config.to_dict()))
        for name in fields:
            check_name(known, name, "configuration field")
        config.update_from_flattened_dict({name: _value(fields[name]) for name in fields})
        if source := run.model.get("pretrained"):
            config.init = source["checkpoint"]
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{record!r} cannot be used ({first_line(error)}), expected the run.json of a run: "
            "--config=configs/repeat.py:runs/NAME/run.json"
        ) from error
    return config


def _value(value: Any) -> Any:
    """Return a tuple for a list, since JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value
