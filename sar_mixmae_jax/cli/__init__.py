"""What a run will cost, on paper: `python -m sar_mixmae_jax.cli.estimate --config=…`."""
