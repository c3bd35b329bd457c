"""Figures of each layer of a quantized network, beside the float one."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from gdfq_tf.classifier import Classifier
from gdfq_tf.graph.queries import consumers
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.quantization.calibration import values_per_image
from gdfq_tf.quantization.student import Student
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.quantization_params import storage_bits
from tflite_export.target_kernels import infer_tensors

_NUM_IMAGES = 32


@dataclasses.dataclass(frozen=True)
class LayerFigures:
    """One layer, with the BatchNormalization and ReLU that are fused into it.

    Attributes:
      name: of the layer in the classifier.
      kind: of the integer operation.
      weight_bits: of its kernel, or None.
      weight_bytes: that its kernel and bias take in the file.
      scale, zero_point: of its output.
      signal_to_noise_db: power of the float network's output over that of the error,
        on synthetic images; of all layers before it besides.
    """

    name: str
    kind: str
    weight_bits: int | None
    weight_bytes: int
    scale: float
    zero_point: int
    signal_to_noise_db: float


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
        rich.console.Console(file=text, width=120).print(table)
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
    tensors = dict(_tensors(network, student, teacher))
    probe = keras.Model(
        teacher.model.input,
        [teacher.model.get_layer(name).output for name in tensors.values()],
    )
    signal = dict.fromkeys(tensors, 0.0)
    error = dict.fromkeys(tensors, 0.0)
    size = images_per_batch(2 * values_per_image(probe))
    for start in range(0, min(_NUM_IMAGES, len(pixels)), size):
        batch = pixels[start : min(start + size, _NUM_IMAGES)]
        outputs = probe(teacher.preprocessing.to_input(batch), training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        examples = network.examples(teacher.preprocessing.to_int8(batch))
        integers = infer_tensors(network, examples, tensors)
        for name, output in zip(tensors, outputs, strict=True):
            params = network.quant_params(name)
            steps = integers[name].astype(np.float64) - params.zero_point
            found = params.scale * steps
            expected = output.numpy().astype(np.float64)
            signal[name] += float(np.sum(expected**2))
            error[name] += float(np.sum((found - expected) ** 2))
    ops = {op.name: op for op in network.ops}
    return LayerTable(
        [_figures(ops, name, signal[name], error[name]) for name in tensors]
    )


def _tensors(
    network: IntegerNetwork, student: Student, teacher: Classifier
) -> Iterator[tuple[str, str]]:
    """Each layer's integer tensor, and the float layer that gives the same."""
    consumed_by = consumers(teacher.model)
    names = {op.name for op in network.ops}
    for op in network.ops:
        layer = op.name
        if layer not in consumed_by:  # a bound, or the sigmoid behind the logits
            continue
        while layer not in student.plan.tensor_groups:
            (following,) = consumed_by[layer]
            layer = following.name
        bound = f"{op.name}/bound"
        yield bound if bound in names else op.name, layer


def _figures(
    ops: dict[str, IntegerOp], tensor: str, signal: float, error: float
) -> LayerFigures:
    op = ops[tensor.removesuffix("/bound")]
    num_bytes = 0
    if op.kernel is not None:
        bits = storage_bits(op.kernel.bits)
        num_bytes = math.ceil(op.kernel.values.size * bits / 8) + op.kernel.bias.nbytes
    tiny = np.finfo(np.float64).tiny
    return LayerFigures(
        name=op.name,
        kind=op.kind,
        weight_bits=None if op.kernel is None else op.kernel.bits,
        weight_bytes=num_bytes,
        scale=op.quant_params.scale,
        zero_point=op.quant_params.zero_point,
        signal_to_noise_db=10 * math.log10((signal + tiny) / (error + tiny)),
    )
