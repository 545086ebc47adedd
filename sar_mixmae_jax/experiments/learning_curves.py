"""Comparison of pretraining methods by learning curves.

On accelerators all seeds of an arm are one program, on CPU they follow each other.

```
WORKDIR/encoders/ARM-SHARE-SEED.npz         encoder after a share of the pretraining
WORKDIR/pretraining/ARM.npz                 state of an unfinished pretraining
WORKDIR/predictions/NAME-ARM-SHARE-SEED.npz predictions of the test split
WORKDIR/results/NAME-ARM-SHARE-SEED.json    their metrics, written last
WORKDIR/baselines/NAME-SEED.json            of the first measurement with the same labels
```

NAME is "pretraining" or a measurement. The share 0 is the random encoder, which is the same for all
arms and has the name "random".
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.evaluation.predictions import Predictions, save_predictions
from sar_mixmae_jax.experiments.curve_baselines import (
    BaselineProcesses,
    Baselines,
    by_name,
    read_stored,
)
from sar_mixmae_jax.experiments.curve_figure import RANDOM, CurveResult
from sar_mixmae_jax.experiments.curve_files import read_metrics
from sar_mixmae_jax.experiments.curve_plan import Point, check_curves, footnotes, plan_points
from sar_mixmae_jax.experiments.curve_pretraining import CurvePretraining
from sar_mixmae_jax.experiments.curve_report import write_report
from sar_mixmae_jax.experiments.measurement import Measurement
from sar_mixmae_jax.experiments.measurement_kinds import open_measurement
from sar_mixmae_jax.experiments.programs import Compilers
from sar_mixmae_jax.experiments.reconstruction_error import Batch
from sar_mixmae_jax.experiments.reconstruction_metrics import PRETRAINING, measure_reconstruction
from sar_mixmae_jax.experiments.runner import check_same_comparison, print_progress
from sar_mixmae_jax.experiments.seed_statistics import Metric
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    is_accelerator,
    seed_groups,
    stack,
)
from sar_mixmae_jax.experiments.trials import (
    flat_metrics,
    held_out,
    measured_batches,
    protocol,
)
from sar_mixmae_jax.training.config import make_objective
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.background import BackgroundTasks
from sar_mixmae_jax.utils.files import write_json


def compare(config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> list[Path]:
    """Compute the missing points, then write tables and figures.

    Args:
      config: see `configs/compare.py`.
      workdir: working directory of the comparison; what is finished is kept and not computed again.
      stop: polled between calls of a program; True saves and ends early, with the tables of what is
        finished.

    Returns:
      Paths of the tables and figures.

    Raises:
      UserError: something cannot be trained; what is finished is kept.
    """
    check_curves(config)
    with lock_workdir(workdir):
        reported = check_same_comparison(config, workdir)
        comparison = Comparison(config, workdir, stop)
        comparison.run()
        results = comparison.results(reported)
        if not any(result.name in config.finetune for result in results):
            return []
        return write_report(
            reported,
            workdir,
            results,
            comparison.baselines(),
            comparison.scores(),
            footnotes(reported),
        )


class Comparison:
    """Points of a comparison: planned, stored, and computed."""

    def __init__(self, config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> None:
        """Plan the points.

        Args:
          config: configuration of the comparison.
          workdir: for its files.
          stop: see `compare`.
        """
        self.config, self.workdir, self.stop = config, workdir, stop
        self._pretraining = CurvePretraining(config, workdir, self._stop_or_fail)
        self._baseline_processes = BaselineProcesses(config)
        self._tasks = BackgroundTasks()
        self._measurements: dict[str, Measurement] = {}
        self._records: dict[Any, Records] = {}

    def _stop_or_fail(self) -> bool:
        """Return True if the comparison has to stop; raise the error of a background task."""
        self._tasks.check()
        return self.stop()

    def run(self) -> None:
        """Compute the missing points, until `stop` ends it.

        Metrics and baselines are computed beside the next training.
        """
        planned = [
            (point, group)
            for group in seed_groups(self.config.seeds)
            for point in plan_points(self.config)
        ]
        missing = [
            (point, seeds)
            for point, group in planned
            if (seeds := [seed for seed in group if not self._path(point, seed).exists()])
        ]
        print(f"{len(planned)} results, of which {len(planned) - len(missing)} are finished")
        if jax.device_count() > 1:
            print(f"one of {jax.device_count()} devices is used")
        with self._baseline_processes, self._tasks, Compilers() as compilers:
            if is_accelerator():
                self._compile_ahead(compilers, missing)
            self._compute(missing)

    def _compute(self, missing: Sequence[tuple[Point, list[int]]]) -> None:
        self._queue_baselines(PRETRAINING, 0)
        for name in self.config.finetune:
            for seed in self._finished(Point(name, RANDOM, 0.0)):
                self._queue_baselines(name, seed)
        start = time.monotonic()
        for number, (point, seeds) in enumerate(missing, 1):
            if self.stop() or not self._pretraining.run(point.arm, seeds):
                print(f"stopped before {point.title}; the same command continues the comparison")
                self._tasks.cancel()
                return
            begin = time.monotonic()
            self._measure(point, seeds)
            seconds = time.monotonic() - begin
            print_progress(point.title, seconds, start, number, len(missing))

    def _compile_ahead(
        self, compilers: Compilers, missing: Sequence[tuple[Point, list[int]]]
    ) -> None:
        """Start compiling all programs that train or predict, side by side."""
        names = list({point.name: None for point, _ in missing if point.name != PRETRAINING})
        with ThreadPoolExecutor(len(names) or 1) as pool:  # to read their labels side by side
            opened = pool.map(partial(open_measurement, self.config, shared=self._records), names)
            self._measurements |= dict(zip(names, opened, strict=True))
        prepared: set[tuple[str, int]] = set()
        for point, seeds in missing:
            name, arm, _ = point
            if name != PRETRAINING and (name, len(seeds)) not in prepared:
                self._measurement(name).prepare(compilers, len(seeds))
            without = self._pretraining.without_encoders(arm, seeds)
            if arm != RANDOM and without and (arm, len(without)) not in prepared:
                self._pretraining.prepare(compilers, arm, len(without))
            prepared |= {(name, len(seeds)), (arm, len(without))}

    # ---- results

    def results(self, config: ConfigDict) -> list[CurveResult]:
        """Return the results of all finished points of a configuration, in order.

        Args:
          config: configuration of the comparison, with the arms to report.

        Raises:
          InputError: a file is damaged.
        """
        results = []
        for point in plan_points(config):
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

    def _queue_baselines(self, name: str, seed: int) -> None:
        """Queue the baselines of a seed, unless they are stored."""
        path = self._baselines_path(name, seed)
        if not path.exists():
            predictions = self._predictions_path(Point(name, RANDOM, 0.0), seed)
            self._tasks.submit(self._baseline_processes.store, path, name, seed, predictions)

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
            title = f"{self._measurement_title(name)}: {title}"
            metrics[name] = Metric(name, score, title, bounded=True)
        return metrics

    def _measurement_title(self, name: str) -> str:
        """Return task, fraction of the labels, and what is trained, for readers."""
        (task,) = (task for task, names in self.config.tasks.items() if name in names)
        tuning = self.config.finetune[name]
        frozen = tuning.trainer == "probe" or tuning.get("freeze_encoder", False)
        trained = "frozen" if frozen else "fine-tuned"
        return f"{task.replace('_', ' ')}, {tuning.label_fraction:.0%} of the labels, {trained}"

    def _measurement(self, name: str) -> Measurement:
        if name not in self._measurements:
            self._measurements[name] = open_measurement(self.config, name, self._records)
        return self._measurements[name]

    def _predictions_path(self, point: Point, seed: int) -> Path:
        return self.workdir / "predictions" / f"{point.title}-{seed}.npz"

    # ---- measurements

    def _measure(self, point: Point, seeds: Sequence[int]) -> None:
        """Compute the results of some seeds of a point; what the host computes is queued."""
        params = self._pretraining.encoders(point.arm, point.share, seeds)
        if point.name == PRETRAINING:
            held_out = self._held_out
            for seed, of_seed in zip(seeds, params, strict=True):
                self._tasks.submit(self._write_reconstruction, point, seed, of_seed, *held_out)
            return
        encoders = stack([of_seed["encoder"] for of_seed in params])
        predictions = self._measurement(point.name).evaluate(encoders, seeds)
        for seed, predict in zip(seeds, predictions, strict=True):
            baselines = None
            if point.arm == RANDOM:
                baselines = self._baselines_path(point.name, seed)
            self._tasks.submit(self._write_predictions, point, seed, predict, baselines)

    def _write_predictions(
        self,
        point: Point,
        seed: int,
        predict: Callable[[], Predictions],
        baselines: Path | None,
    ) -> None:
        """Write the results of a seed, and the baselines of its labels if they have a path."""
        predictions, path = predict(), self._predictions_path(point, seed)
        path.parent.mkdir(exist_ok=True)
        save_predictions(predictions, path)
        if baselines:
            self._baseline_processes.store(baselines, point.name, seed, path)
        write_json(self._path(point, seed), flat_metrics(predictions))

    @cached_property
    def _held_out(self) -> tuple[PatchDataset, list[Batch]]:
        patches = held_out(self.config)
        return patches, list(measured_batches(patches, self.config.measured_batches))

    def _write_reconstruction(
        self, point: Point, seed: int, params: Any, patches: PatchDataset, batches: list[Batch]
    ) -> None:
        objective = make_objective(self._pretraining.arm_config(point.arm), patches)
        metrics = measure_reconstruction(objective, params, batches, protocol(patches))
        write_json(self._path(point, seed), metrics["model"])
