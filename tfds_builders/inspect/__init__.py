"""Report on a built dataset: `python -m tfds_builders.inspect NAME`.

`dataset` opens it and rewrites its statistics, `survey` sums over its records, `geolocation` and
`loss_weights` measure, `inspection` collects the results; `figures` draws, `backscatter_sections`
and `inspection_report` write Markdown.
Imports `sar_mixmae_jax.utils`, `.data.metadata` and `.objectives`, and the shared builder modules.
"""
