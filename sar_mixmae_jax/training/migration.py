"""Migration of renamed fields in the files of older versions: `run.json`, checkpoints, logs.

`upgrade` is applied wherever such a file is read; everything else uses the current names only.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sar_mixmae_jax.objectives.speckle_filter import NO_FILTER

CONFIG = {
    "accumulate": "grad_accum_steps",
    "fit": "resize_mode",
    "flips": "random_flip",
    "keep_checkpoints": "max_to_keep",
    "keep_every": "keep_period",
    "max_steps": "total_steps",
    "norm_pix": "norm_pix_loss",
    "optimizer.floor": "optimizer.end_learning_rate",
    "program": "trainer",
}
"""Configuration fields: old name -> name."""

ARCHITECTURE = {
    "decoder_heads": "decoder_num_heads",
    "decoder_width": "decoder_embed_dim",
    "heads": "num_heads",
    "position_size": "pretrain_image_size",
    "width": "embed_dim",
    "windows": "window_sizes",
}
"""Fields of `config.model` and of `model.architecture`: old name -> name."""

METRIC_NAMES = {"explained": "explained_variance", "seconds/look": "seconds/evaluate"}
"""Metrics: old name -> name."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {
        "trainer": "pretrain",
        "init": "random",
        "objective": "mixmae",
        "mask_rounding": "nearest",
        "speckle": dataclasses.asdict(NO_FILTER),
    },
    "finetune": {"flip_dates": "together", "validation": "split"},
    "probe": {"validation": "split"},
}
"""Configuration fields that were added later, with what a run did before, by its trainer."""

RUN_DEFAULTS = {"init_bands": "strict"}
"""Configuration fields of every run that were added later, with what it did before."""

REMAT = {False: "none", True: "full"}
"""`config.remat` of runs before it named a policy."""

MODEL_DEFAULTS = {"attention": "plain", "norm": "plain"}
"""Fields of `config.model` that were added later, with what a run did before."""


def rename(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields under their current names; a current name has precedence."""
    renamed = {name: value for name, value in fields.items() if name not in names}
    old = {names[name]: value for name, value in fields.items() if name in names}
    return old | renamed


def upgrade(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run description, `run.json` or checkpoint metadata under the current names.

    Content of another shape is returned as it is: the types that are made of it refuse it.

    Args:
      stored: {"config", "dataset", "model", …} as JSON.
    """
    content = dict(stored)
    if isinstance(content.get("config"), dict):
        content["config"] = upgrade_config(content["config"])
    if isinstance(content.get("model"), dict):
        content["model"] = _upgrade_model(content["model"])
    if isinstance(content.get("metrics"), dict):
        content["metrics"] = rename(content["metrics"], METRIC_NAMES)
    if isinstance(content.get("starts"), list):
        content["starts"] = [_upgrade_start(start) for start in content["starts"]]
    return content


def upgrade_config(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, nested as in JSON, under the current names."""
    config = rename(stored, CONFIG)
    for group, names in (("model", ARCHITECTURE), ("optimizer", _inside("optimizer"))):
        if isinstance(config.get(group), dict):
            config[group] = rename(config[group], names)
    if isinstance(metric := config.get("best_metric"), str):
        config["best_metric"] = METRIC_NAMES.get(metric, metric)
    if isinstance(remat := config.get("remat"), bool):
        config["remat"] = REMAT[remat]
    return config


def add_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the fields that were added after its run was stored."""
    config = {**RUN_DEFAULTS, **DEFAULTS.get(str(config.get("trainer", "pretrain")), {}), **config}
    if isinstance(model := config.get("model"), Mapping):
        config["model"] = {**MODEL_DEFAULTS, **model}
    return config


def _inside(group: str) -> dict[str, str]:
    """Return the entries of `CONFIG` inside a group, without its name."""
    prefix = f"{group}."
    return {
        old.removeprefix(prefix): new.removeprefix(prefix)
        for old, new in CONFIG.items()
        if old.startswith(prefix)
    }


def _upgrade_model(stored: Mapping[str, Any]) -> dict[str, Any]:
    model = dict(stored)
    if isinstance(model.get("architecture"), dict):
        model["architecture"] = rename(model["architecture"], ARCHITECTURE)
    parent = model
    while True:  # the chain of source checkpoints, the newest first
        if isinstance(weighting := parent.get("weighting"), dict):
            parent["weighting"] = {"domain": "physical", **weighting}  # the default of that time
        if not isinstance(source := parent.get("pretrained"), dict):
            return model
        parent["pretrained"] = rename(source, CONFIG)
        parent = parent["pretrained"]


def _upgrade_start(start: Any) -> Any:
    """Rename the changeable settings in an entry of `starts`."""
    if not isinstance(start, dict) or not isinstance(start.get("settings"), dict):
        return start
    return {**start, "settings": upgrade_config(start["settings"])}
