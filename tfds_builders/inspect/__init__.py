"""Report on a built dataset: `python -m tfds_builders.inspect NAME`.

`dataset` opens it and rewrites its statistics, `survey` sums over its records and locates them,
`inspection` collects the results and contrasts loss weights; `figures` draws,
`backscatter_sections` and `inspection_report` write Markdown.
Imports `sar_mixmae_jax.utils`, `.data.metadata` and `.objectives` (with JAX), and the shared
builder modules.
"""
