"""Measurements that developers run from a source tree; not installed.

`speed` measures reading, training and evaluation (with `reading`, `training` and `measure`),
`building` the dataset builders, `sen12_storage` two layouts of flood records; `accelerator.sh` runs
the parts of `accelerator` on a GPU; `profile_step` traces a step; `simulator_check` and
`flood_pairs_sheet` draw simulated images beside real ones. Each runs as
`python -m benchmarks.NAME --help` and may import every package and `configs`.
"""
