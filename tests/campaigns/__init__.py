"""Many seeded trials of what must never go wrong; a few of each run with the tests."""
