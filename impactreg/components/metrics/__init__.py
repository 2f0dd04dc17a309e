"""Metrics: what is minimised, and the distances between features."""
