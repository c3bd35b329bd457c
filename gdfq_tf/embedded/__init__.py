"""Paths of the default classifier and its labelled test images.

Only `tools/` opens the images; the library quantizes without them.
`benchmarks/train_classifier.py` wrote all files; the .json holds its command line.
"""

from __future__ import annotations

import pathlib

_FOLDER = pathlib.Path(__file__).parent

# What stands for it where a model is asked for.
NAME = "embedded"
MODEL_PATH = _FOLDER / "fashion_mnist_mobilenet_v2.keras"
FACTS_PATH = _FOLDER / "fashion_mnist_mobilenet_v2.json"
TEST_IMAGES_PATH = _FOLDER / "fashion_mnist_test.npz"
PREPROCESSING = "tf"
