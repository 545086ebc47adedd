"""BigEarthNet-S1, versions 1 and 2: 120x120 px patches of Sentinel-1 with land-cover labels.

`version1` and `version2` plan and read each version, `patch_files` has what both share, and
`fake_patches` writes small simulated patches for tests and benchmarks. Class names and published
statistics are in `sar_mixmae_jax.data.bigearthnet`.
"""
