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

import contextlib
import dataclasses
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.predictions import load_predictions, save_predictions
from sar_mixmae_jax.experiments.baselines import evaluate_baselines
from sar_mixmae_jax.experiments.curve_report import RANDOM, CurveResult, write_report
from sar_mixmae_jax.experiments.measurements import Measurement
from sar_mixmae_jax.experiments.reconstruction_error import Batch
from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics, measure_reconstruction
from sar_mixmae_jax.experiments.runner import check_same_comparison
from sar_mixmae_jax.experiments.seed_statistics import Metric
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    is_accelerator,
    load_records,
    prepare_training,
    seed_groups,
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
    reconstruction_references,
)
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training.config import make_objective
from sar_mixmae_jax.training.setup import RunSetup
from sar_mixmae_jax.training.train_step import TrainState, init_state
from sar_mixmae_jax.training.workdir import lock_workdir
from sar_mixmae_jax.utils.errors import DivergedError, InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors, write_arrays

SHARED = ("dataset", "split", "bands", "model", "batch_size", "total_steps")
"""Fields of the pretraining that arms cannot change."""
POLL_STEPS = 32
"""Steps between two calls of `stop`."""
SAVE_SECONDS = 120.0
"""Time between two states of a pretraining on the disk."""


class Point(NamedTuple):
    """Metrics of an arm after a share of its pretraining.

    Attributes:
      name: `PRETRAINING` or the measurement.
      arm: name of the arm.
      share: of the pretraining, 0 to 1.
    """

    name: str
    arm: str
    share: float

    @property
    def title(self) -> str:
        """Name in files and messages."""
        return f"{self.name}-{self.arm}-{self.share:g}"


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
        finished = comparison.run()
        results = comparison.results()
        if not any(result.name in config.finetune for result in results):
            return []
        return write_report(
            config,
            workdir,
            results,
            comparison.references(compute=finished),
            comparison.scores(),
            footnotes(config),
        )


def check_curves(config: ConfigDict) -> None:
    """Check the fields that only learning curves have.

    Raises:
      InputError: names the field that cannot be used.
    """
    shares = tuple(config.shares)
    if not shares or list(shares) != sorted({*shares}) or shares[0] <= 0 or shares[-1] != 1:
        raise InputError(f"shares is {shares}: expected rising numbers above 0, the last of them 1")
    if RANDOM not in config.compared:
        raise InputError(f"compared is {tuple(config.compared)}: expected {RANDOM} among them")
    steps = [max(1, round(share * config.pretrain.total_steps)) for share in shares]
    if len({*steps}) < len(steps):
        raise InputError(
            f"shares is {shares}, of {config.pretrain.total_steps} steps: two of them are the same "
            "step, expected different ones"
        )
    for arm in config.compared:
        _check_arm(arm, config.arms[arm])


def _check_arm(name: str, arm: ConfigDict) -> None:
    """Check that one program serves an arm like the others.

    Raises:
      InputError: names what it changes that only ordinary runs can change.
    """
    expected = RANDOM if name == RANDOM else "pretrain"
    if arm.init != expected:
        raise InputError(f"arms.{name}.init is {arm.init}: expected {expected}")
    changed = [f"pretrain.{field}" for field in SHARED if field in arm.get("pretrain", {})]
    changed += ["finetune"] if arm.get("finetune") else []
    if arm.get("pretrain", {}).get("speckle", {}).get("apply_to") == "input_and_target":
        changed.append("pretrain.speckle.apply_to")
    if changed:
        raise InputError(
            f"arms.{name} changes {', '.join(changed)}, which all arms of learning curves share: "
            "expected weighting, objective, or a filter of targets or weights"
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

    def points(self) -> list[Point]:
        """Return all points in the order in which they are computed."""
        names = (PRETRAINING, *self.config.finetune)
        planned = [Point(name, RANDOM, 0.0) for name in self.config.finetune]
        for arm in self.config.compared:
            if arm == RANDOM:
                continue
            whole = arm in self.config.curves or not self.config.curves
            shares = self.config.shares if whole else self.config.shares[-1:]
            planned += [Point(name, arm, share) for share in shares for name in names]
        return planned

    def run(self) -> bool:
        """Compute the missing points; return False if `stop` ended it."""
        planned = [(point, g) for g in seed_groups(self.config.seeds) for point in self.points()]
        missing = [
            (point, seeds)
            for point, group in planned
            if (seeds := [seed for seed in group if not self._path(point, seed).exists()])
        ]
        print(f"{len(planned)} results, of which {len(planned) - len(missing)} are finished")
        if jax.device_count() > 1:
            print(f"one of {jax.device_count()} devices is used")
        pool = ThreadPoolExecutor(os.cpu_count())
        if is_accelerator():
            self._compile_ahead(pool, missing)
        try:
            return self._compute(missing)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _compute(self, missing: Sequence[tuple[Point, list[int]]]) -> bool:
        start = time.monotonic()
        for number, (point, seeds) in enumerate(missing, 1):
            if self.stop() or not self._pretrain(point.arm, seeds):
                print(f"stopped before {point.title}; the same command continues the comparison")
                return False
            begin = time.monotonic()
            self._measure(point, seeds)
            seconds = time.monotonic() - begin
            minutes = (time.monotonic() - start) / number * (len(missing) - number) / 60
            print(f"{point.title}: {seconds:.0f} s; about {minutes:.0f} minutes left")
        return True

    def _compile_ahead(
        self, pool: ThreadPoolExecutor, missing: Sequence[tuple[Point, list[int]]]
    ) -> None:
        """Start compiling all programs that train, side by side."""
        prepared: set[tuple[str, int]] = set()
        for point, seeds in missing:
            name, arm, _ = point
            if name != PRETRAINING and (name, len(seeds)) not in prepared:
                self._measurement(name).prepare(pool, seeds)
            if arm != RANDOM and (arm, len(seeds)) not in prepared:
                setup = self._setup(arm)
                prepare_training(
                    pool,
                    partial(_initial_states, setup, seeds),
                    (len(seeds), setup.config.batch_size),
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
        for point in self.points():
            seeds = self._finished(point)
            if seeds:
                results.append(
                    CurveResult(*point, {seed: self._read(point, seed) for seed in seeds})
                )
        return results

    def _finished(self, point: Point) -> list[int]:
        return [seed for seed in range(self.config.seeds) if self._path(point, seed).exists()]

    def _path(self, point: Point, seed: int) -> Path:
        return self.workdir / "results" / f"{point.title}-{seed}.json"

    def _read(self, point: Point, seed: int) -> Metrics:
        path = self._path(point, seed)
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            return {name: None if v is None else float(v) for name, v in content.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} cannot be read ({first_line(error)}): remove it to compute it again"
            ) from error

    def references(self, *, compute: bool) -> dict[str, dict[str, dict[int | None, Metrics]]]:
        """Return the metrics of all baselines by measurement, name and seed.

        Args:
          compute: False: only those that are stored.
        """
        stored = self._stored(PRETRAINING, partial(reconstruction_references, self.config), compute)
        references: dict[str, dict[str, dict[int | None, Metrics]]] = {
            PRETRAINING: {name: {None: metrics} for name, metrics in stored.items()}
        }
        known: dict[Any, dict[str, Metrics]] = {}
        for name in self.config.finetune:
            random = Point(name, RANDOM, 0.0)
            for seed in self._finished(random):
                measurement = self._measurement(name)
                key = (*measurement.labels_key, seed)
                if key not in known:
                    measure = partial(self._measure_baselines, measurement, random, seed)
                    known[key] = self._stored(f"{name}-{seed}", measure, compute)
                for title, metrics in known[key].items():
                    references.setdefault(name, {}).setdefault(title, {})[seed] = metrics
        return references

    def _stored(
        self, title: str, measure: Callable[[], dict[str, Metrics]], compute: bool
    ) -> dict[str, Metrics]:
        """Return metrics of baselines from their file, which is written if it is missing."""
        path = self.workdir / "baselines" / f"{title}.json"
        if path.exists():
            with _reading(path):
                return json.loads(path.read_text())
        if not compute:
            return {}
        print(f"baselines without a network: {title}")
        metrics = measure()
        _write_json(path, metrics)
        return metrics

    def _measure_baselines(
        self, measurement: Measurement, random: Point, seed: int
    ) -> dict[str, Metrics]:
        if measurement.task.labels_per_pixel:
            predicted = load_predictions(self._predictions_path(random, seed))
            return measurement.pixel_baselines(predicted, seed)
        return evaluate_baselines(measurement.splits(seed))

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
        last = 0.0 if arm == RANDOM else 1.0
        seeds = [seed for seed in seeds if not self._encoder_path(arm, last, seed).exists()]
        if not seeds:
            return True
        setup = self._setup(arm)
        states = _initial_states(setup, seeds)
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
                states, losses = train_seeds(
                    states, rows, self._pretraining_records, setup.loss_fn, setup.optimizer
                )
                if not np.isfinite(losses).all():
                    raise DivergedError(
                        f"{arm}: the loss is not finite before step {after}: lower "
                        "--config.pretrain.optimizer.base_learning_rate in another --workdir, or "
                        "leave the arm out of --config.compared"
                    )
                bar.update(after - step)
                bar.set_postfix(loss=f"{losses[-1].mean():.4f}")
                step = after
                if step in stops:
                    self._save_encoders(arm, stops[step], seeds, states)
                stopped = self.stop() and step < total
                if stopped or step in stops or time.monotonic() - saved > SAVE_SECONDS:
                    write_arrays(path, {"seeds": np.array(seeds), **_leaves(states)})
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
        for number, seed in enumerate(seeds):
            params = jax.tree.map(lambda leaf: leaf[number], states.params)  # noqa: B023
            write_arrays(self._encoder_path(arm, share, seed), _leaves(params))

    # ---- measurements

    def _measure(self, point: Point, seeds: Sequence[int]) -> None:
        """Compute and write the results of some seeds of a point."""
        like = jax.eval_shape(self._setup(point.arm).init_params, jax.random.key(0))
        paths = [self._encoder_path(point.arm, point.share, seed) for seed in seeds]
        params = stack([_restore(path, like) for path in paths])
        if point.name == PRETRAINING:
            for number, seed in enumerate(seeds):
                of_seed = jax.tree.map(lambda leaf: leaf[number], params)  # noqa: B023
                metrics = self._reconstruction(point.arm, of_seed)
                _write_json(self._path(point, seed), metrics)
            return
        predictions = self._measurement(point.name).evaluate(params["encoder"], seeds)
        (self.workdir / "predictions").mkdir(exist_ok=True)
        for seed, predicted in zip(seeds, predictions, strict=True):
            save_predictions(predicted, self._predictions_path(point, seed))
            _write_json(self._path(point, seed), flat_metrics(predicted))

    @cached_property
    def _held_out(self) -> tuple[PatchDataset, list[Batch]]:
        patches = held_out(self.config)
        return patches, list(measured_batches(patches, self.config.measured_batches))

    def _reconstruction(self, arm: str, params: Any) -> Metrics:
        patches, batches = self._held_out
        objective = make_objective(self._pretraining_config(arm), patches)
        metrics = measure_reconstruction(objective, params, batches, protocol(patches))
        return metrics["model"]


def footnotes(config: ConfigDict) -> list[str]:
    """Return sentences about pretraining and measurements."""
    pretraining = config.pretrain
    sentences = [
        f"Pretraining: {pretraining.model.variant} at {pretraining.model.image_size} px on "
        f"{pretraining.dataset}, {pretraining.total_steps} steps of {pretraining.batch_size} "
        f"images, {config.seeds} seeds planned. In pretraining and fine-tuning nothing is "
        "selected: the last step counts.",
    ]
    sentences += [
        f"{name}: {run.dataset}, label_fraction {run.label_fraction:g}, labels chosen by seed; "
        + (
            "a linear layer on frozen features, its rate chosen on the validation split."
            if run.trainer == "probe"
            else f"{run.total_steps} steps of {run.batch_size} records"
            + (", encoder frozen." if run.get("freeze_encoder") else ".")
        )
        for name, run in config.finetune.items()
    ]
    return sentences


def _initial_states(setup: RunSetup, seeds: Sequence[int]) -> TrainState:
    return stack(
        [init_state(setup.init_params, setup.optimizer, jax.random.key(seed)) for seed in seeds]
    )


def _rows(samplers: list[ShuffleSampler], start: int, stop: int) -> np.ndarray:
    batches = [[sampler.batch(step) for step in range(start, stop)] for sampler in samplers]
    return np.array(batches).swapaxes(0, 1)


def _write_json(path: Path, content: Any) -> None:
    with report_write_errors(path, "make room and start again; what is finished is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


# ---- stacked states in files


def _leaves(tree: Any) -> dict[str, np.ndarray]:
    return {f"{n:04d}": np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(tree))}


def read_state(path: Path, seeds: Sequence[int], initial: TrainState) -> TrainState:
    """Return the stored state of an unfinished pretraining of these seeds, or the initial one."""
    if not path.exists():
        return initial
    with _reading(path), np.load(path, allow_pickle=False) as stored:
        is_same = stored["seeds"].tolist() == list(seeds)
    return _restore(path, initial) if is_same else initial


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of a damaged file into a message."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): remove it") from error


def _restore(path: Path, like: Any) -> Any:
    """Return a tree with the leaves of a file.

    Raises:
      InputError: the file cannot be read, or is of another model.
    """
    leaves, tree = jax.tree.flatten(like)
    with _reading(path), np.load(path, allow_pickle=False) as stored:
        arrays = [stored[f"{n:04d}"] for n in range(len(leaves))]
        count = len([name for name in stored.files if name != "seeds"])
    wanted = [(leaf.shape, leaf.dtype) for leaf in leaves]
    if count != len(leaves) or [(array.shape, array.dtype) for array in arrays] != wanted:
        raise InputError(f"{path} is of another model: remove it, or choose another --workdir")
    return jax.tree.unflatten(tree, [jax.numpy.asarray(array) for array in arrays])
