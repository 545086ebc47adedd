"""SAR-W-MixMAE in JAX/Flax: masked autoencoding of Sentinel-1 weighted by backscatter power.

`load_encoder` is the Python interface; the other functions are in the packages. The package
itself imports nothing, so that processes without JAX stay light.
"""

from typing import Any

__version__ = "0.2.0.dev0"
__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """Import the Python interface on first use (PEP 562)."""
    if name == "load_encoder":
        from sar_mixmae_jax.inference.encoder import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
