"""Simulated pairs of two dates, half of them with a flood in between, with water masks.

`cases` draws label, hard case and weather, `terrain` heights and floods, `flood_simulator` the
images, records and pairs of both dates. Scenes are those of `synthetic_s1`.
Imports `synthetic_s1`, `sar_mixmae_jax.utils`, `sar_mixmae_jax.data.metadata` and the shared
builder modules; no JAX, since records are simulated in worker processes.
"""
