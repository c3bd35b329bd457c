"""Keras models to TFLite bytes: the only converter calls of the project."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tflite_export.errors import ExportError
from tflite_export.exponential_linear import exponentials_as_elu
from tflite_export.export_graph import export_graph, names_of_kind
from tflite_export.flatbuffer import pack_model, read_model, unpack_model
from tflite_export.fully_connected import as_fully_connected
from tflite_export.int16_activations import as_int8, as_int16
from tflite_export.integer_network import IntegerNetwork, Shape
from tflite_export.metadata import add_metadata, with_labels
from tflite_export.names import printable
from tflite_export.quiet import quiet_stderr
from tflite_export.runtimes import first_runtime, tell_runtime
from tflite_export.target_rules import require_taken
from tflite_export.verification.expected_graph import expected_graph
from tflite_export.verification.matching import match
from tflite_export.verification.tensor_names import tensor_names


def convert_network(network: IntegerNetwork) -> bytes:
    """A fully integer TFLite model, batch 1, as the network's interface says.

    Every scale comes from the graph's own fake_quant operations, so no
    calibration data is involved.

    Raises:
      ExportError: the network's target does not take it, or the converter refused it.
    """
    require_taken(network)
    is_wide = network.activation_bits == 16
    tflite = as_fully_connected(
        _converted(as_int8(network) if is_wide else network),
        dense=names_of_kind(network, "dense"),
        pointwise=names_of_kind(network, "pointwise"),
        int8_may_stay=not is_wide,
    )
    if is_wide:
        tflite = as_int16(tflite, network)
    return _with_interface(tflite, network)


def _converted(network: IntegerNetwork) -> bytes:
    """What the converter makes of a network of int8 activations."""
    converter = _converter(export_graph(network), network.input_shape)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.dtypes.as_dtype(network.interface.input_type)
    converter.inference_output_type = tf.dtypes.as_dtype(network.interface.output_type)
    tflite = _convert(converter)
    if any(op.kind == "elu" for op in network.ops):
        tflite = exponentials_as_elu(tflite)
    return tflite


def _with_interface(tflite: bytes, network: IntegerNetwork) -> bytes:
    """The file with the names that people read, metadata and labels."""
    read, interface = read_model(tflite), network.interface
    matching = match(read, expected_graph(network))
    model = unpack_model(tflite)
    for index, name in tensor_names(read, matching, interface).items():
        model.subgraphs[0].tensors[index].name = name.encode()
    for signature in model.signatureDefs:
        for ends, name in (
            (signature.inputs, interface.input_name),
            (signature.outputs, interface.output_name),
        ):
            for end in ends:
                end.name = name.encode()
    tell_runtime(model, first_runtime(read))
    add_metadata(model, network)
    return with_labels(pack_model(model), interface.meaning.labels)


def convert_float(model: Callable[[tf.Tensor], tf.Tensor], input_shape: Shape) -> bytes:
    """A float model as a float32 TFLite model, batch 1."""
    return _convert(_converter(model, input_shape))


def post_training_quantize(
    model: Callable[[tf.Tensor], tf.Tensor],
    input_shape: Shape,
    representative_inputs: np.ndarray,
) -> bytes:
    """The converter's own int8 quantization of a float model, batch 1.

    Args:
      model: float32 (1, *input_shape) -> (1, classes).
      input_shape: of one example.
      representative_inputs: model inputs (N, *input_shape) float32; their activations
        fix every range.
    """
    converter = _converter(model, input_shape)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [image[np.newaxis]] for image in representative_inputs
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return _convert(converter)


def _converter(
    model: Callable[[tf.Tensor], tf.Tensor], input_shape: Shape
) -> tf.lite.TFLiteConverter:
    # A concrete function of batch 1 rather than the Keras model: with a dynamic
    # batch every Reshape would drag SHAPE, STRIDED_SLICE and PACK along.
    module = tf.Module()
    module.model = model
    function = tf.function(lambda images: model(images), autograph=False)
    concrete = function.get_concrete_function(
        tf.TensorSpec((1, *input_shape), tf.float32, name="image")
    )
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)


def _convert(converter: tf.lite.TFLiteConverter) -> bytes:
    try:
        with quiet_stderr(), warnings.catch_warnings():
            # Ranges come from fake_quant, not from the statistics it asks for.
            warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
            return bytes(converter.convert())
    except Exception as error:  # the converter raises bare Exception subclasses
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ExportError(
            f"the TFLite converter refused the model: {type(error).__name__}: "
            f"{printable(reason)}"
        ) from error
