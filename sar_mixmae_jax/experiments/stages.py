"""What a cell does: pretrain and measure reconstruction, or fine-tune and predict the test."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset, batches, load_patch_dataset
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.evaluation.predictions import Predictions, save_predictions
from sar_mixmae_jax.experiments import reconstruction, trials
from sar_mixmae_jax.experiments.trials import Trial, run_folder
from sar_mixmae_jax.inference import evaluator
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.run_report.page import write_page
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.training import finetune, pretrain
from sar_mixmae_jax.training.config import make_objective
from sar_mixmae_jax.training.sharding import fetch_replicated

Metrics = dict[str, float | None]
MEASURED_AT_ONCE = 32
"""Held-out patches that are mixed with each other; the same for all arms."""
TRUTH = ("noise_free", "land_cover")
TEST = "test"


class StoppedError(Exception):
    """A cell was asked to stop; what it has is saved."""


# ---- pretraining


def run_pretraining(
    config: ConfigDict, workdir: Path, cell: Trial, stop: Callable[[], bool]
) -> Metrics:
    """Pretrains, and measures the reconstruction of held-out patches; see `truth`.

    Raises:
      StoppedError: it was asked to.
      UserError: the run cannot be made.
    """
    recipe = trials.pretraining_config(config, cell)
    folder = run_folder(workdir, cell)
    outcome = pretrain.train(recipe, folder, stop)
    write_page(folder)
    if not outcome.finished:
        raise StoppedError
    patches = held_out(config)
    objective = make_objective(recipe, patches)
    found = reconstruction.measure_reconstruction(
        objective,
        fetch_replicated(outcome.state.params),
        measured_batches(patches, config.measured_batches),
        protocol(patches),
    )
    return found["model"]


def reconstruction_references(config: ConfigDict) -> dict[str, Metrics]:
    """What the cell mean and the measurement itself make of the held-out patches."""
    patches = held_out(config)
    objective = make_objective(config.pretrain, patches)
    params = init_params(objective.model, jax.random.key(0))  # which do not enter
    batches = measured_batches(patches, config.measured_batches)
    found = reconstruction.measure_reconstruction(objective, params, batches, protocol(patches))
    return {name: found[name] for name in ("null", "measured")}


def held_out(config: ConfigDict) -> PatchDataset:
    """The test split of what is pretrained on, with the truth where it is known."""
    recipe = config.pretrain
    return load_patch_dataset(recipe.dataset, config.data_dir, TEST, recipe.bands, also=TRUTH)


def protocol(patches: PatchDataset) -> reconstruction.Protocol:
    """Bands and classes that errors are told by."""
    classes = patches.classes if "land_cover" in patches.fields else ()
    return reconstruction.Protocol(patches.bands, classes)


def measured_batches(patches: PatchDataset, count: int) -> Iterator[reconstruction.Batch]:
    """The first whole batches of a split."""
    order = SequentialSampler(len(patches.source), MEASURED_AT_ONCE)
    whole = max(1, len(patches.source) // MEASURED_AT_ONCE)
    for batch in islice(batches(patches.source, order, 0, order.steps), min(whole, count)):
        yield reconstruction.Batch(batch["backscatter"], *(batch.get(name) for name in TRUTH))


# ---- downstream


def run_finetuning(
    config: ConfigDict, workdir: Path, cell: Trial, stop: Callable[[], bool]
) -> Metrics:
    """Fine-tunes, and predicts the test split with the best checkpoint of the validation split.

    Raises:
      StoppedError: it was asked to.
      UserError: the run cannot be made.
    """
    recipe, folder = trials.finetuning_config(config, workdir, cell), run_folder(workdir, cell)
    outcome = finetune.train(recipe, folder, stop)
    write_page(folder)
    if not outcome.finished:
        raise StoppedError
    predicted = evaluator.predict(folder, split=TEST).predictions
    save_predictions(predicted, folder / f"predictions-{TEST}.npz")
    return flat_metrics(predicted)


def flat_metrics(predicted: Predictions) -> Metrics:
    """The scores by name, and the parts of breakdowns: "recall by hard case/wind"."""
    task = get_task(predicted.task)
    found = task.metrics(predicted)
    parts = {
        f"{title}/{name}": value
        for title, values in task.breakdowns(found).items()
        for name, value in values.items()
    }
    return task.scores(found) | parts
