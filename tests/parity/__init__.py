"""Tests of parity with the PyTorch reference."""
