"""Tests of the pretraining objective."""
