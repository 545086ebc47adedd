"""Simulated scenes on two dates, half of them flooded in between, with the truth."""
