"""Train a model: `python -m sar_mixmae_jax.main --config=… --workdir=…` is `sar-mixmae train`."""

import sys

from sar_mixmae_jax.cli.train import main

if __name__ == "__main__":
    main(sys.argv)
