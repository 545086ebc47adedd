"""Comparison of pretraining methods by downstream results, over seeds and against baselines.

`runner` trains the `trials` that are not finished; `learning_curves` computes points with
`curve_pretraining` and `measurement_kinds`, whose steps are those of `seed_training`;
`event_transfer` leaves out events. `reconstruction_metrics` measures reconstructions, `baselines`
methods without a network; `seed_statistics` and the modules named `comparison_` and `curve_` write
the result. May import everything but `cli` and `torch_interop`.
"""
