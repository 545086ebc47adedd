"""Baselines without a network beside learning curves: measured once for every seed, and stored."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.experiments.baselines import evaluate_baselines
from sar_mixmae_jax.experiments.curve_files import read_baselines
from sar_mixmae_jax.experiments.measurement import Measurement
from sar_mixmae_jax.experiments.measurement_kinds import open_measurement
from sar_mixmae_jax.experiments.reconstruction_metrics import PRETRAINING, Metrics
from sar_mixmae_jax.experiments.trials import reconstruction_references
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import write_json
from sar_mixmae_jax.utils.processes import available_cores, end_with_parent

Baselines = dict[str, dict[str, dict[int | None, Metrics]]]
"""Metrics by measurement, name of the baseline and seed; None: of all seeds."""

CORES_PER_PROCESS = 4
"""Cores of the machine for every process that measures baselines."""


class BaselineProcesses(AbstractContextManager["BaselineProcesses"]):
    """Processes on the CPU that measure baselines beside the training.

    Not threads, since reading and statistics are Python, which runs one thread at a time.
    """

    def __init__(self, config: ConfigDict) -> None:
        """Start no process yet; `config` is that of the comparison."""
        count = max(1, available_cores() // CORES_PER_PROCESS)
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _initialise, (config,))
        self._started: set[Path] = set()
        self._lock = threading.Lock()

    def store(self, path: Path, name: str, seed: int, predictions: Path) -> None:
        """Write the metrics of all baselines by name, unless their file exists or is computed.

        Args:
          path: path of the file.
          name: name of the measurement, or `PRETRAINING`.
          seed: random seed of the labels that they are fitted to.
          predictions: predictions of any encoder for the test split, for the pixels without a
            measurement.

        Raises:
          InputError: the file cannot be written, or a process was killed.
        """
        with self._lock:
            if path in self._started or path.exists():
                return
            self._started.add(path)
        try:
            metrics = self._pool.submit(_measure, name, seed, predictions).result()
        except BrokenProcessPool as error:
            raise InputError(
                "a process that measures baselines was killed, perhaps for lack of memory; the "
                "same command continues the comparison"
            ) from error
        write_json(path, metrics)

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_config: ConfigDict
_measurements: dict[str, Measurement] = {}


def _initialise(config: ConfigDict) -> None:
    """Keep the configuration, and leave devices, output and signals to the parent."""
    global _config
    _config = config
    os.setpgrp()  # signals of a terminal or a scheduler go to the group of the parent
    end_with_parent()
    jax.config.update("jax_platforms", "cpu")
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, until the process ends


def _measure(name: str, seed: int, predictions: Path) -> Any:
    if name == PRETRAINING:
        return reconstruction_references(_config)
    if name not in _measurements:
        _measurements[name] = open_measurement(_config, name, {})
    measurement = _measurements[name]
    if measurement.task.labels_per_pixel:
        return measurement.pixel_baselines(load_predictions(predictions), seed)
    return evaluate_baselines(measurement.splits(seed))


def read_stored(path: Path) -> dict[str, Metrics]:
    """Return the metrics of baselines by name, {} where their file is missing.

    Raises:
      InputError: the file is damaged.
    """
    return read_baselines(path) if path.exists() else {}


def by_name(of_seeds: Mapping[int, Mapping[str, Metrics]]) -> dict[str, dict[int | None, Metrics]]:
    """Return metrics by seed and name by name and seed."""
    names = dict.fromkeys(name for metrics in of_seeds.values() for name in metrics)
    return {
        name: {seed: metrics[name] for seed, metrics in of_seeds.items() if name in metrics}
        for name in names
    }
