"""Networks in Flax: MixMAE, its encoder and decoder, and the heads of downstream tasks.

`architecture` holds sizes, variants and FLOP counts; `swin` the encoder, `mixmae` the
pretraining model, `heads` and `knn` what is put on the encoder; `layers`, `initialisers`, `masking`
and `resize` their parts. Imports `utils` only.
"""
