"""The comparison of pretraining methods: what was measured, and what it can and cannot say."""
