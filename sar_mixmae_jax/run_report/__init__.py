"""One page about a run: `python -m sar_mixmae_jax.cli.report WORKDIR`."""
