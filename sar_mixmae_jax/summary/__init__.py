"""One page about a run: `python -m sar_mixmae_jax.summary WORKDIR`."""

from sar_mixmae_jax.summary.page import write

__all__ = ["write"]
