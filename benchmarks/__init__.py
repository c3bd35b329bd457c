"""Measurements and long checks, run from a checkout; not installed."""
