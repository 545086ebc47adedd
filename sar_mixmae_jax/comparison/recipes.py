"""The configuration of every run of a comparison: common recipe, changes of the arm, seed."""

from pathlib import Path

from ml_collections import ConfigDict

from sar_mixmae_jax.comparison.cells import PRETRAINING, Cell, run_folder
from sar_mixmae_jax.errors import InputError, look_up


def is_pretrained(config: ConfigDict, arm: str) -> bool:
    """Whether the comparison pretrains the encoder of an arm itself."""
    return config.arms[arm].init == "pretrain"


def pretraining(config: ConfigDict, cell: Cell) -> ConfigDict:
    """Of the pretraining of an arm."""
    recipe = config.pretrain.copy_and_resolve_references()
    return _changed(config, recipe, cell, config.arms[cell.arm].get("pretrain"))


def finetuning(config: ConfigDict, workdir: Path, cell: Cell) -> ConfigDict:
    """Of the fine-tuning of an arm for the task that is the cell's stage."""
    recipe = config.finetune[cell.stage].copy_and_resolve_references()
    arm = config.arms[cell.arm]
    recipe = _changed(config, recipe, cell, arm.get("finetune"))
    with recipe.unlocked():
        recipe.label_seed = cell.seed
        if arm.init == "pretrain":
            first = cell._replace(stage=PRETRAINING)
            recipe.init = str(run_folder(workdir, first).absolute())
        else:
            recipe.init = arm.init.format(seed=cell.seed)
        if recipe.init == "random":  # arms differ in nothing that is not meant
            recipe.statistics = config.pretrain.dataset
            recipe.model.image_size = config.pretrain.model.image_size
        else:
            recipe.model.variant = None  # that of the encoder
    return recipe.lock()


def _changed(
    config: ConfigDict, recipe: ConfigDict, cell: Cell, changes: ConfigDict | None
) -> ConfigDict:
    if changes is not None:
        recipe.update(changes)
    recipe.seed = cell.seed
    recipe.data_dir = config.data_dir
    return recipe.lock()


def check(config: ConfigDict) -> None:
    """Checks that the comparison can be made.

    Raises:
      InputError: names what cannot be used.
    """
    if config.seeds < 1 or config.measured_batches < 1:
        raise InputError(
            f"seeds is {config.seeds} and measured_batches {config.measured_batches}: expected at "
            "least 1 of both"
        )
    if not config.compared or not config.finetune:
        raise InputError("compared and finetune: expected at least one arm and one task")
    for name in (config.reference, *config.compared):
        look_up(dict(config.arms), name, "arm")
        if not isinstance(config.arms[name].get("init"), str):
            raise InputError(f"arms.{name}.init: expected pretrain, random, or a workdir")
