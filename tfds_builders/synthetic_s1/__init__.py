"""Simulated Sentinel-1 patches with their noise-free truth: the default dataset, no download.

`land_cover` has the tables of classes and landscapes and draws the map of classes, `fields` random
fields, `backscatter` the power of a scene, `speckle` the instrument, `simulator` a whole patch.
Imports `sar_mixmae_jax.utils`, `sar_mixmae_jax.data.metadata` and the shared builder modules; no
JAX, since records are simulated in worker processes.
"""
