"""Build a dataset: `sar-mixmae build` is `python -m tfds_builders.build`."""

import sys

from tfds_builders.build import main

if __name__ == "__main__":
    main(sys.argv)
