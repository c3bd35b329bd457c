"""Which tensor is quantized, with how many bits, and which tensors share a scale.

The plan mirrors what TFLite's integer kernels do: BatchNormalization and ReLU are
fused into the convolution or add before them, so only the end of such a chain is
quantized; pooling, enlarging, reshaping, padding and concatenation work on integers
as they are, so their inputs and output share one scale.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
from collections.abc import Collection, Mapping, Sequence

from gdfq_tf.config import PROTOCOLS, BitWidths, Protocol
from gdfq_tf.errors import UserError, option
from gdfq_tf.graph.layers import L2Normalization
from gdfq_tf.graph.queries import (
    consumers,
    input_layers,
    is_depthwise,
    join,
    output_layer,
)
from gdfq_tf.graph.traits import has_kernel, is_bilinear, kind_of, traits
from gdfq_tf.keras_compat import keras
from tflite_export.operator_forms import can_be_fully_connected
from tflite_export.operators.table import FIXED_QUANT_PARAMS, bounded_quant_params
from tflite_export.quantization_params import QuantParams

_layers = keras.layers
# As `queries.consumers` gives them.
Consumers = Mapping[str, Sequence[keras.layers.Layer]]


@dataclasses.dataclass(frozen=True)
class ActivationGroup:
    """Tensors that share one scale.

    Attributes:
      name: the first layer, in graph order, that produces one of them.
      bits: 3..8, or 16.
      non_negative: all are ReLU outputs; then zero sits at the range's low end.
      upper_bound: largest value any ReLU among them lets through, or None.
      fixed_quant_params: the only ones that the kernels producing them write, or None.
    """

    name: str
    bits: int
    non_negative: bool
    upper_bound: float | None
    fixed_quant_params: QuantParams | None = None

    @property
    def stored_bits(self) -> int:
        """Bits of the integers that hold them, 8 or 16."""
        return max(8, self.bits)


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """Where fake quantization stands in a canonical classifier.

    Attributes:
      input_group: name of the group that the model input belongs to.
      output_group: name of the group that the logits belong to.
      weight_bits: kernel layer name -> bits.
      tensor_groups: layer name -> group name of its output tensor; layers that a
        kernel fuses with the next one have no tensor and are not in here.
      outputs: layer name -> group name, for layers whose output is quantized.
      groups: group name -> `ActivationGroup`.
    """

    input_group: str
    output_group: str
    weight_bits: Mapping[str, int]
    tensor_groups: Mapping[str, str]
    outputs: Mapping[str, str]
    groups: Mapping[str, ActivationGroup]

    @property
    def layers_at_8_bits(self) -> frozenset[str]:
        """Names of the kernel layers whose kernels have 8 bits."""
        return frozenset(name for name, bits in self.weight_bits.items() if bits == 8)

    def is_fixed(self, group_name: str) -> bool:
        """Whether a group's scale is given, not found by calibration."""
        fixed = self.groups[group_name].fixed_quant_params is not None
        return fixed or group_name == self.input_group


def match_kernel_layers(model: keras.Model, patterns: Sequence[str]) -> frozenset[str]:
    """Names of the kernel layers that match any of the patterns.

    Args:
      model: canonical.
      patterns: names or shell-style patterns.

    Raises:
      UserError: a pattern matches none.
    """
    names = [x.name for x in model.layers if has_kernel(x)]
    matched: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise UserError(
                f"{option('keep_layers', pattern)} matches no layer; expected names or "
                f"patterns of {', '.join(names)}"
            )
        matched.update(found)
    return frozenset(matched)


def end_layers(model: keras.Model) -> frozenset[str]:
    """Names of the first and the last kernel layer.

    Kernel layers that only scale do not count, and those beyond are named besides: for
    one of these every width is exact, and it stands for no layer of the network's own.
    """
    kernel_layers = [x for x in model.layers if has_kernel(x)]
    result: set[str] = set()
    for layers in (kernel_layers, kernel_layers[::-1]):
        for layer in layers:
            result.add(layer.name)
            if not _only_scales(layer):
                break
    return frozenset(result)


def window_layers(model: keras.Model) -> frozenset[str]:
    """Names of the kernel layers for whose INT4 kernels XNNPACK has no operator."""
    return frozenset(
        x.name
        for x in model.layers
        if has_kernel(x)
        and not can_be_fully_connected(
            kind_of(x), x.get_weights()[0].shape, traits(x).attributes(x)
        )
    )


def _only_scales(layer: keras.layers.Layer) -> bool:
    """Whether each of a kernel layer's outputs is a multiple of one of its inputs."""
    kernel = layer.get_weights()[0]
    if is_depthwise(layer):
        return kernel.shape[:2] == (1, 1)
    return kernel.shape[:-1] in ((1,), (1, 1, 1))


def make_plan(
    model: keras.Model,
    bit_widths: BitWidths,
    keep_layers: Collection[str] = (),
) -> QuantizationPlan:
    """The plan of a canonical model (see `frontend/canonical.py` for its vocabulary).

    Args:
      model: canonical.
      bit_widths: of kernels and ReLU outputs.
      keep_layers: kernel layers that stay at 8 bits, kernel and output, besides
        those that the protocol keeps.
    """
    protocol = PROTOCOLS[bit_widths.protocol]
    kept = frozenset(keep_layers)
    if protocol.keeps_ends:
        kept |= end_layers(model)
    if protocol.keeps_depthwise:
        kept |= {x.name for x in model.layers if has_kernel(x) and is_depthwise(x)}
    if protocol.keeps_windows:
        kept |= window_layers(model)
    consumed_by = consumers(model)
    root = join(
        [layer.name for layer in model.layers],
        (
            (layer.name, producer.name)
            for layer in model.layers
            if _has_scale_of_inputs(layer, consumed_by)
            for producer in input_layers(layer)
        ),
    )

    members: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if not _is_fused_into_consumer(layer, consumed_by[layer.name]):
            members.setdefault(root[layer.name], []).append(layer)

    groups = {
        name: _make_group(name, layers, consumed_by, bit_widths, kept)
        for name, layers in members.items()
    }
    input_layer = model.layers[0]
    outputs = {
        layer.name: name
        for name, layers in members.items()
        for layer in layers
        if layer is not input_layer and traits(layer).rounds(layer)
    }
    return QuantizationPlan(
        input_group=root[input_layer.name],
        output_group=root[output_layer(model).name],
        weight_bits={
            layer.name: 8 if layer.name in kept else bit_widths.weight_bits
            for layer in model.layers
            if has_kernel(layer)
        },
        tensor_groups={
            layer.name: name for name, layers in members.items() for layer in layers
        },
        outputs=outputs,
        groups=groups,
    )


def _is_fused_into_consumer(
    layer: keras.layers.Layer, consumers_of_layer: Sequence[keras.layers.Layer]
) -> bool:
    """Whether a kernel computes `layer` and its only consumer in one go."""
    if len(consumers_of_layer) != 1:
        return False
    consumer = consumers_of_layer[0]
    if isinstance(consumer, _layers.BatchNormalization):
        return traits(layer).fuses_normalization
    return traits(layer).fuses_relu and isinstance(consumer, _layers.ReLU)


def _has_scale_of_inputs(layer: keras.layers.Layer, consumed_by: Consumers) -> bool:
    """Whether the kernel that computes `layer` has one scale for inputs and output."""
    if isinstance(layer, _layers.ReLU):
        (producer,) = input_layers(layer)
        is_fused = _is_fused_into_consumer(producer, consumed_by[producer.name])
        return is_fused and traits(producer).keeps_scale
    return traits(layer).keeps_scale


def _kernel_layer_of(layer: keras.layers.Layer) -> str | None:
    """The kernel layer whose output an activation or normalization finishes."""
    while isinstance(layer, (_layers.ReLU, _layers.BatchNormalization)):
        (layer,) = input_layers(layer)
    return layer.name if has_kernel(layer) else None


def _bounded_kind(layer: keras.layers.Layer) -> str | None:
    """The kind of the layer if its kernel writes one scale and zero point alone."""
    if isinstance(layer, L2Normalization):
        return "l2_normalize"
    if isinstance(layer, _layers.Activation):
        kind = str(layer.activation.__name__)
        return kind if kind in FIXED_QUANT_PARAMS else None
    return None


def _fixed_quant_params(
    producers: Sequence[keras.layers.Layer], bits: int
) -> QuantParams | None:
    """The scale and zero point of 8 or 16 bits that the kernels of some layers fix.

    Raises:
      UserError: not all of them write the same one.
    """
    names_of_kinds = {_bounded_kind(x): x.name for x in producers}
    if len(names_of_kinds) > 1 and any(names_of_kinds):
        names = " and ".join(map(repr, names_of_kinds.values()))
        raise UserError(
            f"the outputs of {names} are joined, and one of them is a sigmoid or tanh, "
            "whose integer scale is fixed; expected a convolution or multiplication "
            "between it and where they are joined"
        )
    kind = next(iter(names_of_kinds), None)
    return None if kind is None else bounded_quant_params(kind, bits)


def _make_group(
    name: str,
    layers: Sequence[keras.layers.Layer],
    consumed_by: Consumers,
    bit_widths: BitWidths,
    keep_layers: Collection[str],
) -> ActivationGroup:
    producers = [x for x in layers if not traits(x).keeps_scale]
    non_negative = all(isinstance(x, _layers.ReLU) for x in producers)
    # Averages of non-negative tensors are non-negative as well, at 8 bits.
    pooled = all(
        isinstance(x, _layers.GlobalAveragePooling2D)
        and all(isinstance(y, _layers.ReLU) for y in input_layers(x))
        for x in producers
    )
    kept = any(_kernel_layer_of(x) in keep_layers for x in producers)
    kept = kept or _is_kept(layers, consumed_by, PROTOCOLS[bit_widths.protocol])
    bits = stored = bit_widths.stored_activation_bits
    if non_negative and not kept:
        bits = bit_widths.activation_bits
    return ActivationGroup(
        name=name,
        bits=bits,
        non_negative=non_negative or pooled,
        upper_bound=_upper_bound(producers) if non_negative else None,
        fixed_quant_params=_fixed_quant_params(producers, stored),
    )


def _is_kept(
    layers: Sequence[keras.layers.Layer], consumed_by: Consumers, protocol: Protocol
) -> bool:
    """Whether tensors of one scale have 8 bits because of where they go.

    That is out of the network or, by all protocols but the paper's, into a residual
    add, a pooling layer or a blend of neighbours.
    """
    consuming = [consumed_by[layer.name] for layer in layers]
    if not all(consuming):
        return True
    return protocol.keeps_ends and any(
        isinstance(x, _layers.Add) or traits(x).pools or is_bilinear(x)
        for x in itertools.chain(*consuming)
    )


def _upper_bound(relus: Sequence[keras.layers.Layer]) -> float | None:
    """The largest value that the ReLUs let through, None if one has no bound."""
    bounds = [relu.max_value for relu in relus]
    if not bounds or None in bounds:
        return None
    return max(map(float, bounds))
