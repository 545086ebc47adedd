"""Use of trained models: evaluation of a run, features of a dataset, maps, the Python interface.

`evaluator` predicts a split and writes the report; `encoder` is `sar_mixmae_jax.load_encoder`;
`features` writes the features of a dataset. A map is made by `scene_input` and `scene_grid` (files
to scenes), `map_model` (a checkpoint as a function of windows), `scene_pipeline` and
`window_blending` (rows of windows to rows of a map), and `scene_products` (its files:
`raster_output`, `quicklook`, `geoparquet`). Imports everything up to `training`;
modules of maps the dataset builders too.
"""
