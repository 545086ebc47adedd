"""The cells of a comparison: one arm, one seed, one stage. What is finished is kept.

```
WORKDIR/cells/STAGE-ARM-SEED.json     what was measured, written last: then the cell is finished
WORKDIR/runs/STAGE/ARM/SEED           the run behind it, an ordinary workdir
```
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sar_mixmae_jax.utils.errors import InputError, first_line, look_up
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors

PRETRAINING = "pretraining"
"""The first stage; the others are the names of the downstream tasks."""


class Trial(NamedTuple):
    """A cell.

    Attributes:
      stage: "pretraining" or the name of a task.
      arm: name.
      seed: of everything that is random in it.
    """

    stage: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """For files and people."""
        return f"{self.stage}-{self.arm}-{self.seed}"


class Measured(NamedTuple):
    """A finished cell.

    Attributes:
      cell: which one.
      metrics: by name; None where undefined.
      seconds: it took.
    """

    cell: Trial
    metrics: dict[str, float | None]
    seconds: float


def run_folder(workdir: Path, cell: Trial) -> Path:
    """The workdir of the run behind a cell."""
    return workdir / "runs" / cell.stage / cell.arm / str(cell.seed)


def read_trial(workdir: Path, cell: Trial) -> Measured | None:
    """What a finished cell measured; None if it is not finished.

    Raises:
      InputError: its file is damaged.
    """
    path = _trial_path(workdir, cell)
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        metrics = {
            str(name): None if value is None else float(value)
            for name, value in content["metrics"].items()
        }
        return Measured(cell, metrics, float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): remove it, and the cell is made again"
        ) from error


def write_trial(workdir: Path, measured: Measured) -> None:
    """Keeps a finished cell.

    Raises:
      InputError: it cannot be written.
    """
    path = _trial_path(workdir, measured.cell)
    content = {"metrics": measured.metrics, "seconds": round(measured.seconds, 1)}
    with report_write_errors(path, "make room and start again; what is finished is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _trial_path(workdir: Path, cell: Trial) -> Path:
    return workdir / "cells" / f"{cell.name}.json"


def is_pretrained(config: ConfigDict, arm: str) -> bool:
    """Whether the comparison pretrains the encoder of an arm itself."""
    return config.arms[arm].init == "pretrain"


def pretraining_config(config: ConfigDict, cell: Trial) -> ConfigDict:
    """Of the pretraining of an arm."""
    recipe = config.pretrain.copy_and_resolve_references()
    return _changed(config, recipe, cell, config.arms[cell.arm].get("pretrain"))


def finetuning_config(config: ConfigDict, workdir: Path, cell: Trial) -> ConfigDict:
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
    config: ConfigDict, recipe: ConfigDict, cell: Trial, changes: ConfigDict | None
) -> ConfigDict:
    if changes is not None:
        recipe.update(changes)
    recipe.seed = cell.seed
    recipe.data_dir = config.data_dir
    return recipe.lock()


def check_comparison_config(config: ConfigDict) -> None:
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
