"""Models in memory that compute in another precision -> copies that do in float32.

Weights are real numbers under every policy, and what the copy is proven equal to is the
network, not the rounding of half precision.
"""

from __future__ import annotations

import json
from typing import NoReturn

import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import KerasModel, Layer, library_of_model
from gdfq_tf.model_files.argument_values import FLOAT_POLICIES, Argument
from gdfq_tf.model_files.failures import in_one_line
from gdfq_tf.model_files.model_builder import ParameterBudget, build_model
from gdfq_tf.model_files.spec_reader import CheckLayer, read_model_spec
from tflite_export.names import shown


def in_float32(model: KerasModel, check_layer: CheckLayer) -> KerasModel:
    """The model itself, or a copy if any of its layers computes in another precision.

    Args:
      model: of either Keras; stays as it is.
      check_layer: see `read_model_spec`.

    Raises:
      UserError: it has to be copied, and holds what could not be read from a file.
    """
    policy = _other_policy(model)
    if policy is None or not getattr(model, "inputs", None):
        return model
    name = f"model {shown(model.name)}"

    def refuse_lambda(arguments: Argument) -> NoReturn:
        raise UserError(
            f"{name} computes in {policy} and has Lambda layers; expected float32 "
            "beside Python code: build it under the float32 policy and give it the "
            "weights with set_weights"
        )

    message = f"{name} computes in {policy} and cannot be copied into float32"
    with in_one_line(message):
        spec = read_model_spec(
            json.loads(model.to_json()), name, check_layer, allow_unsafe=True
        )
        budget = ParameterBudget(sum(np.size(w) for w in model.get_weights()))
        copy = build_model(spec, library_of_model(model), budget, refuse_lambda)
        _copy_weights(model, copy)
    return copy


def _other_policy(model: KerasModel) -> str | None:
    """Name of the first policy of real numbers that is not float32."""
    policies = (layer.dtype_policy.name for layer in model._flatten_layers())
    return next((x for x in policies if x in FLOAT_POLICIES and x != "float32"), None)


def _copy_weights(source: Layer, copy: Layer) -> None:
    for layer in source.layers:
        twin = copy.get_layer(layer.name)
        if hasattr(layer, "layers"):
            _copy_weights(layer, twin)
        elif layer.weights:
            twin.set_weights([np.asarray(w, np.float32) for w in layer.get_weights()])
