"""Integer TFLite of trained Keras classifiers, without any data.

classifier -> teacher + BN statistics -> generator -> synthetic images -> student
-> fine-tune -> .tflite -> verify -> device

    import gdfq_tf

    result = gdfq_tf.quantize(model, bits="w8a8,w4a8", preprocessing="torch")
    result["w4a8"].save("classifier.tflite")
    result.save("runs/classifier")

Names are loaded on first use: importing the package takes no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gdfq_tf.api import quantize, quantize_from_manifest, synthesize
    from gdfq_tf.classifier import Classifier
    from gdfq_tf.config import RECIPES, BitWidths, Recipe, get_recipe
    from gdfq_tf.errors import ExportError, UserError
    from gdfq_tf.frontend.load import load_classifier
    from gdfq_tf.preprocessing import Preprocessing
    from gdfq_tf.result import QuantizedModel, Result
    from gdfq_tf.synthesis.image_pool import ImagePool

_HOMES = {
    "BitWidths": "gdfq_tf.config",
    "Classifier": "gdfq_tf.classifier",
    "ExportError": "gdfq_tf.errors",
    "ImagePool": "gdfq_tf.synthesis.image_pool",
    "Preprocessing": "gdfq_tf.preprocessing",
    "QuantizedModel": "gdfq_tf.result",
    "RECIPES": "gdfq_tf.config",
    "Recipe": "gdfq_tf.config",
    "Result": "gdfq_tf.result",
    "UserError": "gdfq_tf.errors",
    "get_recipe": "gdfq_tf.config",
    "load_classifier": "gdfq_tf.frontend.load",
    "quantize": "gdfq_tf.api",
    "quantize_from_manifest": "gdfq_tf.api",
    "synthesize": "gdfq_tf.api",
}
__all__ = [
    "RECIPES",
    "BitWidths",
    "Classifier",
    "ExportError",
    "ImagePool",
    "Preprocessing",
    "QuantizedModel",
    "Recipe",
    "Result",
    "UserError",
    "get_recipe",
    "load_classifier",
    "quantize",
    "quantize_from_manifest",
    "synthesize",
]


def __getattr__(name: str) -> object:
    """A public name, from its module, which is imported without TensorFlow's notes."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gdfq_tf' has no attribute {name!r}")
    from gdfq_tf.quiet_tensorflow import quiet_start

    with quiet_start():
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
