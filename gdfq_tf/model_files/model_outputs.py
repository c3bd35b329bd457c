"""The outputs of a model by the names that its author knows."""

from __future__ import annotations

from gdfq_tf.errors import UserError, option
from gdfq_tf.keras_compat import KerasModel, SymbolicTensor, library_of_model
from tflite_export.names import listed


def named_outputs(model: KerasModel) -> dict[str, SymbolicTensor]:
    """Outputs by the keys of the dict that they stand in, or as Keras calls them."""
    tensors = list(getattr(model, "outputs", None) or [])
    given = getattr(model, "output", None) if tensors else None
    if isinstance(given, dict) and len(given) == len(tensors):
        return dict(given)
    # A Sequential model of Keras 3 has no names for its one output.
    names = getattr(model, "output_names", None) or map(_layer_name, tensors)
    return dict(zip(names, tensors, strict=True))


def with_one_output(model: KerasModel, output_name: str) -> KerasModel:
    """The model that gives one of a model's outputs.

    Args:
      model: of either Keras; stays as it is.
      output_name: one of `named_outputs`, or of the layer that it comes from.

    Raises:
      UserError: there is none, or more than one, of this name.
    """
    outputs = named_outputs(model)
    found = [
        tensor
        for name, tensor in outputs.items()
        if output_name in (name, _layer_name(tensor))
    ]
    if output_name in outputs:
        found = [outputs[output_name]]
    if len(found) != 1:
        raise UserError(
            f"{option('output_name', output_name)} names {len(found)} outputs of the "
            f"model; expected one of {listed(outputs)}"
        )
    if len(outputs) == 1:
        return model
    inputs = model.input if len(model.inputs) > 1 else model.inputs[0]
    return library_of_model(model).Model(inputs, found[0])


def _layer_name(tensor: SymbolicTensor) -> str:
    return tensor._keras_history[0].name
