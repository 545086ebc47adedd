"""Pretraining of the arms of learning curves, and their encoders after shares of it."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from sar_mixmae_jax.experiments.curve_figure import RANDOM
from sar_mixmae_jax.experiments.curve_files import leaves_by_number, read_state, restore_leaves
from sar_mixmae_jax.experiments.programs import Compilers
from sar_mixmae_jax.experiments.reconstruction_metrics import PRETRAINING
from sar_mixmae_jax.experiments.seed_training import (
    Records,
    initial_states,
    load_records,
    prepare_training,
    seed_batches,
    select_seed,
    train_seeds,
)
from sar_mixmae_jax.experiments.trials import Trial, pretraining_config
from sar_mixmae_jax.training import pretrain
from sar_mixmae_jax.training.setup import RunSetup
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.utils.files import write_arrays

POLL_STEPS = 32
"""Steps between two calls of `stop`."""
SAVE_SECONDS = 120.0
"""Time between two states of a pretraining on the disk."""


class CurvePretraining:
    """Encoders of all arms: stored, and pretrained where they are missing."""

    def __init__(self, config: ConfigDict, workdir: Path, stop: Callable[[], bool]) -> None:
        """Keep what pretraining needs.

        Args:
          config: configuration of the comparison.
          workdir: for its files.
          stop: polled every `POLL_STEPS` steps; True saves and ends early.
        """
        self._config, self._workdir, self._stop = config, workdir, stop
        self._setups: dict[str, RunSetup] = {}

    def _encoder_path(self, arm: str, share: float, seed: int) -> Path:
        return self._workdir / "encoders" / f"{arm}-{share:g}-{seed}.npz"

    def without_encoders(self, arm: str, seeds: Sequence[int]) -> list[int]:
        """Return the seeds of an arm whose encoders are missing."""
        shares = (0.0,) if arm == RANDOM else tuple(self._config.shares)
        return [
            seed
            for seed in seeds
            if not all(self._encoder_path(arm, share, seed).exists() for share in shares)
        ]

    def run(self, arm: str, seeds: Sequence[int]) -> bool:
        """Pretrain the seeds of an arm whose encoders are missing; return False if stopped."""
        seeds = self.without_encoders(arm, seeds)
        if not seeds:
            return True
        setup = self.setup(arm)
        states = initial_states(setup.init_params, setup.optimizer, seeds)
        if arm == RANDOM:
            self._save_encoders(arm, 0.0, seeds, states)
            return True
        path, total = self._workdir / "pretraining" / f"{arm}.npz", setup.total_steps
        states = read_state(path, seeds, states)
        rows = [np.arange(self._records.number)] * len(seeds)
        stops = {max(1, round(share * total)): share for share in self._config.shares}
        step, saved = int(states.step[0]), time.monotonic()
        with tqdm(total=total, initial=step, desc=arm, unit=" steps", delay=2) as bar:
            while step < total:
                after = min(next(s for s in stops if s > step), step + POLL_STEPS)
                states, losses = train_seeds(
                    states,
                    seed_batches(rows, seeds, setup.config.batch_size, range(step, after)),
                    self._records,
                    setup.loss_fn,
                    setup.optimizer,
                    f"{arm}, from step {step}",
                )
                bar.update(after - step)
                bar.set_postfix(loss=f"{losses[-1].mean():.4f}")
                step = after
                if step in stops:
                    self._save_encoders(arm, stops[step], seeds, states)
                stopped = self._stop() and step < total
                if stopped or step in stops or time.monotonic() - saved > SAVE_SECONDS:
                    write_arrays(path, {"seeds": np.array(seeds), **leaves_by_number(states)})
                    saved = time.monotonic()
                if stopped:
                    return False
        path.unlink(missing_ok=True)
        return True

    def prepare(self, compilers: Compilers, arm: str, seeds: int) -> None:
        """Start compiling the pretraining of this number of seeds."""
        setup = self.setup(arm)
        prepare_training(
            compilers,
            setup.init_params,
            seeds,
            setup.config.batch_size,
            self._records,
            setup.loss_fn,
            setup.optimizer,
        )

    def setup(self, arm: str) -> RunSetup:
        """Return the set-up of the first seed of an arm."""
        if arm not in self._setups:
            self._setups[arm] = pretrain.set_up(self.arm_config(arm), self._workdir)
        return self._setups[arm]

    def arm_config(self, arm: str) -> ConfigDict:
        """Return the configuration of the pretraining of an arm."""
        return pretraining_config(self._config, Trial(PRETRAINING, arm, 0))

    @cached_property
    def _records(self) -> Records:
        source = self.setup(RANDOM).source
        return load_records(source, np.arange(len(source)))

    def _save_encoders(
        self, arm: str, share: float, seeds: Sequence[int], states: TrainState
    ) -> None:
        params = jax.device_get(states.params)
        for number, seed in enumerate(seeds):
            leaves = leaves_by_number(select_seed(params, number))
            write_arrays(self._encoder_path(arm, share, seed), leaves)

    def encoders(self, arm: str, share: float, seeds: Sequence[int]) -> list[Any]:
        """Return the parameters of an arm after a share of its pretraining, by seed."""
        like = jax.eval_shape(self.setup(arm).init_params, jax.random.key(0))
        paths = [self._encoder_path(arm, share, seed) for seed in seeds]
        return [restore_leaves(path, like) for path in paths]
