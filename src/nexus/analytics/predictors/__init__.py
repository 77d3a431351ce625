"""Learners for tables: one file each, see `nexus.analytics.predictor`."""
