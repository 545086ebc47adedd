"""What a run will cost, on paper: `python -m sar_mixmae_jax.estimate --config=…`."""

from sar_mixmae_jax.estimate.cost import estimate

__all__ = ["estimate"]
