"""The figures of a run on a page, and in files that other programs read."""
