"""SAR-W-MixMAE in JAX/Flax: masked autoencoding of Sentinel-1 weighted by backscatter power."""

__version__ = "0.1.0"
