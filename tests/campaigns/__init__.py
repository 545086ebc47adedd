"""Campaigns of seeded trials and a measurement of cost; the tests run a few of the trials."""
