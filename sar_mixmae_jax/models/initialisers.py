"""Initialisers of parameters, and initial parameters of a model with few compiled programs.

XLA compiles a random draw for every shape, in about half a second each. Draws here have few sizes,
powers of four, and are cut to shape: the random numbers of JAX depend on their flat index alone, so
the first ones of a longer draw are those of a shorter one. Parameters are computed one operation at
a time, so that arrays of equal size share a program; what follows a draw is computed in NumPy.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from jax.nn.initializers import Initializer

SMALLEST_DRAW = 4**6
CACHED_MODELS = 16
"""Models whose initialisation is not traced again in the same process."""


def torch_conv_init(fan_in: int) -> Initializer:
    """Return PyTorch's default for convolutions, weight and bias: uniform in ±1/sqrt(fan_in)."""
    return uniform(fan_in**-0.5)


def normal(std: float) -> Initializer:
    """Return an initialiser: normal with zero mean."""
    return _initializer(lambda key, size: _normal(key, size, std))


def uniform(bound: float) -> Initializer:
    """Return an initialiser: uniform in ± `bound`."""
    return _initializer(
        lambda key, size: jax.random.uniform(key, (size,), jnp.float32, -bound, bound)
    )


def xavier_uniform() -> Initializer:
    """Return the initialiser of Xavier-uniform matrices, with the digits of JAX's own."""
    draw = _initializer(lambda key, size: jax.random.uniform(key, (size,), jnp.float32, -1.0))

    def init(
        key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None
    ) -> jax.Array:
        del out_sharding
        variance = np.float32(1 / (sum(shape) / 2))
        return (draw(key, shape) * np.sqrt(np.float32(3) * variance)).astype(dtype)

    return init


def _initializer(draw: Callable[[jax.Array, int], jax.Array]) -> Initializer:
    """Return the initialiser that cuts `draw(key, size)`, of `size` numbers, to a shape."""

    def init(
        key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None
    ) -> jax.Array:
        del out_sharding
        count, size = math.prod(shape), SMALLEST_DRAW
        while size < count:
            size *= 4
        return draw(key, size)[:count].reshape(shape).astype(dtype)

    return init


@partial(jax.jit, static_argnums=(1, 2))
def _normal(key: jax.Array, size: int, std: float) -> jax.Array:
    """Draw normal numbers; in one program, whose constants XLA joins."""
    return jax.random.normal(key, (size,)) * std


def _slice(values: Any, start_indices: Any, limit_indices: Any, strides: Any, **_: Any) -> Any:
    """Compute `jax.lax.slice` in NumPy."""
    strides = strides or [None] * len(start_indices)
    return np.asarray(values)[tuple(map(slice, start_indices, limit_indices, strides))]


def _broadcast(values: Any, shape: Any, broadcast_dimensions: Any, **_: Any) -> Any:
    """Compute `jax.lax.broadcast_in_dim` in NumPy."""
    sides = dict(zip(broadcast_dimensions, np.shape(values), strict=True))
    expanded = [sides.get(axis, 1) for axis in range(len(shape))]
    return np.broadcast_to(np.reshape(values, expanded), shape)


HOST_OPERATIONS: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "mul": lambda left, right, **_: np.multiply(left, right),
    "reshape": lambda values, new_sizes, **_: np.asarray(values).reshape(new_sizes),
    "slice": _slice,
}
"""Operations of initialisers on the numbers drawn, in NumPy: the digits of XLA, no compilation."""


def initial_params(model: nn.Module, key: jax.Array, *shapes: tuple[int, ...]) -> Any:
    """Return the initial parameters of a model without computing its output.

    Args:
      model: hashable.
      key: random key.
      shapes: shapes of the float32 arrays that the model takes.
    """
    if hasattr(model, "remat"):  # what is recomputed is one operation, which computes the output
        model = model.clone(remat="none")
    program, tree = _trace(model, jax.ShapeDtypeStruct(key.shape, key.dtype), shapes)
    jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True)) | {jaxpr.invars[0]: key}
    origin = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}

    def evaluate(variable: Any) -> Any:
        if isinstance(variable, Literal):
            return variable.val
        if variable not in values:
            equation = origin[variable]
            arguments = [evaluate(argument) for argument in equation.invars]
            on_host = HOST_OPERATIONS.get(equation.primitive.name)
            dtype = variable.aval.dtype  # of keys, it is none of NumPy's
            traced = any(isinstance(argument, jax.core.Tracer) for argument in arguments)
            if on_host and isinstance(dtype, np.dtype) and not traced:
                values[variable] = np.asarray(on_host(*arguments, **equation.params), dtype)
                return values[variable]
            results = equation.primitive.bind(*arguments, **equation.params)
            results = results if equation.primitive.multiple_results else [results]
            values.update(zip(equation.outvars, results, strict=True))
        return values[variable]

    return jax.tree.unflatten(tree, jax.device_put([evaluate(result) for result in jaxpr.outvars]))


@lru_cache(maxsize=CACHED_MODELS)
def _trace(
    model: nn.Module, key: jax.ShapeDtypeStruct, shapes: tuple[tuple[int, ...], ...]
) -> tuple[ClosedJaxpr, Any]:
    """Return the initialisation of a model as operations, and the structure of its parameters."""

    def init(key: jax.Array) -> Any:
        return model.init(key, *map(jnp.zeros, shapes))["params"]

    program, params = jax.make_jaxpr(init, return_shape=True)(key)
    return program, jax.tree.structure(params)
