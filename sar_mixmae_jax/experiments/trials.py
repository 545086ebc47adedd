"""A trial of a comparison: one arm, one seed, one stage; its configuration, run and result.

```
WORKDIR/cells/STAGE-ARM-SEED.json     result of a trial, written when it is finished
WORKDIR/runs/STAGE/ARM/SEED           workdir of its run
```
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset, batches, load_patch_dataset
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.evaluation.predictions import Predictions, save_predictions
from sar_mixmae_jax.experiments.reconstruction_error import Batch, Protocol
from sar_mixmae_jax.experiments.reconstruction_metrics import (
    PRETRAINING,
    REFERENCES,
    Metrics,
    measure_reconstruction,
)
from sar_mixmae_jax.inference import evaluator
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.training import finetune, pretrain
from sar_mixmae_jax.training.config import make_objective
from sar_mixmae_jax.training.sharding import fetch_replicated
from sar_mixmae_jax.utils.errors import InputError, first_line, look_up
from sar_mixmae_jax.utils.files import read_json, stored_path, write_json

RESULTS, RUNS = "cells", "runs"
"""Folders in the workdir of a comparison."""

TEST = "test"
GROUND_TRUTH = ("noise_free", "land_cover")
"""Fields of simulated records."""

RECONSTRUCTED = ("norm_pix_loss", "mask_ratio", "mask_rounding")
"""Fields of the pretraining that reconstruction metrics depend on, beside the model."""
RECONSTRUCTION_BATCH_SIZE = 32
"""Held-out images that are mixed with each other; the same for all arms."""


class StoppedError(Exception):
    """A trial was stopped; its checkpoint is saved."""


class Trial(NamedTuple):
    """One run of a comparison.

    Attributes:
      stage: `PRETRAINING`, the first, or the name of a downstream task.
      arm: name of the pretraining method.
      seed: random seed of the run, and of the labels that a downstream task trains on.
    """

    stage: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Name in file names and messages."""
        return f"{self.stage}-{self.arm}-{self.seed}"


class TrialResult(NamedTuple):
    """Result of a finished trial.

    Attributes:
      trial: the trial.
      metrics: by name; None where undefined.
      seconds: wall-clock time.
    """

    trial: Trial
    metrics: Metrics
    seconds: float


# ---- files


def run_dir(workdir: Path, trial: Trial) -> Path:
    """Return the workdir of the run of a trial."""
    return workdir / RUNS / trial.stage / trial.arm / str(trial.seed)


def read_trial(workdir: Path, trial: Trial) -> TrialResult | None:
    """Read the result of a trial; None if it is not finished.

    Raises:
      InputError: the file is damaged.
    """
    path = _result_path(workdir, trial)
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = read_json(path)
        metrics = {
            str(name): None if value is None else float(value)
            for name, value in content["metrics"].items()
        }
        return TrialResult(trial, metrics, float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): remove it to run the trial again"
        ) from error


def write_trial(workdir: Path, result: TrialResult) -> None:
    """Write the result of a trial.

    Raises:
      InputError: the file cannot be written.
    """
    content = {"metrics": result.metrics, "seconds": round(result.seconds, 1)}
    write_json(_result_path(workdir, result.trial), content)


def _result_path(workdir: Path, trial: Trial) -> Path:
    return workdir / RESULTS / f"{trial.name}.json"


# ---- configuration


def check_comparison_config(config: ConfigDict) -> None:
    """Check the fields of a comparison.

    Raises:
      InputError: names the field that cannot be used.
    """
    if config.seeds < 1 or config.measured_batches < 1:
        raise InputError(
            f"seeds is {config.seeds} and measured_batches {config.measured_batches}: expected at "
            "least 1 for both"
        )
    if not config.compared or not config.finetune:
        raise InputError("compared and finetune: expected at least one arm and one task")
    for name in (config.reference, *config.compared):
        look_up(dict(config.arms), name, "arm")
        if not isinstance(config.arms[name].get("init"), str):
            raise InputError(f"arms.{name}.init: expected pretrain, random, or a workdir")


def is_pretrained(config: ConfigDict, arm: str) -> bool:
    """Return True if the comparison itself pretrains the encoder of an arm."""
    return config.arms[arm].init == "pretrain"


def has_comparable_metrics(config: ConfigDict, arm: str, stage: str) -> bool:
    """Return whether the metrics of an arm may be listed beside those of other arms.

    Those of the reconstruction may not if the arm changes what is reconstructed, one of
    `RECONSTRUCTED`; those of downstream tasks always may.
    """
    if stage != PRETRAINING or not is_pretrained(config, arm):
        return True
    changed = pretraining_config(config, Trial(stage, arm, 0))
    return all(changed[name] == config.pretrain[name] for name in RECONSTRUCTED)


def pretraining_config(config: ConfigDict, trial: Trial) -> ConfigDict:
    """Return the configuration of the pretraining run of a trial."""
    run_config = config.pretrain.copy_and_resolve_references()
    return _specialise(config, run_config, trial, config.arms[trial.arm].get("pretrain"))


def finetuning_config(config: ConfigDict, workdir: Path, trial: Trial) -> ConfigDict:
    """Return the configuration of the fine-tuning run of a trial; its stage is the task."""
    run_config = config.finetune[trial.stage].copy_and_resolve_references()
    arm = config.arms[trial.arm]
    run_config = _specialise(config, run_config, trial, arm.get("finetune"))
    with run_config.unlocked():
        run_config.label_seed = trial.seed
        if arm.init == "pretrain":
            pretraining = trial._replace(stage=PRETRAINING)
            run_config.init = stored_path(run_dir(workdir, pretraining).absolute())
        else:
            run_config.init = arm.init.format(seed=trial.seed)
        if run_config.init == "random":  # the same inputs as the pretrained arms
            run_config.statistics = config.pretrain.dataset
            run_config.model.image_size = config.pretrain.model.image_size
            run_config.bands = run_config.bands or config.pretrain.bands
        else:
            run_config.model.variant = None  # that of the encoder
    return run_config.lock()


def _specialise(
    config: ConfigDict, run_config: ConfigDict, trial: Trial, changes: ConfigDict | None
) -> ConfigDict:
    """Apply the changes of an arm, the seed and the data folder to a run's configuration."""
    if changes is not None:
        run_config.update(changes)
    run_config.seed = trial.seed
    run_config.data_dir = config.data_dir
    return run_config.lock()


# ---- pretraining


def run_pretraining(
    config: ConfigDict, workdir: Path, trial: Trial, stop: Callable[[], bool]
) -> Metrics:
    """Pretrain, and measure the reconstruction of held-out images.

    Args:
      config: configuration of the comparison.
      workdir: working directory of the comparison.
      trial: trial of the stage `PRETRAINING`.
      stop: returns True if the run has to save and end.

    Returns:
      The metrics of the model, see `measure_reconstruction`.

    Raises:
      StoppedError: the run was stopped.
      UserError: the run cannot be started or continued.
    """
    run_config = pretraining_config(config, trial)
    folder = run_dir(workdir, trial)
    outcome = pretrain.train(run_config, folder, stop)
    write_page(folder)
    if not outcome.finished:
        raise StoppedError
    patches = held_out(config)
    metrics = measure_reconstruction(
        make_objective(run_config, patches),
        fetch_replicated(outcome.state.params),
        measured_batches(patches, config.measured_batches),
        protocol(patches),
    )
    return metrics["model"]


def reconstruction_references(config: ConfigDict) -> dict[str, Metrics]:
    """Return the metrics of `reconstruction_metrics.REFERENCES`."""
    patches = held_out(config)
    objective = make_objective(config.pretrain, patches)
    params = init_params(objective.model, jax.random.key(0))  # do not affect the references
    records = measured_batches(patches, config.measured_batches)
    metrics = measure_reconstruction(objective, params, records, protocol(patches))
    return {name: metrics[name] for name in REFERENCES}


def held_out(config: ConfigDict) -> PatchDataset:
    """Load the test split of the pretraining dataset, with the ground truth if it is simulated."""
    pretraining = config.pretrain
    return load_patch_dataset(
        pretraining.dataset, config.data_dir, TEST, pretraining.bands, also=GROUND_TRUTH
    )


def protocol(patches: PatchDataset) -> Protocol:
    """Return the bands and land-cover classes by which errors are broken down."""
    classes = patches.classes if "land_cover" in patches.fields else ()
    return Protocol(patches.bands, classes)


def measured_batches(patches: PatchDataset, count: int) -> Iterator[Batch]:
    """Yield the first `count` full batches of a split, or as many as it has."""
    sampler = SequentialSampler(len(patches.source), RECONSTRUCTION_BATCH_SIZE)
    full = max(1, len(patches.source) // RECONSTRUCTION_BATCH_SIZE)
    for batch in islice(batches(patches.source, sampler, 0, sampler.steps), min(full, count)):
        yield Batch(batch["backscatter"], *(batch.get(name) for name in GROUND_TRUTH))


# ---- fine-tuning


def run_finetuning(
    config: ConfigDict, workdir: Path, trial: Trial, stop: Callable[[], bool]
) -> Metrics:
    """Fine-tune, and predict the test split with the best checkpoint of the validation split.

    Args:
      config: configuration of the comparison.
      workdir: working directory of the comparison.
      trial: trial of a downstream task.
      stop: returns True if the run has to save and end.

    Raises:
      StoppedError: the run was stopped.
      UserError: the run cannot be started or continued.
    """
    run_config, folder = finetuning_config(config, workdir, trial), run_dir(workdir, trial)
    outcome = finetune.train(run_config, folder, stop)
    write_page(folder)
    if not outcome.finished:
        raise StoppedError
    predictions = evaluator.predict(folder, split=TEST).predictions
    save_predictions(predictions, folder / f"predictions-{TEST}.npz")
    return flat_metrics(predictions)


def flat_metrics(predictions: Predictions) -> Metrics:
    """Return the scores by name, and breakdowns by title and part: "recall by hard case/wind"."""
    task = get_task(predictions.task)
    metrics = task.metrics(predictions)
    parts = {
        f"{title}/{name}": value
        for title, values in task.breakdowns(metrics).items()
        for name, value in values.items()
    }
    return task.scores(metrics) | parts
