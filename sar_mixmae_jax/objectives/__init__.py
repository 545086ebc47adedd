"""The pretraining objective: raw backscatter to inputs, loss weights and losses, on the device.

`radiometry`, `speckle_filter` and `preprocess` turn records into standardised inputs; `weighting`
computes the loss weights from backscatter power; `reconstruction` the pretraining loss;
`diagnostics` measures what the weights do. Imports `utils`, constants of `data.metadata`, and
`models`.
"""
