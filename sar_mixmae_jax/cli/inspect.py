"""Report on a built dataset: `sar-mixmae inspect` is `python -m tfds_builders.inspect`."""

import sys

from tfds_builders.inspect.__main__ import main

if __name__ == "__main__":
    main(sys.argv)
