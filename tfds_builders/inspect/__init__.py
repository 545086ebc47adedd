"""What is in a built dataset: `python -m tfds_builders.inspect NAME`."""
