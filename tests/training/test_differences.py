"""The tables of docs/differences.md against the configurations."""

import ast
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import finetune, pretrain
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.training.config import check_numbers, flatten, make_arch
from sar_mixmae_jax.training.downstream import complete_config

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
OPTION = re.compile(r"--config\.([\w.]+)=([\w./]+)")
CONFIGS = {
    "pretraining": pretrain.get_config(),
    "fine-tuning": finetune.get_config("init=runs/base"),
}
HOW_IT_RUNS = {
    "bands",
    "config",
    "data_dir",
    "deterministic",
    "compilation_cache",
    "grad_accum_steps",
    "init",
    "init_bands",
    "remat",
    "seed",
    "task",
    "total_steps",
    "upload_every",
    "trainer",
    "statistics",
    "dtype",
    "resize_mode",
    "label_fraction",
    "label_seed",
    "schedule_epochs",
    "log_every",
    "max_to_keep",
    "keep_period",
    "keep_best",
    "best_metric",
    "checkpoint_every",
    "validate_every",
    "picture_every",
    "picture_patches",
    "diagnostic_patches",
}
"""Fields that are no part of a recipe, or common to both."""


def rows(recipe: str) -> dict[str, list[str]]:
    """The cells of the table of a recipe by its field."""
    section = PAGE.read_text().split(f"## Recipe of {recipe}")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    return {line[0].strip("`"): line[1:] for line in cells}


def plain(value):
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("recipe", CONFIGS)
def test_the_recipe_is_that_of_the_configuration(recipe):
    fields = dict(flatten(CONFIGS[recipe].to_dict()))
    table = rows(recipe)
    assert len(table) > 20
    for name, cells in table.items():
        assert plain(fields[name]) == ast.literal_eval(cells[0].strip("`")), name
    unlisted = fields.keys() - table.keys() - HOW_IT_RUNS
    assert {
        name for name in unlisted if not name.startswith(("data.", "model.", "speckle."))
    } == set()


@pytest.mark.parametrize("recipe", CONFIGS)
def test_every_option_of_the_released_behaviour_exists(recipe):
    options = [found for cells in rows(recipe).values() for found in OPTION.findall(cells[2])]
    assert options
    for name, value in options:
        config = ConfigDict(CONFIGS[recipe].copy_and_resolve_references())
        assert dict(flatten(config.to_dict()))[name] != value
        config.update_from_flattened_dict({name: value})
        if recipe == "pretraining":
            check_numbers(config)
            make_arch(config)
        else:
            task = "flood" if name in ("flip_dates", "tiling") else "classification"
            complete_config(config, get_task(task))
