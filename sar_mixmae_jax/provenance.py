"""Where results come from: versions, revision and devices of a start of the program."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.extend

PACKAGES = (
    "array_record",
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "libtpu",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "sar-mixmae-jax",
    "tensorflow-datasets",
)


def describe_start(step: int) -> dict[str, Any]:
    """What a start of the program had: to repeat it, or to explain why it differed.

    Args:
      step: it went on after this step; 0 from scratch.
    """
    return {
        "step": step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "python": platform.python_version(),
        "git": git_revision(Path(__file__).parents[1]),
        "platform": jax.extend.backend.get_backend().platform_version,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "host": platform.node(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("JAX_", "XLA_", "LIBTPU_INIT_ARGS"))
        },
        "command": sys.orig_argv,
    }


def versions() -> dict[str, str]:
    """The versions of the installed packages that decide what is computed."""
    found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


def git_revision(folder: Path) -> str | None:
    """The commit of a checkout, with a note if files differ from it; None if there is none."""
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
        done.check_returncode()
        return done.stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{revision} with changes" if changed else revision
