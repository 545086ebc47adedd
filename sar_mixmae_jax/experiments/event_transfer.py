"""Water in events that were not trained on: few labelled chips, one event left out at a time.

```
WORKDIR/predictions/ENCODER-EVENT-SEED.npz   predictions of the chips of the event
WORKDIR/events.md, events.json               IoU of water, pooled over all events
```

Encoders are "random", runs of pretraining, and runs that continue pretraining on the images of the
other events, whose labels they do not see. All are standardised with the statistics of the run.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.metadata import open_builder
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.data.record_cache import PackedSource
from sar_mixmae_jax.data.record_source import read_rows
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.predictions import Predictions, load_predictions, save_predictions
from sar_mixmae_jax.experiments.event_scores import score_confusions, score_table
from sar_mixmae_jax.experiments.runner import check_same_comparison
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    load_records,
    predict_seeds,
    seed_groups,
    stack,
    train_seeds,
)
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES
from sar_mixmae_jax.tasks.segmentation_metrics import with_unmeasured
from sar_mixmae_jax.tasks.supervised import finetune_loss, init_model_params, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, load_task_dataset, make_predictions
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training.config import make_objective, make_optimizer, make_schedule
from sar_mixmae_jax.training.downstream import (
    choose_bands,
    complete_config,
    make_finetune_objective,
)
from sar_mixmae_jax.training.encoder_loading import replace_encoder, resolve_encoder
from sar_mixmae_jax.training.initialisation import inherit_statistics
from sar_mixmae_jax.training.train_step import CacheablePartial, TrainState, init_state
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write

ENCODERS = ("random", "pretrained", "adapted")
"""Random; of `config.init`; of `config.init`, pretrained further on the other events' images."""


def compare(config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> list[Path]:
    """Predict every event with models of the other events, then write the scores.

    Args:
      config: see `configs/compare.py:events`.
      workdir: for predictions and scores; finished predictions are kept.
      stop: polled between trainings; True ends early.

    Returns:
      Paths of the scores; none if it was stopped.

    Raises:
      UserError: the dataset or the run cannot be used.
    """
    with lock_workdir(workdir):
        transfer = EventTransfer(config, workdir)
        check_same_comparison(config, workdir)
        for event in transfer.events:
            for seeds in seed_groups(config.seeds):
                for encoder in ENCODERS:
                    missing = [s for s in seeds if not transfer.path(encoder, event, s).exists()]
                    if missing and stop():
                        print("stopped; the same command continues the comparison")
                        return []
                    if missing:
                        print(f"{encoder}, without {event}, seeds {missing}")
                        transfer.predict_event(encoder, event, missing)
        return transfer.write_scores()


class EventTransfer:
    """Chips of several events, and models that are trained without one of them.

    Attributes:
      events: names of the events, sorted.
    """

    def __init__(self, config: ConfigDict, workdir: Path) -> None:
        """Open the dataset and the run of pretraining.

        Args:
          config: of the comparison.
          workdir: for the predictions.

        Raises:
          InputError: the dataset has fewer than two events, or the run cannot be used.
        """
        self._config, self._workdir = config, workdir
        run = config.finetune.copy_and_resolve_references()
        run.init, run.data_dir = config.init, config.data_dir
        task = get_task(run.task).configure(run)
        run, source = choose_bands(complete_config(run, task), resolve_encoder(run, workdir))
        self._run, self._source = run, source
        splits = "+".join(open_builder(run.dataset, config.data_dir).info.splits)
        self._chips: TaskDataset = load_task_dataset(
            task, run.dataset, config.data_dir, splits, run.bands
        )
        self._objective = make_finetune_objective(run, source, self._chips)
        self._optimizer = _optimizer(run)
        columns = self._chips.columns
        if "event" not in columns or len(np.unique(columns["event"])) < 2:
            raise InputError(
                f"{self._chips.patches.name}: expected chips of at least two events, as in "
                "sen1floods11"
            )
        self.events = np.unique(columns["event"]).tolist()

    def path(self, encoder: str, event: str, seed: int) -> Path:
        """Return the path of the predictions of an event."""
        return self._workdir / "predictions" / f"{encoder}-{event}-{seed}.npz"

    def predict_event(self, encoder: str, event: str, seeds: Sequence[int]) -> None:
        """Train on chips of the other events, predict those of the event, and save."""
        run, task = self._run, self._objective.task
        states = [self._first_state(encoder, event, seed) for seed in seeds]
        batches = [
            _batches(self._training_rows(event, seed), run.total_steps, run.batch_size, seed)
            for seed in seeds
        ]
        trained, _ = train_seeds(
            stack(states),
            np.array(batches).swapaxes(0, 1),
            self._records,
            CacheablePartial(finetune_loss, self._objective),
            self._optimizer,
        )
        held_out = np.flatnonzero(self._chips.columns["event"] == event)
        outputs = predict_seeds(
            trained.params,
            self._records,
            CacheablePartial(predict_outputs, self._objective),
            task.eval_batch_size,
            leave_out=task.extra_arrays,
            rows=held_out,
        )
        subset = self._chips.subset(held_out)
        for number, seed in enumerate(seeds):
            of_one = {name: values[number] for name, values in outputs.items()}
            about = {"encoder": encoder, "event": event, "seed": seed}
            path = self.path(encoder, event, seed)
            path.parent.mkdir(exist_ok=True)
            save_predictions(make_predictions(subset, of_one, about), path)

    def _training_rows(self, event: str, seed: int) -> np.ndarray:
        """Return `config.chips` chips of the other events, chosen by the seed."""
        others = np.flatnonzero(self._chips.columns["event"] != event)
        drawn = np.random.default_rng(seed).permutation(others)
        return np.sort(drawn[: self._config.chips])

    def _first_state(self, encoder: str, event: str, seed: int) -> TrainState:
        init = partial(init_model_params, self._objective)
        state = init_state(init, self._optimizer, jax.random.key(seed))
        if encoder == "random":
            return state
        if encoder == "adapted":
            params = {**state.params, "encoder": self._adapted(event, seed)}
        else:
            arch = self._objective.model.arch
            params = replace_encoder(state.params, arch, self._source, self._run.bands)
        return dataclasses.replace(state, params=params)

    def _adapted(self, event: str, seed: int) -> Any:
        """Return the encoder after pretraining on tiles of all chips of the other events."""
        run, objective = self._config.adapt, self._pretraining
        optimizer, loss_fn = _optimizer(run), CacheablePartial(pretrain_loss, objective)
        init = partial(init_params, objective.model)
        state = pretrain.load_pretraining_state(
            init_state(init, optimizer, jax.random.key(seed)),
            objective.model.arch,
            self._source,
            self._run.bands,
        )
        tiles, chip = self._tiles
        places = np.flatnonzero(self._chips.columns["event"][chip] != event)
        batches = _batches(places, run.total_steps, run.batch_size, seed)
        trained, _ = train_seeds(stack([state]), batches[:, None], tiles, loss_fn, optimizer)
        return jax.tree.map(lambda leaf: leaf[0], trained.params["encoder"])

    @cached_property
    def _pretraining(self) -> PretrainObjective:
        assert self._source is not None
        patches = inherit_statistics(self._chips.patches, self._source)
        return make_objective(self._config.adapt, patches, self._source.arch)

    @cached_property
    def _records(self) -> Records:
        source = self._chips.patches.source
        return load_records(source, np.arange(len(source)))

    @cached_property
    def _tiles(self) -> tuple[Records, np.ndarray]:
        """All images cut into inputs of the encoder, those with measurements; chip of each."""
        side = self._objective.model.arch.image_size
        source = self._chips.patches.source
        images = read_rows(source, np.arange(len(source)))["backscatter"]
        grid = images.shape[1] // side
        cut = images[:, : grid * side, : grid * side]
        tiles = cut.reshape(len(images), grid, side, grid, side, -1).swapaxes(2, 3)
        tiles = tiles.reshape(-1, side, side, images.shape[-1])
        measured = np.flatnonzero(np.isfinite(tiles).any((1, 2, 3)))
        records = load_records(PackedSource({"backscatter": tiles}), measured)
        return records, measured // grid**2

    # ---- scores

    def write_scores(self) -> list[Path]:
        """Write the pooled scores of all encoders beside the baselines; return the paths."""
        pooled = {
            encoder: [self._pooled(encoder, seed) for seed in range(self._config.seeds)]
            for encoder in ENCODERS
        }
        first = pooled[ENCODERS[0]][0]
        counts = {
            name: [with_unmeasured(predictions, "confusion") for predictions in by_seed]
            for name, by_seed in pooled.items()
        }
        for name, matrices in self._baselines(first).items():
            counts[BASELINES[name]] = [matrices]
        scores = score_confusions(counts, first.columns["event"])
        title = (
            f"# Water in events that were not trained on\n\n{len(first.ids)} chips of "
            f"{len(self.events)} events of {self._chips.patches.name}; at most "
            f"{self._config.chips} labelled chips of the other events, "
            f"{self._run.total_steps} steps, {self._config.seeds} seeds.\n\n"
        )
        page, numbers = self._workdir / "events.md", self._workdir / "events.json"
        atomic_write(page, (title + score_table(scores, self.events)).encode())
        atomic_write(numbers, (json.dumps(scores, indent=1) + "\n").encode())
        return [page, numbers]

    def _pooled(self, encoder: str, seed: int) -> Predictions:
        """Return the predictions of all events by models that did not see them."""
        parts = [load_predictions(self.path(encoder, event, seed)) for event in self.events]
        return Predictions(
            parts[0].task,
            parts[0].classes,
            ids=np.concatenate([part.ids for part in parts]),
            logits=np.concatenate([part.logits for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            columns=_concatenate([part.columns for part in parts]),
            provenance={"encoder": encoder, "seed": seed},
            arrays=_concatenate([part.arrays for part in parts]),
        )

    def _baselines(self, predictions: Predictions) -> Mapping[str, np.ndarray]:
        """Return the matrices of thresholds, in the order of the predictions."""
        task, patches = self._objective.task, self._chips.patches
        with _errors_only():  # there is no regression, which would be another one for each event
            found = task.baselines(patches, _no_training)
        row = {name: number for number, name in enumerate(self._chips.ids)}
        order = [row[name] for name in predictions.ids]
        unmeasured = predictions.arrays["unmeasured"]
        matrices = {name: matrix[order].astype(np.int64) for name, matrix in found.items()}
        for matrix in matrices.values():
            matrix[:, :, 0] += unmeasured
        return matrices


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Leave out warnings that do not apply here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _no_training() -> tuple[PatchDataset, str]:
    raise InputError("no labelled chips")


def _concatenate(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _optimizer(run: ConfigDict) -> optax.GradientTransformation:
    """Return the optimizer of a run of `total_steps`, with a schedule over all of them."""
    whole = ShuffleSampler(run.total_steps * run.batch_size, run.batch_size, 0)
    return make_optimizer(run, make_schedule(run, whole))


def _batches(rows: np.ndarray, steps: int, size: int, seed: int) -> np.ndarray:
    """Return the records of every step; fewer records than a batch are repeated."""
    repeated = np.tile(rows, -(-size // len(rows)))
    sampler = ShuffleSampler(len(repeated), size, seed)
    return np.array([repeated[sampler.batch(step)] for step in range(steps)])
