"""Programs that are compiled side by side before they are called."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

FAST_COMPILATION = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
"""Options of XLA for GPUs. A comparison has dozens of programs, and choosing kernels by trying them
takes longer than the programs run (docs/results.md)."""
TRACING = threading.Lock()
"""Of programs that are compiled ahead; Python traces one at a time in any case."""


class Program:
    """A jitted function that can be compiled ahead of its first call, in another thread."""

    def __init__(self, function: Callable[..., Any], donate: int | None = None) -> None:
        """Wrap a function; `donate` is the number of an argument whose buffers are reused."""
        self._jitted = jax.jit(
            function,
            donate_argnums=() if donate is None else donate,
            compiler_options=FAST_COMPILATION if jax.default_backend() == "gpu" else None,
        )
        self._compiled: dict[Any, Future[Any]] = {}

    def prepare(self, pool: ThreadPoolExecutor, *arguments: Any) -> None:
        """Start compiling for arguments of these shapes."""
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
        if (key := _key(shapes)) not in self._compiled:
            self._compiled[key] = pool.submit(self._compile, shapes)

    def _compile(self, shapes: Any) -> Any:
        with TRACING:  # one after another, so that the first program is ready first
            lowered = self._jitted.lower(*shapes)
        return lowered.compile()

    def __call__(self, *arguments: Any) -> Any:
        """Run the program, compiled ahead or now."""
        if self._compiled and (future := self._compiled.get(_key(arguments))):
            return future.result()(*arguments)
        return self._jitted(*arguments)


def _key(arguments: Any) -> Any:
    leaves, tree = jax.tree.flatten(arguments)
    return tree, tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves)
