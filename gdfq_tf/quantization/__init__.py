"""Classifiers and images to students, and these to integers."""
