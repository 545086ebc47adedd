"""Water in events that were not trained on: few labelled chips, one event left out at a time.

```
WORKDIR/encoder.json                         see `event_encoder`
WORKDIR/predictions/ENCODER-EVENT-SEED.npz   predictions of the chips of the event
WORKDIR/events.md, events.json               IoU of water, pooled over all events
```

Encoders are "random", that of a run of pretraining, and the same after more pretraining on the
images of the other events, whose labels it does not see. All are standardised with the statistics
of the run.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.metadata import open_builder
from sar_mixmae_jax.data.record_cache import PackedSource
from sar_mixmae_jax.data.record_source import read_rows
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.predictions import Predictions, load_predictions, save_predictions
from sar_mixmae_jax.experiments.event_encoder import (
    check_encoder,
    continued_config,
    describe_encoder,
    find_encoder,
    record_encoder,
)
from sar_mixmae_jax.experiments.event_scores import (
    compare_confusions,
    difference_table,
    score_confusions,
    score_table,
)
from sar_mixmae_jax.experiments.runner import check_same_comparison
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    load_records,
    predict_seeds,
    seed_batches,
    seed_groups,
    stack,
    train_seeds,
)
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.reconstruction import pretrain_loss
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
from sar_mixmae_jax.training.encoder_loading import replace_encoder
from sar_mixmae_jax.training.source_checkpoint import inherit_statistics
from sar_mixmae_jax.training.train_step import CacheablePartial, TrainState, init_state
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors, write_json
from sar_mixmae_jax.utils.typed_json import to_json

ENCODERS = ("random", "pretrained", "adapted")
"""Random; of `config.init`; of `config.init`, pretrained further on the other events' images."""

DIFFERENCES = (("pretrained", "random"), ("adapted", "pretrained"))
"""Encoders that are compared."""


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
    if config.seeds < 1 or config.chips < 1:
        raise InputError(
            f"seeds is {config.seeds} and chips {config.chips}: expected at least 1 for both"
        )
    if config.init == "random":
        raise InputError(
            "init is 'random', and random encoders are always compared: set --config.init to a "
            "pretraining run"
        )
    with lock_workdir(workdir):
        transfer = EventTransfer(config, workdir)
        check_same_comparison(config, workdir)
        transfer.record_encoder()
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
          config: configuration of the comparison.
          workdir: for the predictions.

        Raises:
          InputError: the dataset has fewer than two events with labels, the run cannot be used, or
            it saw the chips.
        """
        self._config, self._workdir = config, workdir
        run = config.finetune.copy_and_resolve_references()
        run.init, run.data_dir = config.init, config.data_dir
        task = get_task(run.task).configure(run)
        run, source = choose_bands(complete_config(run, task), find_encoder(run, workdir))
        assert source is not None
        self._run, self._source = run, source
        splits = "+".join(open_builder(run.dataset, config.data_dir).info.splits)
        self._chips: TaskDataset = load_task_dataset(
            task, run.dataset, config.data_dir, splits, run.bands
        )
        check_encoder(source, self._chips)
        self._objective = make_finetune_objective(run, source, self._chips)
        self._optimizer = _optimizer(run)
        self._adapt = continued_config(config.adapt, source, self._objective.model.arch)
        patches = inherit_statistics(self._chips.patches, source)
        self._pretraining = make_objective(self._adapt, patches, self._objective.model.arch)
        events = self._chips.columns.get("event")
        if events is None or len(np.unique(events[self._usable])) < 2:
            raise InputError(
                f"{self._chips.patches.name}: expected chips with labelled and measured pixels of "
                "at least two events, as in sen1floods11"
            )
        self.events = np.unique(events).tolist()

    def record_encoder(self) -> None:
        """Store which checkpoint is compared."""
        record_encoder(self._source, self._workdir)

    def path(self, encoder: str, event: str, seed: int) -> Path:
        """Return the path of the predictions of an event."""
        return self._workdir / "predictions" / f"{encoder}-{event}-{seed}.npz"

    def predict_event(self, encoder: str, event: str, seeds: Sequence[int]) -> None:
        """Train on chips of the other events, predict those of the event, and save."""
        task = self._objective.task
        rows = [self._training_rows(event, seed) for seed in seeds]
        states = stack([self._first_state(encoder, seed) for seed in seeds])
        if encoder == "adapted":
            params = {**states.params, "encoder": self._adapted(event, seeds)}
            states = dataclasses.replace(states, params=params)
        trained, _ = train_seeds(
            states,
            _batches(rows, self._run, seeds),
            self._records,
            CacheablePartial(finetune_loss, self._objective),
            self._optimizer,
            f"{encoder} without {event}",
            in_turn=True,
        )
        held_out = np.flatnonzero(self._chips.columns["event"] == event)
        outputs = predict_seeds(
            trained.params,
            self._records,
            CacheablePartial(predict_outputs, self._objective),
            task.eval_batch_size,
            leave_out=task.extra_arrays,
            rows=held_out,
            in_turn=True,
        )
        subset = self._chips.subset(held_out)
        for number, seed in enumerate(seeds):
            of_one = {name: values[number] for name, values in outputs.items()}
            training = self._chips.subset(rows[number])
            if encoder == ENCODERS[0]:  # they are the same beside all encoders
                of_one |= self._baselines(subset, training)
            about = {
                "encoder": encoder,
                "event": event,
                "seed": seed,
                "source": to_json(self._source.description),
                "training chips": training.ids.tolist(),
            }
            path = self.path(encoder, event, seed)
            path.parent.mkdir(exist_ok=True)
            save_predictions(make_predictions(subset, of_one, about), path)

    def _baselines(self, chips: TaskDataset, training: TaskDataset) -> dict[str, np.ndarray]:
        task = self._objective.task
        return task.baselines(chips.patches, lambda: (training.patches, task.label_field))

    def _training_rows(self, event: str, seed: int) -> np.ndarray:
        """Return at most `config.chips` usable chips of the other events, chosen by the seed."""
        others = np.flatnonzero((self._chips.columns["event"] != event) & self._usable)
        drawn = np.random.default_rng(seed).permutation(others)
        return np.sort(drawn[: self._config.chips])

    @cached_property
    def _usable(self) -> np.ndarray:
        """(chips,) bool, True for chips with a pixel that is labelled and measured."""
        source, field = self._chips.patches.source, self._objective.task.label_field
        usable = []
        for record in (source[row] for row in range(len(source))):
            measured = np.isfinite(record["backscatter"]).all(-1)
            usable.append(((record[field].reshape(measured.shape) >= 0) & measured).any())
        return np.array(usable)

    def _first_state(self, encoder: str, seed: int) -> TrainState:
        init = partial(init_model_params, self._objective)
        state = init_state(init, self._optimizer, jax.random.key(seed))
        if encoder != "pretrained":
            return state
        arch = self._objective.model.arch
        params = replace_encoder(state.params, arch, self._source, self._run.bands)
        return dataclasses.replace(state, params=params)

    def _adapted(self, event: str, seeds: Sequence[int]) -> Any:
        """Return the (seed, …) encoders after pretraining on tiles of the other events."""
        run, objective = self._adapt, self._pretraining
        optimizer, loss_fn = _optimizer(run), CacheablePartial(pretrain_loss, objective)
        init = partial(init_params, objective.model)
        states = [
            pretrain.load_pretraining_state(
                init_state(init, optimizer, jax.random.key(seed)),
                objective.model.arch,
                self._source,
                self._run.bands,
            )
            for seed in seeds
        ]
        tiles, chip = self._tiles
        places = np.flatnonzero(self._chips.columns["event"][chip] != event)
        batches = _batches([places] * len(seeds), run, seeds)
        trained, _ = train_seeds(stack(states), batches, tiles, loss_fn, optimizer)
        return trained.params["encoder"]

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
        counts = {
            name: [with_unmeasured(predictions, "confusion") for predictions in by_seed]
            for name, by_seed in pooled.items()
        }
        differences = compare_confusions(counts, DIFFERENCES)
        first = pooled[ENCODERS[0]]
        for name, title in BASELINES.items():
            matrices = [with_unmeasured(of, name) for of in first if name in of.arrays]
            if matrices:  # a regression depends on the training chips, and so on the seed
                counts[title] = matrices if name == "logistic" else matrices[:1]
        scores = score_confusions(counts, first[0].columns["event"])
        title = (
            f"# Water in events that were not trained on\n\n{len(first[0].ids)} chips of "
            f"{len(self.events)} events of {self._chips.patches.name}; at most "
            f"{self._config.chips} labelled chips of the other events, "
            f"{self._run.total_steps} steps, seeds: {self._config.seeds}. "
            f"{describe_encoder(self._source)}\n\n"
        )
        text = title + difference_table(differences) + "\n" + score_table(scores, self.events)
        source = to_json(self._source.description)
        results = {"encoder": source, "differences": differences, "scores": scores}
        page, numbers = self._workdir / "events.md", self._workdir / "events.json"
        with report_write_errors(page, "make room and start again; what is finished is kept"):
            atomic_write(page, text.encode())
            write_json(numbers, results)
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


def _concatenate(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate the arrays that all parts have along the first axis."""
    return {
        name: np.concatenate([part[name] for part in parts])
        for name in parts[0]
        if all(name in part for part in parts)
    }


def _optimizer(run: ConfigDict) -> optax.GradientTransformation:
    """Return the optimizer of a run of `total_steps`, with a schedule over all of them."""
    whole = ShuffleSampler(run.total_steps * run.batch_size, run.batch_size, 0)
    return make_optimizer(run, make_schedule(run, whole))


def _batches(rows: Sequence[np.ndarray], run: ConfigDict, seeds: Sequence[int]) -> np.ndarray:
    """Return the (step, seed, batch) records; fewer records than a batch are repeated.

    Args:
      rows: (n,) numbers of the records of each seed.
      run: of `total_steps`.
      seeds: seeds of the order.
    """
    repeated = [np.tile(of_seed, -(-run.batch_size // len(of_seed))) for of_seed in rows]
    return seed_batches(repeated, seeds, run.batch_size, range(run.total_steps))
