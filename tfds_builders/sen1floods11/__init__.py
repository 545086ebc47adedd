"""Sen1Floods11 v1.1: chips of 512x512 px of eleven flood events with masks of water.

`chips` finds and reads the files in the official layout, `fake_chips` writes small imitations for
tests. Imports `sar_mixmae_jax.utils`, `sar_mixmae_jax.data.metadata` and the shared builder
modules; no JAX.
"""
