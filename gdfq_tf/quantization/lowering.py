"""A trained student becomes integers.

BatchNormalization is folded; kernels, biases and scales are as the `.tflite` file will
hold them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.errors import UserError
from gdfq_tf.graph.layers import L2Normalization
from gdfq_tf.graph.queries import consumers, input_layers
from gdfq_tf.graph.traits import has_kernel, kind_of, traits
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.plan import Consumers, QuantizationPlan
from gdfq_tf.quantization.student import Student
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel, kernel_of
from tflite_export.interface import DEFAULT_INTERFACE, Interface
from tflite_export.litert.common_scales import with_common_scales
from tflite_export.names import shown
from tflite_export.operator_forms import in_form_of, in_int16_kinds
from tflite_export.operators.table import bounded_quant_params
from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
    coarse,
    storage_bits,
    weight_levels,
)
from tflite_export.target_kernels import rounding_bias
from tflite_export.targets import DEFAULT_TARGET, TARGETS, Target

_layers = keras.layers

# Channels that BatchNormalization switches off have scales next to zero, and biases
# that would be huge in units of them. Up to here a bias survives the converter's
# float32 exactly, and int32 accumulators have room left; beside int16, int64 ones.
_LARGEST_BIAS = {8: 2**23, 16: 2**38}
_BIAS_DTYPES = {8: np.int32, 16: np.int64}
_SMALLEST_MULTIPLIER = 2.0**-24
# The converter widens the range of a tensor, or of a kernel's channel, to 1e-6, and
# would store other integers than the student's.
_SMALLEST_RANGE = 1.01e-6
# One step of an accumulator is then worth all steps of the output; XNNPACK refuses
# it, other kernels of LiteRT abort further on.
_LARGEST_MULTIPLIER = 2.0**8
# Channels that stand for epsilon; every position computes them.
_MOST_CONSTANTS = 4096
_FUSED_BOUND = 6.0  # the only ReLU's bound that TFLite fuses into other operators


def lower(
    student: Student,
    classifier: Classifier,
    target: Target = TARGETS[DEFAULT_TARGET],
    interface: Interface = DEFAULT_INTERFACE,
) -> IntegerNetwork:
    """The `IntegerNetwork` that computes what the student simulates.

    Args:
      student: trained; its BatchNormalization statistics are used as they are.
      classifier: the one that it was built from; its head says what the exported
        model gives of the logits.
      target: what runs the file.
      interface: how the file presents itself.

    Raises:
      UserError: a LayerNormalization's epsilon outweighs its input, or a layer's input
        and output differ in size beyond what integer kernels take.
    """
    model, plan = classifier.model, student.plan
    consumed_by = consumers(model)
    quant_params_of_group = {
        name: _final_quant_params(student, name) for name in plan.groups
    }
    quant_params_of = {
        name: quant_params_of_group[group] for name, group in plan.tensor_groups.items()
    }
    input_layer = model.layers[0]
    ops = _to_image(classifier, input_layer.name, quant_params_of[input_layer.name])
    # Where a layer's output lives: fused layers have none of their own.
    tensor_of = {input_layer.name: ops[-1].name if ops else input_layer.name}
    for layer in model.layers[1:]:
        if layer.name in tensor_of:
            continue
        chain = _fused_chain(layer, consumed_by, plan.tensor_groups)
        bound = _bound_below_its_quant_params(chain[-1], plan)
        op = IntegerOp(
            name=layer.name,
            kind=kind_of(layer),
            inputs=tuple(tensor_of[x.name] for x in input_layers(layer)),
            quant_params=quant_params_of[chain[-1].name],
            relu=isinstance(chain[-1], _layers.ReLU),
            relu6=bound == _FUSED_BOUND,
            attributes=traits(layer).attributes(layer),
        )
        input_quant_params = quant_params_of[input_layers(layer)[0].name]
        if has_kernel(layer):
            op = _with_kernel(op, student, chain, input_quant_params, target)
        if isinstance(layer, L2Normalization):
            attributes = _epsilon_as_constants(
                layer.name, layer.epsilon, input_quant_params
            )
            op = dataclasses.replace(op, attributes=attributes)
        ops += [op, *_bounding(op, bound)]
        tensor_of |= {x.name: ops[-1].name for x in chain}
    if classifier.head is Head.MULTI_LABEL:
        # No layer has a slash in its name.
        name = f"{ops[-1].name}/sigmoid"
        last = ops[-1]
        quant_params = bounded_quant_params("sigmoid", last.quant_params.bits)
        ops.append(IntegerOp(name, "sigmoid", (last.name,), quant_params))
    network = IntegerNetwork(
        input_name=input_layer.name,
        input_shape=classifier.example_shape,
        input_quant_params=quant_params_of[input_layer.name],
        ops=tuple(ops),
        softmax=classifier.head.ends_in_softmax,
        interface=interface,
        target=target.name,
    )
    if network.activation_bits == 16:
        return in_int16_kinds(network)
    return with_common_scales(network) if target.kernels == "litert" else network


def _to_image(
    classifier: Classifier, name: str, quant_params: QuantParams
) -> list[IntegerOp]:
    """The reshape of examples to the image that the network begins with, if any."""
    shape = classifier.input_shape
    if classifier.example_shape == shape:
        return []
    # No layer has a slash in its name.
    image = IntegerOp(
        f"{name}/image",
        "reshape",
        (name,),
        quant_params,
        attributes={"shape": list(shape)},
    )
    return [image]


def _fused_chain(
    layer: keras.layers.Layer,
    consumed_by: Consumers,
    tensor_groups: Mapping[str, str],
) -> list[keras.layers.Layer]:
    """The layer and those fused behind it; the last one has the output tensor."""
    chain = [layer]
    while chain[-1].name not in tensor_groups:
        (following,) = consumed_by[chain[-1].name]
        chain.append(following)
    return chain


def _bound_below_its_quant_params(
    layer: keras.layers.Layer, plan: QuantizationPlan
) -> float | None:
    """The bound of a ReLU that shares its scale with tensors of a wider range."""
    if not isinstance(layer, _layers.ReLU) or layer.max_value is None:
        return None
    bound = float(layer.max_value)
    group = plan.groups[plan.tensor_groups[layer.name]]
    return bound if group.upper_bound != bound else None


def _bounding(op: IntegerOp, bound: float | None) -> list[IntegerOp]:
    """The operation that keeps a ReLU's results below its bound; none if it need not.

    It costs no operator: the converter makes two of such a ReLU.
    """
    if bound is None or bound == _FUSED_BOUND:
        return []
    level = op.quant_params.zero_point + math.floor(bound / op.quant_params.scale + 0.5)
    if level >= op.quant_params.highest:
        return []
    # No layer has a slash in its name.
    name, attributes = f"{op.name}/bound", {"level": level}
    return [
        IntegerOp(name, "minimum", (op.name,), op.quant_params, attributes=attributes)
    ]


def _final_quant_params(student: Student, group_name: str) -> QuantParams:
    quantizer = student.activation_quantizers[group_name]
    found = QuantParams(float(quantizer.scale), quantizer.zero_point, quantizer.bits)
    scale, bound = found.scale, student.plan.groups[group_name].upper_bound
    if bound is not None:
        # Nothing lies above the ReLU's bound: the range's own end clamps there.
        scale = min(scale, bound / (found.highest - found.zero_point))
    # Such as a mean over channels that are normalized already.
    scale = max(scale, _SMALLEST_RANGE / (found.highest - found.lowest))
    return dataclasses.replace(found, scale=float(coarse(scale)))


def _array(values: tf.Variable | tf.Tensor) -> np.ndarray:
    """A variable or tensor as float64."""
    return np.asarray(values, np.float64)


def _with_kernel(
    op: IntegerOp,
    student: Student,
    chain: Sequence[keras.layers.Layer],
    input_quant_params: QuantParams,
    target: Target,
) -> IntegerOp:
    """`op` with the integer kernel of the chain's first layer, the rest folded in.

    It has the kind that its target takes.
    """
    quantizer = student.weight_quantizers[chain[0].name]
    weight_scale = _array(quantizer.scale)
    factor, bias = _folded(student, chain, weight_scale.shape)
    smallest = _smallest_scales(bias, quantizer.bits, input_quant_params, op)
    scale = coarse(np.maximum(weight_scale * factor, smallest))
    quantized = np.round(_array(quantizer.quantized()) / weight_scale)
    # Times 1, up to the coarse scale; next to 0 for channels switched off.
    quantized = np.round(quantized * (weight_scale * factor / scale))
    kernel = Kernel(
        values=quantized.astype(np.int8).reshape(quantizer.kernel.shape),
        bits=quantizer.bits,
        scale=scale.astype(np.float32),
        bias=np.zeros(scale.shape, _BIAS_DTYPES[op.quant_params.bits]),
    )
    step = input_quant_params.scale * scale
    _require_small_steps(op, step, input_quant_params)
    op = in_form_of(target, dataclasses.replace(op, kernel=kernel))
    accumulator_bias = bias / step - rounding_bias(target, op, input_quant_params)
    kernel = kernel_of(op)
    bias = np.round(accumulator_bias).astype(kernel.bias.dtype)
    kernel = dataclasses.replace(kernel, bias=bias)
    return dataclasses.replace(op, kernel=kernel)


def _folded(
    student: Student, chain: Sequence[keras.layers.Layer], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """What a chain makes of its kernel's sums: factor * sum + bias, float64 `shape`."""
    layer = chain[0]
    factor, bias = np.ones(shape), np.zeros(shape)
    if layer.use_bias:
        bias = _array(student.layer(layer.name).bias)
    if len(chain) > 1 and isinstance(chain[1], _layers.BatchNormalization):
        normalization = student.layer(chain[1].name)
        factor = _array(normalization.gamma) / np.sqrt(
            _array(normalization.moving_variance) + normalization.epsilon
        )
        mean = _array(normalization.moving_mean)
        bias = factor * (bias - mean) + _array(normalization.beta)
    return factor, bias


def _smallest_scales(
    bias: np.ndarray, bits: int, input_quant_params: QuantParams, op: IntegerOp
) -> np.ndarray:
    """The least scale that each of a kernel's channels may have, float64."""
    smallest_multiplier = (
        _SMALLEST_MULTIPLIER * op.quant_params.scale / input_quant_params.scale
    )
    _, highest = weight_levels(storage_bits(bits))
    largest_bias = _LARGEST_BIAS[input_quant_params.bits]
    return np.maximum.reduce(
        [
            np.full_like(bias, smallest_multiplier),
            np.full_like(bias, _SMALLEST_RANGE / (2 * highest)),
            np.abs(bias) / (input_quant_params.scale * largest_bias),
        ]
    )


def _require_small_steps(op: IntegerOp, step: np.ndarray, taken: QuantParams) -> None:
    """Refuses accumulators whose steps are large beside those of the output.

    Args:
      op: the operation, with its output's scale.
      step: what one step of each channel's accumulator is worth.
      taken: the input's scale and zero point.

    Raises:
      UserError: one is beyond what integer kernels take.
    """
    given = op.quant_params
    if step.max() < _LARGEST_MULTIPLIER * given.scale:
        return
    raise UserError(
        f"layer {shown(op.name)} turns inputs of {taken.low:.3g} to "
        f"{taken.high:.3g} into outputs of {given.low:.3g} to {given.high:.3g}, "
        "with one step of its accumulator worth "
        f"{step.max() / given.scale:.3g} of the output's; expected less than "
        f"{_LARGEST_MULTIPLIER:g}: channels of its input differ by more than 8 "
        "bits hold; look for outliers among the weights of the layers before it"
    )


def _epsilon_as_constants(
    name: str, epsilon: float, input_quant_params: QuantParams
) -> dict[str, int]:
    """The attributes of an l2_normalize whose sums of squares have epsilon beside them.

    The kernel knows none: so many channels of one level stand for it, as few as can.
    Next to nothing beside one step of the input, it is none.

    Raises:
      UserError: it would take too many.
    """
    largest = max(
        INT8_MAX - input_quant_params.zero_point,
        input_quant_params.zero_point - INT8_MIN,
    )
    sign = 1 if largest == INT8_MAX - input_quant_params.zero_point else -1
    in_steps = epsilon / input_quant_params.scale**2
    count = max(1, math.ceil(in_steps / largest**2))
    if count > _MOST_CONSTANTS:
        reach = largest * input_quant_params.scale
        raise UserError(
            f"layer {name!r} (LayerNormalization): its input stays within {reach:.2g} "
            f"of the mean, next to nothing beside its epsilon, {epsilon:.2g} for the "
            "sum of squares; expected at most "
            f"{_MOST_CONSTANTS * reach**2:.2g}: train it with a smaller epsilon or "
            "larger weights in front"
        )
    level = round(math.sqrt(in_steps / count))
    return {"constant_level": sign * level, "num_constants": count if level else 0}
