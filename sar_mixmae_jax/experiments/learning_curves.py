"""Comparison of pretraining methods by learning curves: all seeds of an arm in one program.

```
WORKDIR/encoders/ARM-SHARE-SEED.npz         encoder after a share of the pretraining
WORKDIR/pretraining/ARM.npz                 state of an unfinished pretraining
WORKDIR/predictions/NAME-ARM-SHARE-SEED.npz predictions of the test split
WORKDIR/results/NAME-ARM-SHARE-SEED.json    their metrics, written last
```

NAME is "pretraining" or a measurement. The share 0 is the random encoder, which is the same for all
arms and has the name "random".
"""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.predictions import Predictions, save_predictions
from sar_mixmae_jax.experiments.curve_baselines import (
    BaselineProcesses,
    Baselines,
    by_name,
    read_stored,
)
from sar_mixmae_jax.experiments.curve_figure import RANDOM, CurveResult
from sar_mixmae_jax.experiments.curve_files import (
    leaves_by_number,
    read_metrics,
    read_state,
    restore_leaves,
    write_json,
)
from sar_mixmae_jax.experiments.curve_plan import Point, check_curves, footnotes, plan_points
from sar_mixmae_jax.experiments.curve_report import write_report
from sar_mixmae_jax.experiments.measurements import Measurement
from sar_mixmae_jax.experiments.reconstruction_error import Batch
from sar_mixmae_jax.experiments.reconstruction_metrics import measure_reconstruction
from sar_mixmae_jax.experiments.runner import check_same_comparison
from sar_mixmae_jax.experiments.seed_statistics import Metric
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    initial_states,
    is_accelerator,
    load_records,
    prepare_training,
    seed_groups,
    select_seed,
    stack,
    train_seeds,
)
from sar_mixmae_jax.experiments.trials import (
    PRETRAINING,
    Trial,
    flat_metrics,
    held_out,
    measured_batches,
    pretraining_config,
    protocol,
)
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training.config import make_objective
from sar_mixmae_jax.training.setup import RunSetup
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.background import BackgroundTasks
from sar_mixmae_jax.utils.files import write_arrays

POLL_STEPS = 32
"""Steps between two calls of `stop`."""
SAVE_SECONDS = 120.0
"""Time between two states of a pretraining on the disk."""


def compare(config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> list[Path]:
    """Compute the missing points, then write tables and figures.

    Args:
      config: see `configs/compare.py`.
      workdir: of the comparison; what is finished is kept and not computed again.
      stop: polled between calls of a program; True saves and ends early, with the tables of what is
        finished.

    Returns:
      Paths of the tables and figures.

    Raises:
      UserError: something cannot be trained; what is finished is kept.
    """
    check_curves(config)
    with lock_workdir(workdir):
        check_same_comparison(config, workdir)
        comparison = Comparison(config, workdir, stop)
        comparison.run()
        results = comparison.results()
        if not any(result.name in config.finetune for result in results):
            return []
        return write_report(
            config,
            workdir,
            results,
            comparison.baselines(),
            comparison.scores(),
            footnotes(config),
        )


class Comparison:
    """Points of a comparison: planned, stored, and computed."""

    def __init__(self, config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> None:
        """Plan the points.

        Args:
          config: of the comparison.
          workdir: for its files.
          stop: see `compare`.
        """
        self.config, self.workdir, self.stop = config, workdir, stop
        self._measurements: dict[str, Measurement] = {}
        self._setups: dict[str, RunSetup] = {}
        self._records: dict[Any, Records] = {}

    def run(self) -> None:
        """Compute the missing points, until `stop` ends it.

        Metrics and baselines are computed on the host, beside the next computation on the device.
        """
        planned = [
            (point, g) for g in seed_groups(self.config.seeds) for point in plan_points(self.config)
        ]
        missing = [
            (point, seeds)
            for point, group in planned
            if (seeds := [seed for seed in group if not self._path(point, seed).exists()])
        ]
        print(f"{len(planned)} results, of which {len(planned) - len(missing)} are finished")
        if jax.device_count() > 1:
            print(f"one of {jax.device_count()} devices is used")
        compilers = ThreadPoolExecutor(os.cpu_count())
        try:
            with (
                BaselineProcesses(self.config) as self._baselines,
                BackgroundTasks() as self._tasks,
            ):
                if is_accelerator():
                    self._compile_ahead(compilers, missing)
                self._compute(missing)
        finally:
            compilers.shutdown(wait=False, cancel_futures=True)

    def _compute(self, missing: Sequence[tuple[Point, list[int]]]) -> None:
        self._tasks.submit(self._store_baselines, PRETRAINING, 0)
        for name in self.config.finetune:
            for seed in self._finished(Point(name, RANDOM, 0.0)):
                self._tasks.submit(self._store_baselines, name, seed)
        start = time.monotonic()
        for number, (point, seeds) in enumerate(missing, 1):
            if self.stop() or not self._pretrain(point.arm, seeds):
                print(f"stopped before {point.title}; the same command continues the comparison")
                return
            begin = time.monotonic()
            self._measure(point, seeds)
            seconds = time.monotonic() - begin
            minutes = (time.monotonic() - start) / number * (len(missing) - number) / 60
            print(f"{point.title}: {seconds:.0f} s; about {minutes:.0f} minutes left")

    def _compile_ahead(
        self, pool: ThreadPoolExecutor, missing: Sequence[tuple[Point, list[int]]]
    ) -> None:
        """Start compiling all programs that train or predict, side by side."""
        list(pool.map(self._measurement, {point.name for point, _ in missing} - {PRETRAINING}))
        prepared: set[tuple[str, int]] = set()
        for point, seeds in missing:
            name, arm, _ = point
            if name != PRETRAINING and (name, len(seeds)) not in prepared:
                self._measurement(name).prepare(pool, seeds)
            if arm != RANDOM and (arm, len(seeds)) not in prepared:
                setup = self._setup(arm)
                prepare_training(
                    pool,
                    setup.init_params,
                    len(seeds),
                    setup.config.batch_size,
                    self._pretraining_records,
                    setup.loss_fn,
                    setup.optimizer,
                )
            prepared |= {(name, len(seeds)), (arm, len(seeds))}

    # ---- results

    def results(self) -> list[CurveResult]:
        """Return the results of all finished points, in order.

        Raises:
          InputError: a file is damaged.
        """
        results = []
        for point in plan_points(self.config):
            seeds = self._finished(point)
            if seeds:
                results.append(
                    CurveResult(*point, {s: read_metrics(self._path(point, s)) for s in seeds})
                )
        return results

    def _finished(self, point: Point) -> list[int]:
        return [seed for seed in range(self.config.seeds) if self._path(point, seed).exists()]

    def _path(self, point: Point, seed: int) -> Path:
        return self.workdir / "results" / f"{point.title}-{seed}.json"

    def baselines(self) -> Baselines:
        """Return the stored metrics of the baselines, of all seeds that have them."""
        found = read_stored(self._baselines_path(PRETRAINING, 0))
        baselines: Baselines = {
            PRETRAINING: {name: {None: metrics} for name, metrics in found.items()}
        }
        for name in self.config.finetune:
            of_seeds = {
                seed: read_stored(self._baselines_path(name, seed))
                for seed in self._finished(Point(name, RANDOM, 0.0))
            }
            baselines[name] = by_name(of_seeds)
        return baselines

    def _store_baselines(self, name: str, seed: int) -> None:
        predictions = self._predictions_path(Point(name, RANDOM, 0.0), seed)
        self._baselines.store(self._baselines_path(name, seed), name, seed, predictions)

    def _baselines_path(self, name: str, seed: int) -> Path:
        """Return the path of the baselines: one for measurements with equal labels."""
        if name == PRETRAINING:
            return self.workdir / "baselines" / f"{name}.json"
        labels = self._measurement(name).labels_key
        names = self.config.finetune
        first = next(n for n in names if self._measurement(n).labels_key == labels)
        return self.workdir / "baselines" / f"{first}-{seed}.json"

    def scores(self) -> dict[str, Metric]:
        """Return the metric of every measurement: the first of the task's titles."""
        metrics = {}
        for name in self.config.finetune:
            score, title = next(iter(self._measurement(name).task.score_titles.items()))
            metrics[name] = Metric(name, score, f"{name.replace('_', ' ')}: {title}", bounded=True)
        return metrics

    def _measurement(self, name: str) -> Measurement:
        if name not in self._measurements:
            self._measurements[name] = Measurement(self.config, name, self._records)
        return self._measurements[name]

    def _predictions_path(self, point: Point, seed: int) -> Path:
        return self.workdir / "predictions" / f"{point.title}-{seed}.npz"

    # ---- pretraining

    def _encoder_path(self, arm: str, share: float, seed: int) -> Path:
        return self.workdir / "encoders" / f"{arm}-{share:g}-{seed}.npz"

    def _pretrain(self, arm: str, seeds: Sequence[int]) -> bool:
        """Pretrain some seeds of an arm unless they are; return False if it was stopped."""
        shares = (0.0,) if arm == RANDOM else tuple(self.config.shares)
        seeds = [
            seed
            for seed in seeds
            if not all(self._encoder_path(arm, share, seed).exists() for share in shares)
        ]
        if not seeds:
            return True
        setup = self._setup(arm)
        states = initial_states(setup.init_params, setup.optimizer, seeds)
        if arm == RANDOM:
            self._save_encoders(arm, 0.0, seeds, states)
            return True
        path, total = self.workdir / "pretraining" / f"{arm}.npz", setup.total_steps
        states = read_state(path, seeds, states)
        samplers = [dataclasses.replace(setup.sampler, seed=seed) for seed in seeds]
        stops = {max(1, round(share * total)): share for share in self.config.shares}
        step, saved = int(states.step[0]), time.monotonic()
        with tqdm(total=total, initial=step, desc=arm, unit=" steps", delay=2) as bar:
            while step < total:
                after = min(next(s for s in stops if s > step), step + POLL_STEPS)
                rows = _rows(samplers, step, after)
                records = self._pretraining_records
                states, losses = train_seeds(
                    states,
                    rows,
                    records,
                    setup.loss_fn,
                    setup.optimizer,
                    f"{arm}, from step {step}",
                )
                bar.update(after - step)
                bar.set_postfix(loss=f"{losses[-1].mean():.4f}")
                step = after
                if step in stops:
                    self._save_encoders(arm, stops[step], seeds, states)
                stopped = self.stop() and step < total
                if stopped or step in stops or time.monotonic() - saved > SAVE_SECONDS:
                    write_arrays(path, {"seeds": np.array(seeds), **leaves_by_number(states)})
                    saved = time.monotonic()
                if stopped:
                    return False
        path.unlink(missing_ok=True)
        return True

    def _setup(self, arm: str) -> RunSetup:
        """Return the set-up of the first seed of an arm."""
        if arm not in self._setups:
            self._setups[arm] = pretrain.set_up(self._pretraining_config(arm), self.workdir)
        return self._setups[arm]

    def _pretraining_config(self, arm: str) -> ConfigDict:
        return pretraining_config(self.config, Trial(PRETRAINING, arm, 0))

    @cached_property
    def _pretraining_records(self) -> Records:
        source = self._setup(RANDOM).source
        return load_records(source, np.arange(len(source)))

    def _save_encoders(
        self, arm: str, share: float, seeds: Sequence[int], states: TrainState
    ) -> None:
        params = jax.device_get(states.params)
        for number, seed in enumerate(seeds):
            leaves = leaves_by_number(select_seed(params, number))
            write_arrays(self._encoder_path(arm, share, seed), leaves)

    def _encoders(self, point: Point, seeds: Sequence[int]) -> list[Any]:
        """Return the parameters of an arm after a share of its pretraining, by seed."""
        like = jax.eval_shape(self._setup(point.arm).init_params, jax.random.key(0))
        paths = [self._encoder_path(point.arm, point.share, seed) for seed in seeds]
        return [restore_leaves(path, like) for path in paths]

    # ---- measurements

    def _measure(self, point: Point, seeds: Sequence[int]) -> None:
        """Compute the results of some seeds of a point; what the host computes is queued."""
        params = self._encoders(point, seeds)
        if point.name == PRETRAINING:
            held_out = self._held_out
            for seed, of_seed in zip(seeds, params, strict=True):
                self._tasks.submit(self._write_reconstruction, point, seed, of_seed, *held_out)
            return
        encoders = stack([of_seed["encoder"] for of_seed in params])
        predictions = self._measurement(point.name).evaluate(encoders, seeds)
        for seed, predict in zip(seeds, predictions, strict=True):
            self._tasks.submit(self._write_predictions, point, seed, predict)

    def _write_predictions(
        self, point: Point, seed: int, predict: Callable[[], Predictions]
    ) -> None:
        predictions, path = predict(), self._predictions_path(point, seed)
        path.parent.mkdir(exist_ok=True)
        save_predictions(predictions, path)
        if point.arm == RANDOM:
            self._store_baselines(point.name, seed)
        write_json(self._path(point, seed), flat_metrics(predictions))

    @cached_property
    def _held_out(self) -> tuple[PatchDataset, list[Batch]]:
        patches = held_out(self.config)
        return patches, list(measured_batches(patches, self.config.measured_batches))

    def _write_reconstruction(
        self, point: Point, seed: int, params: Any, patches: PatchDataset, batches: list[Batch]
    ) -> None:
        objective = make_objective(self._pretraining_config(point.arm), patches)
        metrics = measure_reconstruction(objective, params, batches, protocol(patches))
        write_json(self._path(point, seed), metrics["model"])


def _rows(samplers: list[ShuffleSampler], start: int, stop: int) -> np.ndarray:
    batches = [[sampler.batch(step) for step in range(start, stop)] for sampler in samplers]
    return np.array(batches).swapaxes(0, 1)
