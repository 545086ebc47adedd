"""Tests of the conversion from and to PyTorch."""
