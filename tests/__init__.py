"""Tests: test_<module>.py beside each idea."""
