"""BigEarthNet-S1: 120x120 px patches of Sentinel-1 with land-cover labels."""
