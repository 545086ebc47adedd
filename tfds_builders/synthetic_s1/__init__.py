"""Simulated Sentinel-1 patches, the embedded default: no download, noise-free truth included."""
