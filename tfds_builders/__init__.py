"""TFDS builders of Sentinel-1 datasets: one folder per dataset, named after it.

`build` is the command, `patch_builder` the base class of all builders; `plan`, `shards`,
`staging`, `finalize` and `process_pool` are the steps of a build. `records` is the record format,
`geotiff`, `zero_regions`, `units`, `band_statistics` and `bad_files` are helpers. `inspect` reports
on a built dataset. Imports only `sar_mixmae_jax.utils` and `sar_mixmae_jax.data`, and no JAX
except in `inspect`.
"""
