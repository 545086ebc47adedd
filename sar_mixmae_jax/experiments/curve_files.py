"""Files of learning curves: metrics as JSON, encoders and states as arrays."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sar_mixmae_jax.experiments.reconstruction_metrics import Metrics
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import read_json


def read_metrics(path: Path) -> Metrics:
    """Read the metrics of a result.

    Raises:
      InputError: the file is damaged, or a metric is not finite.
    """
    with _reading(path):
        return _to_metrics(read_json(path))


def read_baselines(path: Path) -> dict[str, Metrics]:
    """Read the metrics of baselines by name; see `read_metrics`."""
    with _reading(path):
        content = read_json(path)
        return {str(name): _to_metrics(metrics) for name, metrics in content.items()}


def _to_metrics(content: Any) -> Metrics:
    values = [value for value in content.values() if value is not None]
    if not content or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise ValueError("no metrics, or one that is no finite number")
    return dict(content)


def leaves_by_number(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a tree under the names that `restore_leaves` reads."""
    return {f"{n:04d}": np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(tree))}


def read_state(path: Path, seeds: Sequence[int], initial: TrainState) -> TrainState:
    """Return the stored state of an unfinished pretraining of these seeds, or the initial one."""
    if not path.exists():
        return initial
    with _reading(path), np.load(path, allow_pickle=False) as stored:
        is_same = stored["seeds"].tolist() == list(seeds)
    return restore_leaves(path, initial) if is_same else initial


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of a damaged file into a message."""
    try:
        yield
    except Exception as error:  # JSON and NPZ raise a dozen types, by what is damaged
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): remove it to compute it again"
        ) from error


def restore_leaves(path: Path, like: Any) -> Any:
    """Return a tree with the leaves of a file, on the host.

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
    return jax.tree.unflatten(tree, arrays)
