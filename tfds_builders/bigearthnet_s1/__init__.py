"""BigEarthNet-S1, versions 1 and 2: 120x120 px patches of Sentinel-1 with land-cover labels.

`version1` and `version2` plan and read each version, `patch_files` has what both share,
`corine_classes` the class names, `fake_patches` writes small imitations for tests and benchmarks.
"""
