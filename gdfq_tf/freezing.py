"""A trained student becomes integers: BatchNormalization folded, kernels, biases
and scales as the `.tflite` file will hold them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras
from gdfq_tf.layers import ChannelMean, DepthToSpace, L2Normalization
from gdfq_tf.quantization_plan import (
    KERNEL_LAYERS,
    QuantizationPlan,
    consumers,
    input_layers,
    is_depthwise,
)
from gdfq_tf.quantizers import fake_quantize_weights
from gdfq_tf.student import Student
from tflite_export.activations import FIXED_GRIDS
from tflite_export.affine_quantization import (
    INT8_MAX,
    INT8_MIN,
    AffineQuantization,
    storage_bits,
    weight_limit,
)
from tflite_export.integer_inference import first_rounding_bias, uses_double_rounding
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.names import shown

_layers = keras.layers

# 16 significant bits: times a level of up to 8 bits they stay exact in float32, so
# the converter reads back the same scale; the change is 1e-5 at most.
_SCALE_BITS = 16
# Channels that BatchNormalization switches off have scales next to zero, and biases
# that would be huge in units of them. Up to here a bias survives the converter's
# float32 exactly, and int32 accumulators have room left.
_LARGEST_BIAS = 2**23
_SMALLEST_MULTIPLIER = 2.0**-24
# The converter widens the range of a kernel's channel to 1e-6, and would store other
# integers than the student's.
_SMALLEST_RANGE = 1.01e-6
# One step of an accumulator is then worth all steps of the output; XNNPACK refuses
# it, other kernels of LiteRT abort further on.
_LARGEST_MULTIPLIER = 2.0**8
# Channels that stand for epsilon; every position computes them.
_MOST_CONSTANTS = 4096
_FUSED_BOUND = 6.0  # the only ReLU's bound that TFLite fuses into other operators


def freeze(student: Student, classifier: keras.Model, *, head: str) -> IntegerNetwork:
    """The `IntegerNetwork` that computes what the student simulates.

    Args:
      student: trained; its BatchNormalization statistics are used as they are.
      classifier: the canonical classifier that it was built from.
      head: what the exported model is to give of the logits, see `heads`.

    Raises:
      UserError: a LayerNormalization's epsilon outweighs its input, or a layer's input
        and output differ in size beyond what integer kernels take.
    """
    consumed_by = consumers(classifier)
    grids = {name: _final_grid(student, name) for name in student.plan.groups}
    input_layer = classifier.layers[0]
    ops: list[IntegerOp] = []
    # Where a layer's output lives: fused layers have none of their own.
    tensor_of = {input_layer.name: input_layer.name}
    for layer in classifier.layers[1:]:
        if layer.name in tensor_of:
            continue
        chain = _fused_chain(layer, consumed_by, student.plan.tensor_groups)
        bound = _bound_below_its_grid(chain[-1], student.plan)
        grid = grids[student.plan.tensor_groups[chain[-1].name]]
        op = IntegerOp(
            name=layer.name,
            kind=_kind(layer),
            inputs=tuple(tensor_of[x.name] for x in input_layers(layer)),
            grid=grid,
            relu=isinstance(chain[-1], _layers.ReLU),
            relu6=bound == _FUSED_BOUND,
            attributes=_attributes(layer),
        )
        input_grid = grids[student.plan.tensor_groups[input_layers(layer)[0].name]]
        if isinstance(layer, KERNEL_LAYERS):
            op = _with_kernel(op, student, chain, input_grid)
        if isinstance(layer, L2Normalization):
            attributes = _epsilon_as_constants(layer.name, layer.epsilon, input_grid)
            op = dataclasses.replace(op, attributes=attributes)
        ops += [op, *_bounding(op, bound)]
        tensor_of |= {x.name: ops[-1].name for x in chain}
    if head == "multi_label":
        # No layer has a slash in its name.
        name = f"{ops[-1].name}/sigmoid"
        grid = FIXED_GRIDS["sigmoid"]
        ops.append(IntegerOp(name, "sigmoid", (ops[-1].name,), grid))
    return IntegerNetwork(
        input_name=input_layer.name,
        input_shape=tuple(classifier.input_shape[1:]),
        input_grid=grids[student.plan.tensor_groups[input_layer.name]],
        ops=tuple(ops),
        softmax=head in ("softmax", "sigmoid"),
    )


def _fused_chain(layer, consumed_by, tensor_groups) -> list:
    """The layer and those fused behind it; the last one has the output tensor."""
    chain = [layer]
    while chain[-1].name not in tensor_groups:
        (following,) = consumed_by[chain[-1].name]
        chain.append(following)
    return chain


def _bound_below_its_grid(layer, plan: QuantizationPlan) -> float | None:
    """The bound of a ReLU that shares its grid with tensors of a wider range."""
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
    level = op.grid.zero_point + math.floor(bound / op.grid.scale + 0.5)
    if level >= INT8_MAX:
        return []
    # No layer has a slash in its name.
    name, attributes = f"{op.name}/bound", {"level": level}
    return [IntegerOp(name, "minimum", (op.name,), op.grid, attributes=attributes)]


def _final_grid(student: Student, group_name: str) -> AffineQuantization:
    quantizer = student.activation_quantizers[group_name]
    scale = float(quantizer.scale)
    group = student.plan.groups[group_name]
    if group.upper_bound is not None:
        # Nothing lies above the ReLU's bound: the grid's own end clamps there.
        scale = min(scale, group.upper_bound / (2**group.bits - 1))
    return AffineQuantization(float(_coarse(scale)), quantizer.zero_point)


def _array(values) -> np.ndarray:
    """A variable or tensor as float64."""
    return np.asarray(values, np.float64)


def _coarse(scale) -> np.ndarray:
    """Scales rounded to `_SCALE_BITS` significant bits, float64."""
    mantissa, exponent = np.frexp(np.asarray(scale, np.float64))
    return np.ldexp(np.round(mantissa * 2**_SCALE_BITS) / 2**_SCALE_BITS, exponent)


def _with_kernel(
    op: IntegerOp, student: Student, chain: list, input_grid: AffineQuantization
) -> IntegerOp:
    """`op` with the integer kernel of the chain's first layer, the rest folded in."""
    layer = chain[0]
    quantizer = student.weight_quantizers[layer.name]
    weight_scale = _array(quantizer.scale)
    levels = np.round(
        _array(
            fake_quantize_weights(
                quantizer.channels_last(), quantizer.scale, quantizer.bits
            )
        )
        / weight_scale
    )
    copy = student.layer(layer.name)
    factor = np.ones_like(weight_scale)
    bias = np.zeros_like(weight_scale)
    if layer.use_bias:
        bias = _array(copy.bias)
    if len(chain) > 1 and isinstance(chain[1], _layers.BatchNormalization):
        normalization = student.layer(chain[1].name)
        factor = _array(normalization.gamma) / np.sqrt(
            _array(normalization.moving_variance) + normalization.epsilon
        )
        mean = _array(normalization.moving_mean)
        bias = factor * (bias - mean) + _array(normalization.beta)
    stored_limit = weight_limit(storage_bits(quantizer.bits))
    smallest = np.maximum.reduce(
        [
            np.full_like(bias, _SMALLEST_MULTIPLIER * op.grid.scale / input_grid.scale),
            np.full_like(bias, _SMALLEST_RANGE / (2 * stored_limit)),
            np.abs(bias) / (input_grid.scale * _LARGEST_BIAS),
        ]
    )
    scale = _coarse(np.maximum(weight_scale * np.abs(factor), smallest))
    # 1 or -1, up to the coarse scale; next to 0 for channels switched off.
    levels = np.round(levels * (weight_scale * factor / scale))
    kernel = Kernel(
        values=levels.astype(np.int8).reshape(quantizer.kernel.shape),
        bits=quantizer.bits,
        scale=scale.astype(np.float32),
        bias=np.zeros(scale.shape, np.int32),
    )
    step = input_grid.scale * scale
    accumulator_bias = bias / step
    if uses_double_rounding(op.kind, kernel):
        accumulator_bias -= first_rounding_bias(step / op.grid.scale)
    if step.max() >= _LARGEST_MULTIPLIER * op.grid.scale:
        raise UserError(
            f"layer {shown(op.name)} turns inputs of {input_grid.low:.3g} to "
            f"{input_grid.high:.3g} into outputs of {op.grid.low:.3g} to "
            f"{op.grid.high:.3g}, with one step of its accumulator worth "
            f"{step.max() / op.grid.scale:.3g} of the output's; expected less than "
            f"{_LARGEST_MULTIPLIER:g}: channels of its input differ by more than 8 "
            "bits hold; look for outliers among the weights of the layers before it"
        )
    kernel = dataclasses.replace(
        kernel, bias=np.round(accumulator_bias).astype(np.int32)
    )
    return dataclasses.replace(op, kernel=kernel)


def _epsilon_as_constants(
    name: str, epsilon: float, input_grid: AffineQuantization
) -> dict[str, int]:
    """The attributes of an l2_normalize whose sums of squares have epsilon beside them.

    The kernel knows none: so many channels of one level stand for it, as few as can.
    Next to nothing beside one step of the grid, it is none.

    Raises:
      UserError: it would take too many.
    """
    largest = max(INT8_MAX - input_grid.zero_point, input_grid.zero_point - INT8_MIN)
    sign = 1 if largest == INT8_MAX - input_grid.zero_point else -1
    in_steps = epsilon / input_grid.scale**2
    count = max(1, math.ceil(in_steps / largest**2))
    if count > _MOST_CONSTANTS:
        reach = largest * input_grid.scale
        raise UserError(
            f"layer {name!r} (LayerNormalization): its input stays within {reach:.2g} "
            f"of the mean, next to nothing beside its epsilon, {epsilon:.2g} for the "
            "sum of squares; expected at most "
            f"{_MOST_CONSTANTS * reach**2:.2g}: train it with a smaller epsilon or "
            "larger weights in front"
        )
    level = round(math.sqrt(in_steps / count))
    return {"constant_level": sign * level, "num_constants": count if level else 0}


_KINDS = {
    _layers.Conv2D: "conv",
    _layers.DepthwiseConv2D: "depthwise",
    _layers.Dense: "dense",
    _layers.Add: "add",
    _layers.Subtract: "subtract",
    _layers.Multiply: "multiply",
    _layers.ReLU: "relu",
    _layers.LeakyReLU: "leaky_relu",
    ChannelMean: "channel_mean",
    L2Normalization: "l2_normalize",
    _layers.GlobalAveragePooling2D: "global_average",
    _layers.AveragePooling2D: "average_pool",
    _layers.MaxPooling2D: "max_pool",
    _layers.Reshape: "reshape",
    _layers.Flatten: "reshape",
    _layers.ZeroPadding2D: "pad",
    _layers.Cropping2D: "crop",
    _layers.Concatenate: "concatenate",
    DepthToSpace: "depth_to_space",
}


def _kind(layer) -> str:
    if isinstance(layer, _layers.Activation):
        return layer.activation.__name__
    if isinstance(layer, _layers.UpSampling2D):
        return f"resize_{layer.interpolation}"
    return _KINDS[type(layer)]


def _attributes(layer) -> dict[str, object]:
    """The JSON attributes of `IntegerOp` for a canonical layer."""
    if isinstance(layer, (_layers.Conv2D, _layers.DepthwiseConv2D)):
        attributes = {
            "strides": list(layer.strides),
            "padding": layer.padding,
            "dilation": list(layer.dilation_rate),
        }
        if is_depthwise(layer):
            return attributes
        return attributes | {"groups": layer.groups}
    if isinstance(layer, (_layers.MaxPooling2D, _layers.AveragePooling2D)):
        return {
            "pool_size": list(layer.pool_size),
            "strides": list(layer.strides),
            "padding": layer.padding,
        }
    if isinstance(layer, (_layers.Reshape, _layers.Flatten)):
        return {"shape": list(layer.output.shape[1:])}
    if isinstance(layer, _layers.ZeroPadding2D):
        return {"pads": [list(pair) for pair in layer.padding]}
    if isinstance(layer, _layers.Cropping2D):
        return {"crops": [list(pair) for pair in layer.cropping]}
    if isinstance(layer, DepthToSpace):
        crops = [list(pair) for pair in layer.cropping]
        return {"block_size": list(layer.block_size), "crops": crops}
    if isinstance(layer, _layers.UpSampling2D):
        return {"size": list(layer.size)}
    if isinstance(layer, _layers.LeakyReLU):
        return {"slope": float(layer.alpha)}
    if isinstance(layer, _layers.GlobalAveragePooling2D):
        return {"keepdims": bool(layer.keepdims)}
    return {}
