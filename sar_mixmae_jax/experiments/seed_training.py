"""Training and prediction of several seeds in one program, with records on the device.

Seeds share program and records; each has parameters, order of records and random key of its own. On
accelerators all seeds are one batched computation and many steps one call, since small models leave
most of the device idle. On CPU, where batching gains nothing, `seed_groups` are single seeds.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sar_mixmae_jax.data.record_source import Source, read_rows
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.experiments.programs import Compilers, Program
from sar_mixmae_jax.training.batch_predictor import RecordFunction
from sar_mixmae_jax.training.sharding import AXIS
from sar_mixmae_jax.training.train_step import (
    LossFn,
    RecordShapes,
    TrainState,
    gather_records,
    init_state,
    train_step,
)
from sar_mixmae_jax.utils.errors import DivergedError

InitFn = Callable[[jax.Array], Any]
"""Initial parameters from a random key."""
STEPS_TOGETHER = 16
"""Steps of one call on an accelerator, at most."""
READ_TOGETHER = 256
"""Records that are read at a time."""


class Records(NamedTuple):
    """Records on the device.

    Attributes:
      columns: (records, values) fields by name.
      shapes: shapes of a record.
    """

    columns: dict[str, jax.Array]
    shapes: RecordShapes

    @property
    def number(self) -> int:
        """Number of records."""
        return len(next(iter(self.columns.values())))


def load_records(source: Source, rows: np.ndarray) -> Records:
    """Copy records to the device, without their ids.

    Args:
      source: the records.
      rows: (n,) their numbers.
    """
    columns: dict[str, np.ndarray] = {}
    for first in range(0, len(rows), READ_TOGETHER):
        part = read_rows(source, rows[first : first + READ_TOGETHER])
        for name, values in part.items():
            if name == "id":
                continue
            if name not in columns:
                columns[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
            columns[name][first : first + len(values)] = values
    shapes = tuple((name, column.shape[1:]) for name, column in columns.items())
    flat = {name: jnp.asarray(column.reshape(len(rows), -1)) for name, column in columns.items()}
    return Records(flat, shapes)


def stack(trees: Sequence[Any]) -> Any:
    """Return trees of equal structure, on the host, as one with a leading axis of seeds."""
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))


def stacked_shapes(tree: Any, seeds: int) -> Any:
    """Return the shapes of a stack of trees like this one."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((seeds, *leaf.shape), leaf.dtype), tree)


def select_seed(tree: Any, number: int) -> Any:
    """Return one of the trees that `stack` put together."""
    return jax.tree.map(lambda leaf: leaf[number], tree)


def initial_states(
    init: InitFn, optimizer: optax.GradientTransformation, seeds: Sequence[int]
) -> TrainState:
    """Return the states of all seeds before the first step, (seed, …), drawn on the host."""
    with jax.default_device(host_device()):
        states = [init_state(init, optimizer, jax.random.key(seed)) for seed in seeds]
        states = jax.device_get(states)
    return stack(states)


def seed_batches(
    rows: Sequence[np.ndarray], seeds: Sequence[int], batch_size: int, steps: range
) -> np.ndarray:
    """Return the (step, seed, batch) numbers of the records.

    Args:
      rows: (n,) numbers of the records of each seed.
      seeds: random seeds of the order.
      batch_size: records of a seed in a step.
      steps: numbers of the steps.

    Raises:
      InputError: a seed has fewer records than a batch.
    """
    batches = []
    for of_seed, seed in zip(rows, seeds, strict=True):
        sampler = ShuffleSampler(len(of_seed), batch_size, seed)
        batches.append([of_seed[sampler.batch(step)] for step in steps])
    return np.array(batches).swapaxes(0, 1)


def train_seeds(
    states: TrainState,
    rows: np.ndarray,
    records: Records,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    title: str = "training",
    *,
    in_turn: bool = False,
) -> tuple[TrainState, np.ndarray]:
    """Take steps with every seed.

    Args:
      states: states of all seeds, (seed, …).
      rows: (step, seed, batch) numbers of the records.
      records: on the device.
      loss_fn: what is minimised.
      optimizer: optimizer of the parameters.
      title: title of the training, for a message.
      in_turn: see `seed_step_program`.

    Returns:
      The states after these steps, and the (step, seed) losses.

    Raises:
      DivergedError: a loss is not finite.
    """
    program = seed_step_program(loss_fn, optimizer, records.shapes, in_turn)
    states = _copy(states)  # the buffers of the program's argument are reused
    chunk, losses = steps_together(), []
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk].astype(np.int32)
        filled = np.pad(part, ((0, chunk - len(part)), (0, 0), (0, 0)))
        states, loss = program(states, filled, np.int32(len(part)), records.columns)
        losses.append(loss[: len(part)])
    values = np.concatenate(jax.device_get(losses))
    if not np.isfinite(values).all():
        step = int(np.argmax(~np.isfinite(values).all(1)))
        raise DivergedError(
            f"{title}: the loss is not finite after {step} of {len(rows)} steps: lower "
            "optimizer.base_learning_rate of the configuration, in another --workdir"
        )
    return states, values


@jax.jit
def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def predict_seeds(
    params: Any,
    records: Records,
    function: RecordFunction,
    batch_size: int,
    leave_out: Collection[str] = (),
    rows: np.ndarray | None = None,
    *,
    in_turn: bool = False,
) -> dict[str, np.ndarray]:
    """Return the results of a function for records and seeds.

    Args:
      params: parameters of all seeds, (seed, …).
      records: on the device.
      function: function of the parameters of a seed and the fields of a batch.
      batch_size: records at a time; the last batch is filled with the last record.
      leave_out: names of results that are not computed.
      rows: (n,) numbers of the records; None: all.
      in_turn: see `seed_step_program`.

    Returns:
      (seed, record, …) arrays by name.
    """
    program = record_program(function, records.shapes, tuple(leave_out), in_turn)
    if rows is None:
        rows = np.arange(records.number)
    size = min(batch_size, len(rows))
    filled = np.pad(rows.astype(np.int32), (0, -len(rows) % size), mode="edge").reshape(-1, size)
    parts = jax.device_get([program(params, batch, records.columns) for batch in filled])
    return {
        name: np.concatenate([part[name] for part in parts], axis=1)[:, : len(rows)]
        for name in parts[0]
    }


def prepare_training(
    compilers: Compilers,
    init: InitFn,
    seeds: int,
    batch_size: int,
    records: Records,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    in_turn: bool = False,
) -> None:
    """Start compiling what `train_seeds` calls.

    Args:
      compilers: threads.
      init: parameters from a random key.
      seeds: their number.
      batch_size: records of a seed in a step.
      records: on the device.
      loss_fn: what is minimised.
      optimizer: optimizer of the parameters.
      in_turn: see `seed_step_program`.
    """
    state = jax.eval_shape(partial(init_state, init, optimizer), jax.random.key(0))
    rows = jax.ShapeDtypeStruct((steps_together(), seeds, batch_size), jnp.int32)
    program = seed_step_program(loss_fn, optimizer, records.shapes, in_turn)
    program.prepare(compilers, stacked_shapes(state, seeds), rows, np.int32(0), records.columns)


def prepare_prediction(
    compilers: Compilers,
    params: Any,
    records: Records,
    function: RecordFunction,
    batch_size: int,
    leave_out: Collection[str] = (),
    *,
    in_turn: bool = False,
) -> None:
    """Start compiling what `predict_seeds` calls for all records.

    Args:
      compilers: threads.
      params: parameters of all seeds, (seed, …), or their shapes.
      records: on the device.
      function: see `predict_seeds`.
      batch_size: see `predict_seeds`.
      leave_out: see `predict_seeds`.
      in_turn: see `seed_step_program`.
    """
    numbers = jax.ShapeDtypeStruct((min(batch_size, records.number),), jnp.int32)
    program = record_program(function, records.shapes, tuple(leave_out), in_turn)
    program.prepare(compilers, params, numbers, records.columns)


@lru_cache(maxsize=64)
def seed_step_program(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    shapes: RecordShapes,
    in_turn: bool,
) -> Program:
    """Return the program (states, (step, seed, batch) rows, count, columns) -> (states, losses).

    Only the first `count` steps are taken, so that any number of them is one program.

    Args:
      loss_fn: what is minimised.
      optimizer: optimizer of the parameters.
      shapes: shapes of a record.
      in_turn: compute the seeds one after another instead of in a batch, for models with
        convolutions: those of several seeds are grouped convolutions, which are slow on GPUs.
    """

    def one_step(state: TrainState, rows: jax.Array, columns: dict[str, jax.Array]) -> Any:
        step = partial(
            train_step,
            state,
            loss_fn=loss_fn,
            optimizer=optimizer,
            gather=partial(gather_records, records=columns, shapes=shapes),
        )
        on_device = jax.vmap(step, axis_name=AXIS)(rows[None])  # an axis of one device
        state, metrics, _ = jax.tree.map(lambda leaf: leaf[0], on_device)
        return state, metrics["loss"]

    def steps(
        states: TrainState, rows: jax.Array, count: jax.Array, columns: dict[str, jax.Array]
    ) -> Any:
        def of_seed(given: tuple[TrainState, jax.Array]) -> Any:
            return one_step(*given, columns)

        if len(rows) == 1:  # XLA computes a loop on CPU more slowly
            states, loss = _over_seeds(of_seed, (states, rows[0]), in_turn)
            return states, loss[None]

        def step(number: jax.Array, carry: Any) -> Any:
            states, losses = carry
            states, loss = _over_seeds(of_seed, (states, rows[number]), in_turn)
            return states, losses.at[number].set(loss)

        losses = jnp.zeros(rows.shape[:2], jnp.float32)
        return jax.lax.fori_loop(0, count, step, (states, losses))

    return Program(steps, donate=0)


@lru_cache(maxsize=64)
def record_program(
    function: RecordFunction, shapes: RecordShapes, leave_out: tuple[str, ...], in_turn: bool
) -> Program:
    """Return the program (params, (batch,) rows, columns) -> (seed, batch, …) results by name."""

    def predict(params: Any, rows: jax.Array, columns: dict[str, jax.Array]) -> Any:
        batch = gather_records(rows, columns, shapes)
        results = _over_seeds(lambda of_seed: function(of_seed, batch), params, in_turn)
        return {name: results[name] for name in results if name not in leave_out}

    return Program(predict)


def _over_seeds(function: Callable[[Any], Any], values: Any, in_turn: bool) -> Any:
    """Return the results of a function for all seeds, (seed, …)."""
    seeds = len(jax.tree.leaves(values)[0])
    mapped = partial(jax.lax.map, function) if in_turn and seeds > 1 else jax.vmap(function)
    return mapped(values)


def seed_groups(seeds: int) -> list[tuple[int, ...]]:
    """Return the seeds that are trained together: all on accelerators, one by one on CPU."""
    if is_accelerator():
        return [tuple(range(seeds))]
    return [(seed,) for seed in range(seeds)]


def steps_together() -> int:
    """Return the number of steps of one call."""
    return STEPS_TOGETHER if is_accelerator() else 1


def host_device() -> jax.Device | None:
    """Return a CPU device, for work beside an accelerator; None if JAX_PLATFORMS excludes it."""
    with contextlib.suppress(RuntimeError):
        return jax.local_devices(backend="cpu")[0]
    return None


def is_accelerator() -> bool:
    """Return whether JAX computes on another device than the CPU."""
    return jax.default_backend() != "cpu"
