"""Networks in Flax: MixMAE and SimMIM, their encoder and decoder, and heads of downstream tasks.

`architecture` holds sizes, variants and FLOP counts; `swin` the encoder, `mixmae` and `simmim` the
pretraining models, `heads`, `knn` and `segmenter` downstream heads; `layers`, `initialisers`,
`masking` and `resize` their parts; `fused_attention` and `fused_norm` kernels for GPUs. Imports
`utils` only.
"""
