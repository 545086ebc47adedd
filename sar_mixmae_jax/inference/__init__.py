"""Use of trained models: evaluation of a run, features of a dataset, and the Python interface.

`evaluator` predicts a split and writes the report; `encoder` is `sar_mixmae_jax.load_encoder`;
`features` writes the features of a dataset. Imports everything up to `training`.
"""
