"""Tests of evaluation, features and the Python interface."""
