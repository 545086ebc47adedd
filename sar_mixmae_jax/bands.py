"""The bands of the records and of the published checkpoints; free of JAX, for builds without it."""

BANDS = ("VH", "VV")
"""The Sentinel-1 IW dual-polarisation bands, in the order of the published checkpoints."""
