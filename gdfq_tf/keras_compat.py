"""The only import of Keras 2 in the project: everything after loading is tf_keras.

tensorflow-model-optimization works on tf_keras alone and sets
TF_USE_LEGACY_KERAS when imported; setting it here, first, makes the choice
independent of import order. Keras 3 (`import keras`) is imported in
`keras_files.py` only, to read files.
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tf_keras as keras
from tf_keras.protobuf import saved_metadata_pb2

__all__ = ["keras", "saved_metadata_pb2"]
