"""Tests of the builder of SEN12-FLOOD."""
