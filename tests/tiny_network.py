"""Integer networks for the tests: many operations side by side in one network.

Every branch ends on one common grid and is flattened into the output, so that a
single conversion shows each operation's results by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.quantization_params import QuantParams, weight_levels

INPUT_SHAPE = (8, 8, 4)
INPUT_GRID = QuantParams(3 / 256, 5)
OUTPUT_GRID = QuantParams(11 / 512, -7)
# Their kernels are (inputs, outputs).
DENSE_KINDS = ("dense", "dense_convolution")
CHANNEL_KINDS = (*DENSE_KINDS, "pointwise")
# Deviation of a kernel's outputs, in steps of an 8-bit output grid: few saturate.
_OUTPUT_STEPS = 40.0


def coarse(scale) -> np.ndarray:
    """Scales rounded to 12 significant bits, as exact export wants (at most 16)."""
    mantissa, exponent = np.frexp(np.asarray(scale, np.float64))
    return np.ldexp(np.round(mantissa * 4096) / 4096, exponent)


@dataclasses.dataclass(frozen=True)
class KernelOptions:
    """What kernels may differ in; `CHANNEL_KINDS` only in outputs and ReLU."""

    outputs: int = 5
    size: int = 3
    multiplier: int = 1
    stride: int = 1
    padding: str = "same"
    dilation: int = 1
    groups: int = 1
    relu: bool = False
    relu6: bool = False

    def values_shape(self, kind: str, channels: int) -> tuple[int, ...]:
        """Of the kernel, for inputs of so many channels."""
        if kind in CHANNEL_KINDS:
            return channels, self.outputs
        if kind == "depthwise":
            return self.size, self.size, channels, self.multiplier
        return self.size, self.size, channels // self.groups, self.outputs

    def output_shape(
        self, kind: str, height: int, width: int, outputs: int
    ) -> tuple[int, ...]:
        """Of the operation, for inputs of that height and width."""
        if kind in DENSE_KINDS:
            return (outputs,)
        reach = self.dilation * (self.size - 1) if self.padding == "valid" else 0
        spatial = [-(-(length - reach) // self.stride) for length in (height, width)]
        return *spatial, outputs

    def attributes(self, kind: str) -> dict:
        """Of the operation."""
        if kind in CHANNEL_KINDS:
            return {}
        attributes = {
            "strides": [self.stride, self.stride],
            "padding": self.padding,
            "dilation": [self.dilation, self.dilation],
        }
        return attributes | ({"groups": self.groups} if kind == "conv" else {})


class NetworkBuilder:
    """Collects operations, then the named branches, into an `IntegerNetwork`."""

    def __init__(self, seed: int = 0):
        self._rng = np.random.default_rng(seed)
        self._shapes: dict[str, tuple[int, ...]] = {"image": INPUT_SHAPE}
        self._quant_params = {"image": INPUT_GRID}
        self._ops: list[IntegerOp] = []
        self._branches: list[str] = []

    def op(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        shape: tuple[int, ...],
        quant_params: QuantParams | None = None,
        **fields,
    ) -> str:
        """Appends an operation of output `shape`; its grid is the input's or given."""
        quant_params = quant_params or self._quant_params[inputs[0]]
        self._ops.append(IntegerOp(name, kind, tuple(inputs), quant_params, **fields))
        self._shapes[name], self._quant_params[name] = shape, quant_params
        return name

    def kernel(
        self,
        name: str,
        kind: str,
        source: str,
        *,
        bits: int,
        quant_params: QuantParams = OUTPUT_GRID,
        **options,
    ) -> str:
        """An operation with a kernel of random levels and biases; `options` are
        `KernelOptions`."""
        chosen = KernelOptions(**options)
        height, width, channels = (1, 1, *self._shapes[source])[-3:]
        values_shape = chosen.values_shape(kind, channels)
        outputs = (
            int(np.prod(values_shape[2:]))
            if kind == "depthwise"
            else (values_shape[-1])
        )
        fan_in = int(np.prod(values_shape)) // outputs
        shape = chosen.output_shape(kind, height, width, outputs)
        lowest, highest = weight_levels(bits)
        values = self._rng.integers(lowest, highest + 1, values_shape)
        # An estimate for the accumulators, from inputs uniform over their grid.
        source_quant_params = self._quant_params[source]
        input_deviation = 74.0 * min(1.0, (127 - source_quant_params.zero_point) / 128)
        deviation = np.sqrt(fan_in) * input_deviation * values.std()
        spread = min(_OUTPUT_STEPS, (127 - quant_params.zero_point) / 2)
        factor = self._rng.uniform(0.7, 1.4, outputs) * spread / deviation
        kernel = Kernel(
            values=values.astype(np.int8),
            bits=bits,
            scale=coarse(
                factor * quant_params.scale / source_quant_params.scale
            ).astype(np.float32),
            bias=self._rng.normal(0, deviation / 2, outputs).astype(np.int32),
        )
        return self.op(
            name,
            kind,
            [source],
            shape,
            quant_params,
            relu=chosen.relu,
            relu6=chosen.relu6,
            kernel=kernel,
            attributes=chosen.attributes(kind),
        )

    def requantize(self, source: str) -> str:
        """The very integers of `source`, as a tensor on the output grid.

        A 1x1 depthwise convolution whose bias moves the zero point.
        """
        if len(self._shapes[source]) == 1:
            shape = (1, 1, *self._shapes[source])
            attributes = {"shape": list(shape)}
            source = self.op(
                f"{source}_image", "reshape", [source], shape, attributes=attributes
            )
        quant_params, channels = self._quant_params[source], self._shapes[source][-1]
        scale = coarse(OUTPUT_GRID.scale / quant_params.scale / 127)
        shift = (quant_params.zero_point - OUTPUT_GRID.zero_point) * 127
        kernel = Kernel(
            np.full((1, 1, channels, 1), 127, np.int8),
            8,
            np.full(channels, scale, np.float32),
            np.full(channels, shift, np.int32),
        )
        return self.op(
            f"{source}_requantized",
            "depthwise",
            [source],
            self._shapes[source],
            OUTPUT_GRID,
            kernel=kernel,
            attributes={"strides": [1, 1], "padding": "same", "dilation": [1, 1]},
        )

    def pool(
        self,
        name: str,
        kind: str,
        source: str,
        *,
        size: int,
        stride: int,
        padding: str = "valid",
    ) -> str:
        """An average_pool or max_pool operation."""
        height, width, channels = self._shapes[source]
        reach = size - 1 if padding == "valid" else 0
        spatial = [-(-(length - reach) // stride) for length in (height, width)]
        attributes = {
            "pool_size": [size, size],
            "strides": [stride, stride],
            "padding": padding,
        }
        return self.op(
            name, kind, [source], (*spatial, channels), attributes=attributes
        )

    def flatten(self, source: str) -> str:
        """A reshape of an image tensor to one dimension."""
        count = int(np.prod(self._shapes[source]))
        attributes = {"shape": [count]}
        return self.op(
            f"{source}_flat", "reshape", [source], (count,), attributes=attributes
        )

    def branch(self, name: str) -> None:
        """Makes a tensor part of the network's output, under its own name."""
        self._branches.append(name)

    def build(self) -> tuple[IntegerNetwork, dict[str, slice]]:
        """The network, and where in its output each branch lies."""
        flat, slices, start = [], {}, 0
        for name in self._branches:
            end = name
            if self._quant_params[name] != OUTPUT_GRID:
                end = self.requantize(name)
            count = int(np.prod(self._shapes[end]))
            if len(self._shapes[end]) > 1:
                end = self.flatten(end)
            flat.append(end)
            slices[name] = slice(start, start + count)
            start += count
        self.op("outputs", "concatenate", flat, (start,))
        return self.build_ops(), slices

    def build_ops(self) -> IntegerNetwork:
        """The network of the operations as they are, the last one its output."""
        return IntegerNetwork(
            "image", INPUT_SHAPE, INPUT_GRID, tuple(self._ops), softmax=False
        )


def random_images(count: int, seed: int = 0) -> np.ndarray:
    """Uniform int8 images (count, 8, 8, 4)."""
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (count, *INPUT_SHAPE)).astype(np.int8)
