"""Comparison of pretraining methods by downstream results, over seeds and against baselines.

`runner` trains the `trials` that are not finished; `reconstruction_metrics` and
`reconstruction_error` measure the encoders' reconstructions, `baselines` methods without a network;
`event_transfer` leaves out events, with an encoder of `event_encoder` and `event_scores`;
`seed_statistics`, `comparison_tables`, `comparison_figure` and `comparison_report` write the
result. May import everything but `cli` and `torch_interop`.
"""
