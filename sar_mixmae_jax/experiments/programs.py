"""Programs that are compiled side by side before they are called."""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from sar_mixmae_jax.utils.processes import available_cores

FAST_COMPILATION = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
"""Options of XLA for GPUs. A comparison has dozens of programs, and choosing kernels by trying them
takes longer than the programs run (docs/results.md)."""
TRACING = threading.Lock()
"""Held while a program is traced: traces compete for the interpreter lock."""


class Compilers(AbstractContextManager["Compilers"]):
    """Threads that compile; leaving the context gives up what has not been traced."""

    def __init__(self) -> None:
        """Start as many threads as there are cores."""
        self._pool = ThreadPoolExecutor(available_cores())
        self._ended = threading.Event()

    def compile(self, jitted: Any, shapes: Any) -> Future[Any]:
        """Return the compiled function of arguments of these shapes, later."""
        return self._pool.submit(self._compile, jitted, shapes)

    def _compile(self, jitted: Any, shapes: Any) -> Any:
        with TRACING:
            if self._ended.is_set():
                raise CancelledError
            lowered = jitted.lower(*shapes)
        return lowered.compile()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


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

    def prepare(self, compilers: Compilers, *arguments: Any) -> None:
        """Start compiling for arguments of these shapes, unless that was done."""
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
        if (key := _key(shapes)) not in self._compiled:
            self._compiled[key] = compilers.compile(self._jitted, shapes)

    def __call__(self, *arguments: Any) -> Any:
        """Run the program, compiled ahead or now."""
        if self._compiled and (future := self._compiled.get(key := _key(arguments))):
            try:
                compiled = future.result()
            except CancelledError:
                del self._compiled[key]
            else:
                return compiled(*arguments)
        return self._jitted(*arguments)


def _key(arguments: Any) -> Any:
    leaves, tree = jax.tree.flatten(arguments)
    return tree, tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves)
