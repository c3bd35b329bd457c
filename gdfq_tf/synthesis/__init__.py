"""Classifiers to pools of synthetic images."""
