"""What may change when a run goes on, and what makes it another run: one table."""

import json
from collections.abc import Iterator
from typing import Any

from sar_mixmae_jax.configuration import flatten
from sar_mixmae_jax.errors import InputError

OTHER_DRAWS = (
    "masks, partners, flips and paths are drawn for every share of a batch, so from here on others "
    "are"
)
MAY_CHANGE = {
    "config.accumulate": OTHER_DRAWS,
    "config.batch_size": "the learning rate and the steps per epoch follow it, the records go on "
    f"where they were; {OTHER_DRAWS}",
    "config.best_metric": "",
    "config.checkpoint_every": "",
    "config.compilation_cache": "",
    "config.data_dir": "",
    "config.dtype": "",  # what it means on this machine is model.dtype, which may not change
    "config.deterministic": "results before and after may differ in their last digits",
    "config.diagnostic_patches": "",
    "config.epochs": "",
    "config.keep_best": "",
    "config.keep_checkpoints": "",
    "config.keep_every": "",
    "config.log_every": "",
    "config.max_steps": "",
    "config.picture_every": "",
    "config.picture_patches": "",
    "config.validate_every": "",
    "config.schedule_epochs": "from here on the learning rate follows the new schedule",
    "config.remat": "results before and after may differ in their last digits",
}
"""Fields that may change, with what the user should know of it; all others may not."""

ADDED = {"config.init": "random"}
"""Fields that came later, with what runs before them did."""


def check_same(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Compares two descriptions of a run, as `pretrain.describe` makes them.

    Returns:
      What the user should know of the changes that are allowed.

    Raises:
      InputError: names every field that may not change, with both values.
    """
    differences = list(_differences(before, now))
    refused = [
        f"{name.removeprefix('config.')} was {old!r} and is now {new!r}"
        for name, old, new in differences
        if name not in MAY_CHANGE
    ]
    if refused:
        raise InputError("; ".join(refused))
    return [
        f"{name.removeprefix('config.')} was {old!r} and is now {new!r}: {MAY_CHANGE[name]}"
        for name, old, new in differences
        if MAY_CHANGE[name]
    ]


def settings(description: dict[str, Any]) -> dict[str, Any]:
    """The fields that may change, as they are now."""
    fields = dict(flatten({"config": description["config"]}))
    return {name.removeprefix("config."): fields.get(name) for name in MAY_CHANGE}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(field, old value, new value) of the fields that differ, as JSON has them."""
    parts = ("config", "dataset", "model")
    old, new = (
        dict(flatten({part: json.loads(json.dumps(side.get(part, {}))) for part in parts}))
        for side in (before, now)
    )
    old = {name: value for name, value in ADDED.items() if name in new} | old
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
