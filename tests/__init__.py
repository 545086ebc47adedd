"""Tests, and the environment that they need before JAX is imported.

Two CPU devices, so that collectives are real. Most of the time goes into compilation: all processes
of a run share one cache of compiled programs, and programs are compiled with few optimisations,
except in `tests/parity`.
"""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads wait for each other where cores are shared
OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax-cache-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
