"""Scores of predictions, each equal to the `evaluate` metric that it is named after.

Labels and predictions come in; one number goes out. No torch here, unless `evaluate` itself computes a
metric.
"""
