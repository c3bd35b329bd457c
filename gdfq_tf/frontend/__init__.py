"""Keras models to classifiers; `load.py` is the way in."""
