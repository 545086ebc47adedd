"""Tests, and the environment that they need before JAX is imported.

Two CPU devices, so that collectives are real. Most of the time goes into compilation: all processes
of a run share one cache of compiled programs, and programs are compiled with few optimisations,
except in `tests/parity`.
"""

import gc
import os
import tempfile
from importlib.metadata import version

GIVEN_FLAGS = os.environ.get("XLA_FLAGS", "")
FAST_COMPILATION = "--xla_cpu_parallel_codegen_split_count=1"
"""Half the time of compilation for slower programs."""
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones end at an unknown flag
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"


def xla_flags(devices: int) -> str:
    """Return the flags of XLA for this number of CPU devices.

    A golden folder that is named is compared with programs as users have them.
    """
    fast = "" if "GOLDEN" in os.environ else FAST_COMPILATION
    return f"{GIVEN_FLAGS} --xla_force_host_platform_device_count={devices} {fast}"


gc.set_threshold(50_000, 10, 20)  # tracing makes many objects that live on

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = xla_flags(devices=2)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads wait for each other where cores are shared
OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax-cache-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
