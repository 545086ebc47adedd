"""Baselines without a network beside learning curves: measured once for every seed, and stored."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sar_mixmae_jax.evaluation.predictions import load_predictions
from sar_mixmae_jax.experiments.baselines import evaluate_baselines
from sar_mixmae_jax.experiments.curve_files import read_baselines, write_json
from sar_mixmae_jax.experiments.measurements import Measurement
from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics

Baselines = dict[str, dict[str, dict[int | None, Metrics]]]
"""Metrics by measurement, name of the baseline and seed; None: of all seeds."""


def stored_baselines(
    path: Path, measure: Callable[[], dict[str, Metrics]], *, compute: bool
) -> dict[str, Metrics]:
    """Return metrics by the name of the baseline from their file, which is written if missing.

    Args:
      path: of the file.
      measure: computes them.
      compute: False: {} where the file is missing.

    Raises:
      InputError: the file is damaged or cannot be written.
    """
    if path.exists():
        return read_baselines(path)
    if not compute:
        return {}
    print(f"baselines without a network: {path.stem}")
    metrics = measure()
    write_json(path, metrics)
    return metrics


def measure_baselines(measurement: Measurement, predictions: Path, seed: int) -> dict[str, Metrics]:
    """Return the metrics of all baselines of a measurement.

    Args:
      measurement: with a task and a test split.
      predictions: of any encoder, for the pixels without a measurement.
      seed: of the labels that they are fitted to.
    """
    if measurement.task.labels_per_pixel:
        return measurement.pixel_baselines(load_predictions(predictions), seed)
    return evaluate_baselines(measurement.splits(seed))


def by_name(of_seeds: Mapping[int, Mapping[str, Metrics]]) -> dict[str, dict[int | None, Metrics]]:
    """Return metrics by seed and name by name and seed."""
    names = dict.fromkeys(name for metrics in of_seeds.values() for name in metrics)
    return {
        name: {seed: metrics[name] for seed, metrics in of_seeds.items() if name in metrics}
        for name in names
    }
