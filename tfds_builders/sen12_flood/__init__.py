"""SEN12-FLOOD: sequences of Sentinel-1 images of flooded places, and pairs of their dates.

Reading: `archive` (zip or folder, names of products), `index` (S1list.json), `splits` (official
lists, validation split), `sequences` (files of a sequence), `rasters` (records).
Planning: `pairing` (pairs of dates) and `archive_plan`, which the builder calls. `fake_archive`
writes a small simulated archive for tests and benchmarks.
Imports `sar_mixmae_jax.utils`, `sar_mixmae_jax.data.metadata` and the shared builder modules.
"""
