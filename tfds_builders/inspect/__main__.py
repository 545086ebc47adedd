"""`python -m tfds_builders.inspect NAME`; see `command.py`."""

import sys

from tfds_builders.inspect.command import main

if __name__ == "__main__":
    main(sys.argv)
