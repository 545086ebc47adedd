"""A run again, from its record: the configuration that `run.json` holds.

Command:
  python -m sar_mixmae_jax.main --config=configs/repeat.py:runs/base/run.json --workdir=runs/again

With the dataset built as `run.json` says and the versions it names, on the same kind and number of
devices, the losses are the same; on CPU, bit for bit.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import pretrain
from sar_mixmae_jax.configuration import flatten
from sar_mixmae_jax.errors import InputError, check_name, first_line


def get_config(record: str) -> ConfigDict:
    """The configuration in a `run.json`, as it was at the last start.

    Raises:
      InputError: the file cannot be read, or has fields that there are not.
    """
    try:
        fields = dict(flatten(json.loads(Path(record).read_text())["config"]))
        config = pretrain.get_config()
        known = dict(flatten(config.to_dict()))
        for name in fields:
            check_name(known, name, "configuration field")
        config.update_from_flattened_dict({name: _value(fields[name]) for name in fields})
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{record!r} cannot be used ({first_line(error)}), expected the run.json of a run: "
            "--config=configs/repeat.py:runs/NAME/run.json"
        ) from error
    return config


def _value(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(value, list) else value
