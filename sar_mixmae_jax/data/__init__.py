"""Built datasets: opened, described and read in batches on the host; free of JAX.

`metadata` has the typed content of a dataset's `metadata.json`, `patch_dataset` its records and
their batches, `sampler` the records of every batch, `date_pairs` pairs of two dates, `bigearthnet`
published constants. Imports `utils` only.
"""
