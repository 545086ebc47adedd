"""What builds and training agree on; free of JAX, for builds without it."""

BANDS = ("VH", "VV")
"""The Sentinel-1 IW dual-polarisation bands, in the order of the published checkpoints."""

FLOOR_DB = -35.0
"""Of linear power that is 0 or below after noise subtraction: a dark pixel, and no nodata."""
