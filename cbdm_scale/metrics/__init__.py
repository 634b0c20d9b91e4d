"""Metrics: pure functions of features, and the networks that make features."""
