"""Figures of each layer of a quantized network, beside the float one."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from gdfq_tf.classifier import Classifier
from gdfq_tf.graph.queries import consumers
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.quantization.calibration import values_per_image
from gdfq_tf.quantization.student import Student, shifted_layers
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.quantization_params import QuantParams, storage_bits
from tflite_export.target_kernels import infer_tensors

_NUM_IMAGES = 32
# Of each tensor, about: of the float network, integers, what they stand for, and what
# is computed of them.
_COPIES = 8
_WIDTH = 1000  # characters: nothing is cut off, and no line is longer than its cells


@dataclasses.dataclass(frozen=True)
class LayerFigures:
    """One layer, with the BatchNormalization and ReLU that are fused into it.

    Attributes:
      name: of the layer in the classifier.
      kind: of the integer operation.
      weight_bits: of its kernel, or None.
      activation_bits: of its output.
      weight_bytes: that its kernel and bias take in the file.
      scale, zero_point: of its output.
      signal_to_noise_db: power of the float network's output over that of the error,
        on synthetic images; of all layers before it besides.
      cosine: of the angle between both outputs, 1 where they point the same way.
      rmse_over_scale: root mean squared error in steps of the output, beside the float
        layer on the same quantized inputs: of this layer alone. Rounding the output
        costs 1 / sqrt(12) = 0.289; what is more comes of the kernel and of clipping.
      clipped: share, 0..1, of the float network's values that the output cannot hold.
    """

    name: str
    kind: str
    weight_bits: int | None
    activation_bits: int
    weight_bytes: int
    scale: float
    zero_point: int
    signal_to_noise_db: float
    cosine: float
    rmse_over_scale: float
    clipped: float


class LayerTable(Sequence[LayerFigures]):
    """One `LayerFigures` for each layer, in the order they are computed."""

    def __init__(self, rows: Sequence[LayerFigures]) -> None:
        """Takes the rows."""
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> LayerFigures: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[LayerFigures, ...]: ...

    def __getitem__(
        self, index: int | slice
    ) -> LayerFigures | tuple[LayerFigures, ...]:
        """A row, or several."""
        return self._rows[index]

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self._rows)

    def as_dicts(self) -> list[dict[str, object]]:
        """The rows as `pandas.DataFrame` and `json.dumps` take them."""
        return [dataclasses.asdict(row) for row in self._rows]

    def __repr__(self) -> str:
        """A table for terminals and notebooks."""
        import rich.box
        import rich.console
        import rich.table
        import rich.text

        table = rich.table.Table(box=rich.box.SIMPLE)
        names = [field.name for field in dataclasses.fields(LayerFigures)]
        for name in names:
            numeric = name not in ("name", "kind")
            table.add_column(name, justify="right" if numeric else "left")
        for row in self._rows:
            cells = (getattr(row, name) for name in names)
            table.add_row(*(rich.text.Text(_short(cell)) for cell in cells))
        text = io.StringIO()
        rich.console.Console(file=text, width=_WIDTH).print(table)
        return text.getvalue()


def _short(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def layer_figures(
    network: IntegerNetwork,
    student: Student,
    teacher: Classifier,
    pixels: npt.NDArray[np.uint8],
) -> LayerTable:
    """What the integer network computes, layer by layer, beside the float network.

    Args:
      network: in integers.
      student: that became it.
      teacher: the classifier that the student was built from.
      pixels: uint8 (N, H, W, C), not used by any step; the first few count.
    """
    pairs = list(_pairs(network, student, teacher))
    probe = keras.Model(
        teacher.model.input, [pair.float_layers[-1].output for pair in pairs]
    )
    sums = {pair.tensor: _Sums() for pair in pairs}
    size = images_per_batch(_COPIES * values_per_image(probe))
    for start in range(0, min(_NUM_IMAGES, len(pixels)), size):
        batch = pixels[start : min(start + size, _NUM_IMAGES)]
        outputs = probe(teacher.preprocessing.to_input(batch), training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        real = _real_tensors(network, pairs, teacher, batch)
        for pair, output in zip(pairs, outputs, strict=True):
            sums[pair.tensor].add(
                found=real[pair.tensor],
                expected=output.numpy(),
                alone=pair.of_inputs([real[name] for name in pair.operands]),
                quant_params=network.quant_params(pair.tensor),
            )
    groups, shared = student.plan.groups, student.plan.tensor_groups
    return LayerTable(
        [
            _figures(
                pair.op,
                groups[shared[pair.float_layers[-1].name]].bits,
                sums[pair.tensor],
            )
            for pair in pairs
        ]
    )


@dataclasses.dataclass(frozen=True)
class _Pair:
    """An integer operation and the float layers that compute the same.

    Attributes:
      op: the operation.
      tensor: its result, bounded.
      operands: the tensors that the first float layer takes.
      float_layers: one after the other, the first has the operation's name.
    """

    op: IntegerOp
    tensor: str
    operands: tuple[str, ...]
    float_layers: tuple[keras.layers.Layer, ...]

    def of_inputs(
        self, inputs: list[npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """What the float layers make of inputs (N, ...)."""
        first, *others = self.float_layers
        output = first(inputs if len(inputs) > 1 else inputs[0])
        for layer in others:
            output = layer(output)
        return np.asarray(output, np.float32)


def _pairs(
    network: IntegerNetwork, student: Student, teacher: Classifier
) -> Iterator[_Pair]:
    consumed_by = consumers(teacher.model)
    ops = {op.name: op for op in network.ops}
    for op in network.ops:
        if op.name not in consumed_by:  # a bound, or the sigmoid behind the logits
            continue
        layers = [teacher.model.get_layer(op.name)]
        while layers[-1].name not in student.plan.tensor_groups:
            (following,) = consumed_by[layers[-1].name]
            layers.append(following)
        bound = f"{op.name}/bound"
        tensor = bound if bound in ops else op.name
        yield _Pair(op, tensor, tuple(_operands(op, op.name, ops)), tuple(layers))


def _operands(op: IntegerOp, layer: str, ops: Mapping[str, IntegerOp]) -> list[str]:
    """What a layer takes that may have become several operations."""
    found: list[str] = []
    for name in op.inputs:
        if name.startswith(f"{layer}/"):
            inner = _operands(ops[name], layer, ops)
            found += [x for x in inner if x not in found]
        else:
            found.append(name)
    return found


def _real_tensors(
    network: IntegerNetwork,
    pairs: Sequence[_Pair],
    teacher: Classifier,
    pixels: npt.NDArray[np.uint8],
) -> dict[str, npt.NDArray[np.float32]]:
    """What the integers of all results and operands stand for, float32 (N, ...).

    As the float network has them: without the student's grid shift.
    """
    names = {pair.tensor for pair in pairs}
    names |= {name for pair in pairs for name in pair.operands}
    bits = network.activation_bits
    examples = network.examples(teacher.preprocessing.to_integers(pixels, bits))
    shift = teacher.preprocessing.grid_shift()
    shifted = shifted_layers(teacher.model)
    real = {}
    for name, integers in infer_tensors(network, examples, names).items():
        params = network.quant_params(name)
        steps = integers.astype(np.float32) - params.zero_point
        is_shifted = shift != 0.0 and name.removesuffix("/image") in shifted
        real[name] = np.float32(params.scale) * steps + np.float32(is_shifted * shift)
    return real


@dataclasses.dataclass
class _Sums:
    """Sums over all values of a layer's output so far; see `LayerFigures`."""

    signal: float = 0.0
    power: float = 0.0
    product: float = 0.0
    error: float = 0.0
    error_alone: float = 0.0
    clipped: int = 0
    count: int = 0

    def add(
        self,
        *,
        found: npt.NDArray[np.float32],
        expected: npt.NDArray[np.float32],
        alone: npt.NDArray[np.float32],
        quant_params: QuantParams,
    ) -> None:
        """Counts the values of a few images.

        Args:
          found: of the integer network.
          expected: of the float network.
          alone: of the float layer on the integer network's inputs.
          quant_params: of the integers.
        """
        a, b, c = found.ravel(), expected.ravel(), alone.ravel()
        half = quant_params.scale / 2
        beyond = (b < quant_params.low - half) | (b > quant_params.high + half)
        self.signal += _dot(b, b)
        self.power += _dot(a, a)
        self.product += _dot(a, b)
        self.error += _dot(a - b, a - b)
        self.error_alone += _dot(a - c, a - c)
        self.clipped += int(np.count_nonzero(beyond))
        self.count += a.size


def _dot(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """The scalar product, summed in float64 without copies."""
    return float(np.einsum("i,i->", a, b, dtype=np.float64))


def _figures(op: IntegerOp, activation_bits: int, sums: _Sums) -> LayerFigures:
    num_bytes = 0
    if op.kernel is not None:
        bits = storage_bits(op.kernel.bits)
        num_bytes = math.ceil(op.kernel.values.size * bits / 8) + op.kernel.bias.nbytes
    tiny = np.finfo(np.float64).tiny
    scale = op.quant_params.scale
    return LayerFigures(
        name=op.name,
        kind=op.kind,
        weight_bits=None if op.kernel is None else op.kernel.bits,
        activation_bits=activation_bits,
        weight_bytes=num_bytes,
        scale=scale,
        zero_point=op.quant_params.zero_point,
        signal_to_noise_db=10 * math.log10((sums.signal + tiny) / (sums.error + tiny)),
        cosine=sums.product / math.sqrt(sums.signal * sums.power + tiny),
        rmse_over_scale=math.sqrt(sums.error_alone / max(sums.count, 1)) / scale,
        clipped=sums.clipped / max(sums.count, 1),
    )
