"""TFDS builders of Sentinel-1 datasets: one folder a dataset, named after it."""
