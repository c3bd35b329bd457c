"""What a fully integer `.tflite` classifier must be, one rule a function.

A rule's docstring is the rule; the function yields what breaks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import (
    Operator,
    Tensor,
    TFLiteModel,
    constant_values,
    layers_named_in,
)
from tflite_export.names import printable, shown
from tflite_export.quantization_params import storage_bits, weight_levels

_CHANNEL_DIMENSIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_CONVERSIONS = ("DEQUANTIZE", "CAST", "FAKE_QUANT")
_DYNAMIC_SHAPES = ("SHAPE", "STRIDED_SLICE", "PACK")
# The three scales are each rounded to float32 once from the converter's own
# arithmetic: a few times 2**-24 apart. A wrong scale is off by far more.
_BIAS_SCALE_TOLERANCE = 1e-6
_MAX_LISTED = 3

Offence = TypeVar("Offence")


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What an exported file must be.

    Attributes:
      weight_bits: 2..8; up to 4 are stored as INT4, more as INT8.
      layers_at_8_bits: names of layers whose weights have 8 bits all the same.
      num_operators: at most; those of the converter's own quantization of the same
        classifier, and more where the target takes no fewer. None where there is
        none to compare with.
      input_type: the schema's name, INT8, UINT8 or INT16; `output_type`: likewise.
    """

    weight_bits: int
    num_operators: int | None = None
    layers_at_8_bits: frozenset[str] = frozenset()
    input_type: str = "INT8"
    output_type: str = "INT8"

    def __post_init__(self) -> None:
        """Raises ExportError unless the weights have 2 to 8 bits."""
        if not 2 <= self.weight_bits <= 8:
            raise ExportError(f"weight_bits is {self.weight_bits}; expected 2 to 8")

    def bits(self, tensor_names: Iterable[str]) -> int:
        """Weight bits of the layer that tensors of these names belong to."""
        layers = {layer for name in tensor_names for layer in layers_named_in(name)}
        return 8 if layers & self.layers_at_8_bits else self.weight_bits


def stored_as(bits: int) -> str:
    """The schema's type of weights of that many bits."""
    return f"INT{storage_bits(bits)}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
      rule: as printed.
      passed: whether it holds.
      detail: what breaks it; empty if nothing does.
    """

    rule: str
    passed: bool
    detail: str


def collected(
    offences: Iterator[Offence], damaged: Callable[[str], Offence]
) -> list[Offence]:
    """A list of the offences.

    A damaged file may lack what a rule looks at, which makes the generator fail: that
    becomes the last offence, as a rule that cannot be checked counts as broken.

    Args:
      offences: what is found, one by one.
      damaged: makes an offence of the reason why it failed.
    """
    found: list[Offence] = []
    try:
        found.extend(offences)
    except (LookupError, ValueError, TypeError, OverflowError) as error:
        reason = str(error) if isinstance(error, ExportError) else repr(error)
        found.append(damaged(f"damage ({reason})"))
    return found


def finding(rule: str, offences: Sequence[str]) -> Finding:
    """What a rule found, given all that breaks it."""
    more = len(offences) - _MAX_LISTED
    listed = [printable(offence) for offence in offences[:_MAX_LISTED]]
    if more > 0:
        listed.append(f"{more} more")
    return Finding(rule, not offences, ", ".join(listed))


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule and how a file is checked against it.

    Attributes:
      rule: as printed.
      offences: yields what breaks it.
    """

    rule: str
    offences: Callable[[TFLiteModel, Expectation], Iterator[str]]

    def __call__(self, model: TFLiteModel, expectation: Expectation) -> Finding:
        """What the rule finds in a file."""
        return finding(self.rule, collected(self.offences(model, expectation), str))


def _rule(offences: Callable[[TFLiteModel, Expectation], Iterator[str]]) -> Check:
    """A check whose rule is the docstring, without capital and period, as printed."""
    sentence = offences.__doc__ or ""
    return Check(sentence[:1].lower() + sentence[1:].removesuffix("."), offences)


@_rule
def integer_io(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """One input and one output, of the types that were asked for."""
    for what, indices, expected in (
        ("input", model.inputs, expectation.input_type),
        ("output", model.outputs, expectation.output_type),
    ):
        dtypes = [model.tensors[index].dtype for index in indices]
        if dtypes != [expected]:
            found = " and ".join(dtypes) or "missing"
            yield f"{what} {found} instead of {expected}"


@_rule
def no_float_tensors(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """No float tensors."""
    for tensor in model.tensors:
        if "FLOAT" in tensor.dtype:
            yield f"{tensor.dtype} {shown(tensor.name)}"


@_rule
def no_float_or_conversion_operators(
    model: TFLiteModel, expectation: Expectation
) -> Iterator[str]:
    """No dequantize, cast, custom or Flex operators, nor quantize but at uint8 ends."""
    for operator in model.operators:
        converts = operator.name in _CONVERSIONS or operator.name.startswith("CUSTOM:")
        if operator.name == "QUANTIZE":
            converts = not _is_at_uint8_end(model, expectation, operator)
        if converts:
            yield _place(operator)


def _is_at_uint8_end(
    model: TFLiteModel, expectation: Expectation, operator: Operator
) -> bool:
    """Whether it converts an end between uint8 and int8, no float being involved."""
    (source,), (target,) = operator.inputs, operator.outputs
    types = model.tensors[source].dtype, model.tensors[target].dtype
    if types == ("UINT8", "INT8"):
        return expectation.input_type == "UINT8" and (source,) == model.inputs
    if types == ("INT8", "UINT8"):
        return expectation.output_type == "UINT8" and (target,) == model.outputs
    return False


@_rule
def weight_widths(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """Weights stored as INT4 up to 4 bits, INT8 above, within their bits' levels."""
    for operator, weights in _weights(model):
        output = model.tensors[operator.outputs[0]]
        bits = expectation.bits((weights.name, output.name))
        if weights.dtype != stored_as(bits) or not weights.is_constant:
            kind = "constant" if weights.is_constant else "computed"
            yield f"{kind} {weights.dtype} {shown(weights.name)}"
            continue
        values, (lowest, highest) = constant_values(weights), weight_levels(bits)
        if values.min() < lowest or values.max() > highest:
            yield (
                f"{values.min()}..{values.max()}, beyond {lowest}..{highest}, in "
                f"{shown(weights.name)}"
            )


@_rule
def one_scale_per_output_channel(
    model: TFLiteModel, expectation: Expectation
) -> Iterator[str]:
    """One weight scale per output channel."""
    for operator, weights in _weights(model):
        dimension = _CHANNEL_DIMENSIONS[operator.name]
        channels = weights.shape[dimension]
        along = weights.quantized_dimension
        # A single scale has no dimension to run along.
        if len(weights.scales) != channels or (along != dimension and channels > 1):
            yield (
                f"{len(weights.scales)} scales along dimension {along} for {channels} "
                f"channels in dimension {dimension} of {shown(weights.name)}"
            )


@_rule
def symmetric_weights(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """Weight zero points 0."""
    for _, weights in _weights(model):
        if any(weights.zero_points):
            yield f"{max(weights.zero_points, key=abs)} in {shown(weights.name)}"


@_rule
def integer_bias(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """Biases INT32, INT64 for INT16, zero point 0, scale input x weight scale."""
    for operator, weights in _weights(model):
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            continue  # the operator has no bias
        bias = model.tensors[operator.inputs[2]]
        source = model.tensors[operator.inputs[0]]
        (input_scale,) = source.scales
        expected = input_scale * np.array(weights.scales)
        if bias.dtype != ("INT64" if source.dtype == "INT16" else "INT32"):
            yield f"{bias.dtype} {shown(bias.name)}"
        elif any(bias.zero_points):
            yield f"zero point {max(bias.zero_points, key=abs)} in {shown(bias.name)}"
        elif len(bias.scales) != expected.size:
            yield f"{len(bias.scales)} scales for {expected.size} in {shown(bias.name)}"
        elif not np.allclose(bias.scales, expected, _BIAS_SCALE_TOLERANCE, 0.0):
            with np.errstate(divide="ignore", invalid="ignore"):  # of damaged scales
                ratios = bias.scales / expected
            worst = ratios[np.abs(ratios - 1).argmax()]
            yield f"scale {worst:.6g} times the product in {shown(bias.name)}"


@_rule
def static_batch_1(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """Batch 1 and static shapes."""
    ends = {*model.inputs, *model.outputs}
    for tensor in model.tensors:
        if -1 in tensor.shape or (tensor.index in ends and tensor.shape[:1] != (1,)):
            yield f"shape {tensor.shape} of {shown(tensor.name)}"


@_rule
def operator_count(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """No more operators than the converter's own quantization of the classifier."""
    count, limit = len(model.operators), expectation.num_operators
    if limit is not None and count > limit:
        yield f"{count} operators instead of {limit}"


@_rule
def no_dynamic_shape_operators(
    model: TFLiteModel, expectation: Expectation
) -> Iterator[str]:
    """No operators that compute shapes: SHAPE, STRIDED_SLICE, PACK."""
    for operator in model.operators:
        if operator.name in _DYNAMIC_SHAPES:
            yield _place(operator)


@_rule
def executable_order(model: TFLiteModel, expectation: Expectation) -> Iterator[str]:
    """Each tensor computed once, before it is read."""
    known = {t.index for t in model.tensors if t.is_constant} | {*model.inputs, -1}
    for operator in model.operators:
        if not operator.outputs or not known.issuperset(operator.inputs):
            yield f"{_place(operator)} too early"
        if not known.isdisjoint(operator.outputs):
            yield f"{_place(operator)} again"
        known.update(operator.outputs)
    if not known.issuperset(model.outputs):
        yield "an output that nothing computes"


CHECKS: tuple[Check, ...] = (
    integer_io,
    no_float_tensors,
    no_float_or_conversion_operators,
    weight_widths,
    one_scale_per_output_channel,
    symmetric_weights,
    integer_bias,
    static_batch_1,
    operator_count,
    no_dynamic_shape_operators,
    executable_order,
)


def structural_findings(
    model: TFLiteModel, expectation: Expectation
) -> tuple[Finding, ...]:
    """One finding per rule of `CHECKS`, in their order."""
    return tuple(check(model, expectation) for check in CHECKS)


def _place(operator: Operator) -> str:
    return f"{operator.name} as operator {operator.index}"


def _weights(model: TFLiteModel) -> Iterator[tuple[Operator, Tensor]]:
    for operator in model.operators:
        if operator.name in _CHANNEL_DIMENSIONS:
            yield operator, model.tensors[operator.inputs[1]]
