"""An integer network as calls of C functions, their constants and their memory.

Each kind of operation has one function here that writes its call. The calls compute
what `litert/simulator.py` does, bit by bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tflite_export.c99.arena import ALIGNMENT, Buffer, Plan, plan_arena
from tflite_export.c99.literals import Constant, array, structure, structures
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Shape, kernel_of
from tflite_export.litert.fixed_point import fixed_multiplier
from tflite_export.litert.kernels import (
    first_in_scalar_code,
    fixed_multipliers,
    float_multipliers,
    uses_double_rounding,
)
from tflite_export.litert.prelu import prelu_factors
from tflite_export.litert.resize import neighbours
from tflite_export.litert.rounding import activation_bounds
from tflite_export.litert.simulator import (
    SIMULATIONS,
    mean_factors,
    product_multiplier,
    sum_multipliers,
)
from tflite_export.litert.softmax import exponentials_table
from tflite_export.operators.activations import slope_levels
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import (
    BETWEEN_0_AND_1,
    INT8_MAX,
    INT8_MIN,
    QuantParams,
    storage_bits,
)
from tflite_export.tensor_shapes import tensor_shapes

_SCRATCH = "scratch of step"
# How weights lie in words, and how sums become outputs.
_STORED = ("int8", "int4")
_FINISHES = (
    *("float", "quick_float", "bounded_float"),
    *("fixed", "quick_fixed", "bounded_fixed"),
)
# Of so few pairs of inputs, products are taken without a loop.
_FEW_PAIRS = range(1, 7)
# Positions from which on it is worth while to lay out a plane of pairs; see `plane.c`.
_PLANE_POSITIONS = 64
# Functions of two values each.
_COMBINED = ("weighted_sum", "product", "maximum", "minimum")
# Of 1.5 * 2^23, a float32.
_MOVED_BITS = 0x4B400000
# The quick ways take no product from here on, far beyond all int8.
_FAR = 2**21
# Kinds whose windows may reach over the edge of an image.
_PADDING_KINDS = frozenset({"conv", "depthwise"})
# Parts of the code -> those that they need, in the order of a program. What follows a
# colon fills in the file of the name before it.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "pairs": (),
    "four": ("pairs",),
    "rounded": (),
    "round_within": (),
    "scaling": (),
    "scale_without_floats": ("scaling",),
    "finish_float": ("scale_without_floats", "rounded", "round_within"),
    "scale_quickly": ("scale_without_floats",),
    "quick_float": ("scale_quickly", "rounded"),
    "finish_fixed": ("scaling",),
    "quick_fixed": ("scaling",),
    "saturate": (),
    "within": ("scaling",),
    **{f"finish_quick_{x}": (f"quick_{x}", "saturate") for x in ("float", "fixed")},
    **{f"finish_bounded_{x}": (f"quick_{x}", "within") for x in ("float", "fixed")},
    "mve": ("pairs",),
    "finish_vector": ("mve", "scaling"),
    **{f"store_four:{x}": (f"finish_{x}", "finish_vector") for x in _FINISHES},
    "fixed_point": (),
    "window": (),
    "taps": ("window",),
    "find_window": ("window",),
    "copy_patch": ("find_window",),
    "linear_types": ("scaling",),
    "widen": ("four",),
    "weights_int8": ("pairs",),
    "weights_int4": ("pairs",),
    "unrolled": (),
    "vector_int8": ("mve",),
    "vector_int4": ("mve", "unrolled"),
    **{f"dot:{x}": (f"weights_{x}", f"vector_{x}") for x in _STORED},
    **{f"dot_long:{x}": (f"dot:{x}", "linear_types") for x in _STORED},
    **{
        f"linear:{dot}{stored}:{finish}": (
            "linear_types",
            f"dot{long}:{stored}",
            f"store_four:{finish}",
        )
        for stored in _STORED
        for dot, long in (("", ""), ("long_", "_long"))
        for finish in _FINISHES
    },
    **{f"dot_row:{x}": ("four", f"weights_{x}") for x in _STORED},
    **{f"dot_row_long:{x}": (f"dot_row:{x}", "linear_types") for x in _STORED},
    **{
        f"dense:{dot}{stored}:{finish}": (
            "linear_types",
            f"dot_row{long}:{stored}",
            f"finish_{finish}",
        )
        for stored in _STORED
        for dot, long in (("", ""), ("long_", "_long"))
        for finish in _FINISHES
    },
    "rows": ("linear_types", "widen"),
    "conv": ("linear_types", "widen", "copy_patch"),
    **{
        f"few:{stored}:{finish}:{pairs}": (
            "linear_types",
            "unrolled",
            f"weights_{stored}",
            f"finish_{finish}",
        )
        for stored in _STORED
        for finish in _FINISHES
        for pairs in _FEW_PAIRS
    },
    **{
        f"{name}_few:{which}": (*needs, f"few:{which}")
        for name, needs in (("rows", ("four",)), ("conv", ("copy_patch",)))
        for which in (
            f"{stored}:{finish}:{pairs}"
            for stored in _STORED
            for finish in _FINISHES
            for pairs in _FEW_PAIRS
        )
    },
    "depthwise_types": ("scaling", "taps"),
    "add_four": ("four",),
    "unpack_int8": ("pairs",),
    "unpack_int4": ("pairs",),
    **{
        f"four_channels:{x}": ("add_four", "finish_vector", f"finish_{x}")
        for x in _FINISHES
    },
    **{
        f"depthwise:{stored}:{finish}": (
            "depthwise_types",
            f"unpack_{stored}",
            f"four_channels:{finish}",
        )
        for stored in _STORED
        for finish in _FINISHES
    },
    "plane": ("pairs", "scaling", "window"),
    **{f"nine_{x}": ("pairs",) for x in _STORED},
    "add_row": ("pairs",),
    **{
        f"depthwise_3x3:{stored}:{finish}": (
            "plane",
            f"nine_{stored}",
            "add_row",
            f"finish_{finish}",
        )
        for stored in _STORED
        for finish in _FINISHES
    },
    "look_up": (),
    "broadcast": (),
    "weighted_sum": (),
    "product": ("rounded", "round_within"),
    "maximum": (),
    "minimum": (),
    **{f"combine:{x}": ("broadcast", x) for x in _COMBINED},
    "pool": ("window",),
    "largest": ("pool",),
    "mean": ("pool",),
    "average": ("rounded", "round_within"),
    "l2_normalize": (),
    "prelu": ("fixed_point",),
    "permute": (),
    "blocks": (),
    "copy_block": (),
    "pad": ("copy_block",),
    "resize": (),
    "softmax": (),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What an operation reads or writes.

    Attributes:
      name: of the tensor.
      shape: without batch.
      quant_params: of its integers.
    """

    name: str
    shape: Shape
    quant_params: QuantParams

    @property
    def size(self) -> int:
        """Its values, a byte each."""
        return math.prod(self.shape)

    @property
    def image_shape(self) -> Shape:
        """(height, width, channels) of images, signals and rows."""
        return (*(1 for _ in range(3 - len(self.shape))), *self.shape)


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation in C.

    Attributes:
      statements: with {in0}, {in1} ... for inputs, {out} for the output and {scratch}
        for memory of its own; none where nothing is to be done.
      sources: files of `kernels/` that they need directly.
      constants: declarations.
      scratch: bytes of that memory, which is given as words.
      num_taps: of a window whose taps are found one by one.
      in_place: input whose memory the output may have, or None.
    """

    statements: tuple[str, ...]
    sources: tuple[str, ...]
    constants: tuple[Constant, ...] = ()
    scratch: int = 0
    num_taps: int = 0
    in_place: int | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """A call with its memory.

    Attributes:
      name: of its output.
      kind: of the operation.
      statements: C, complete.
      constants: that they name.
    """

    name: str
    kind: str
    statements: tuple[str, ...]
    constants: tuple[Constant, ...]

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.name} ({self.kind})"


@dataclasses.dataclass(frozen=True)
class Program:
    """A network in C.

    Attributes:
      steps: in order.
      plan: of the arena.
      sources: files of `kernels/` that it needs, in an order that compiles.
      input: what it takes.
      output: what it gives.
      max_taps: of windows whose taps are found one by one.
    """

    steps: tuple[Step, ...]
    plan: Plan
    sources: tuple[str, ...]
    input: Tensor
    output: Tensor
    max_taps: int


@dataclasses.dataclass(frozen=True)
class _Draft:
    """A call before its memory is known: `name` of its output, `inputs` by name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    call: Call


Writer = Callable[[IntegerOp, Sequence[Tensor], Tensor, str], Call]


def make_program(network: IntegerNetwork) -> Program:
    """The network in C."""
    tensors = {
        name: Tensor(name, shape[1:], network.quant_params(name))
        for name, shape in tensor_shapes(network).items()
    }
    drafts = []
    for number, op in enumerate(_without_pads(network.ops)):
        call = WRITERS[op.kind](
            op, [tensors[x] for x in op.inputs], tensors[op.name], f"op{number}"
        )
        drafts.append(_Draft(op.name, op.kind, op.inputs, call))
    output = tensors[network.ops[-1].name]
    if network.softmax:
        table = exponentials_table(output.quant_params.scale)
        call = Call(
            (f"softmax(exponentials, {{in0}}, {output.size}, {{out}});",),
            ("softmax",),
            (array("float", "exponentials", table),),
        )
        # No tensor of a network has a name with a blank at its end.
        name = f"{output.name} "
        drafts.append(_Draft(name, "softmax", (output.name,), call))
        output = Tensor(name, output.shape, BETWEEN_0_AND_1)
        tensors[name] = output
    return _with_memory(drafts, tensors, tensors[network.input_name], output)


def _without_pads(ops: Sequence[IntegerOp]) -> list[IntegerOp]:
    """Windows reach over the edge themselves where they read a padded image.

    They say so by an attribute more, `margins`.
    """
    readers: dict[str, list[str]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op.kind)
    absorbed = {
        op.name: op
        for op in ops
        if op.kind == "pad" and {*readers.get(op.name, ["nothing"])} <= _PADDING_KINDS
    }
    found = []
    for op in ops:
        if op.name in absorbed:
            continue
        padded = absorbed.get(op.inputs[0])
        if padded is not None:
            attributes = {**op.attributes, "margins": padded.attributes["pads"]}
            op = dataclasses.replace(op, inputs=padded.inputs, attributes=attributes)
        found.append(op)
    return found


def _with_memory(
    drafts: Sequence[_Draft],
    tensors: Mapping[str, Tensor],
    source: Tensor,
    output: Tensor,
) -> Program:
    last_read = {source.name: -1, output.name: len(drafts)}
    for step, draft in enumerate(drafts):
        for name in draft.inputs:
            last_read[name] = max(step, last_read.get(name, -1))
    owner = _owners(drafts, source.name, last_read)
    elsewhere = {source.name, owner[output.name]}
    plan = plan_arena(_buffers(drafts, tensors, owner, last_read, elsewhere))

    def place_of(name: str) -> str:
        if owner[name] == source.name:
            return "input"
        if owner[name] == owner[output.name]:
            return "output"
        return f"arena + {plan.offsets[owner[name]]}"

    steps = []
    for step, draft in enumerate(drafts):
        places = {f"in{i}": place_of(name) for i, name in enumerate(draft.inputs)}
        places["out"] = place_of(draft.name)
        if draft.call.scratch:
            offset = plan.offsets[f"{_SCRATCH} {step}"]
            places["scratch"] = f"memory + {offset // ALIGNMENT}"
        statements = tuple(x.format(**places) for x in draft.call.statements)
        if statements:
            steps.append(Step(draft.name, draft.kind, statements, draft.call.constants))
    if owner[output.name] == source.name:
        statement = f"memcpy(output, input, {output.size});"
        steps.append(Step(output.name, "the input as it is", (statement,), ()))
    needed = _closure(source for draft in drafts for source in draft.call.sources)
    return Program(
        tuple(steps),
        plan,
        tuple(name for name in _NEEDS if name in needed),
        source,
        output,
        max(draft.call.num_taps for draft in drafts),
    )


def _owners(
    drafts: Sequence[_Draft], source: str, last_read: Mapping[str, int]
) -> dict[str, str]:
    """Tensor -> the first of those that lie in its place."""
    owner = {source: source}
    for step, draft in enumerate(drafts):
        place, owner[draft.name] = draft.call.in_place, draft.name
        if place is None:
            continue
        taken = owner[draft.inputs[place]]
        others_read = any(
            last_read.get(name, -1) > step for name in owner if owner[name] == taken
        )
        # The input is the caller's, and is only read.
        may_write = taken != source and not others_read
        if may_write or not draft.call.statements:
            owner[draft.name] = taken
    return owner


def _buffers(
    drafts: Sequence[_Draft],
    tensors: Mapping[str, Tensor],
    owner: Mapping[str, str],
    last_read: Mapping[str, int],
    elsewhere: Collection[str],
) -> list[Buffer]:
    """Memory that the arena has to have; of owners `elsewhere` it has none."""
    written: dict[str, int] = {}
    read: dict[str, int] = {}
    found = []
    for step, draft in enumerate(drafts):
        name = owner[draft.name]
        written.setdefault(name, step)
        read[name] = max(read.get(name, step), last_read.get(draft.name, step))
        if draft.call.scratch:
            found.append(Buffer(f"{_SCRATCH} {step}", draft.call.scratch, step, step))
    found += [
        Buffer(name, tensors[name].size, step, read[name])
        for name, step in written.items()
        if name not in elsewhere
    ]
    return found


def _closure(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _NEEDS[name]
    return found


def _relative_bounds(op: IntegerOp) -> tuple[int, int]:
    """Of outputs without their zero point."""
    low, high = activation_bounds(op)
    return low - op.quant_params.zero_point, high - op.quant_params.zero_point


def _sums(op: IntegerOp, source: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of each output channel its bias, with what the zero point of the input adds.

    Beside it, how large sums become: int64 (outputs,) each. A bias that makes outputs
    reach a bound whatever the inputs are is no larger than it takes.
    """
    kernel = kernel_of(op)
    # Output channels lie last; depthwise kernels have them on two dimensions.
    taps = kernel.values.reshape(-1, len(kernel.scale)).astype(np.int64)
    bias = kernel.bias - source.quant_params.zero_point * taps.sum(axis=0)
    largest_products = -INT8_MIN * np.abs(taps).sum(axis=0)
    low, high = _relative_bounds(op)
    multipliers = float_multipliers(op, source.quant_params).astype(np.float64)
    bias = np.clip(
        bias,
        np.floor((low - 1) / multipliers) - largest_products,
        np.ceil((high + 1) / multipliers) + largest_products,
    ).astype(np.int64)
    return bias, np.abs(bias) + largest_products


def _scaling(
    op: IntegerOp, source: Tensor, name: str, begins: np.ndarray
) -> tuple[str, str, tuple[Constant, ...]]:
    """How sums are finished, the structure that says how, and declarations.

    Those are of the structure and of `{name}_channels`. There is one more channel where
    a group, read in pairs, has an odd one.

    Args:
      op: with a kernel.
      source: its input.
      name: of the constants.
      begins: int64 (outputs,), what the sums of each channel begin with.
    """
    kernel = kernel_of(op)
    _, largest_sums = _sums(op, source)
    zero_point = op.quant_params.zero_point
    columns: tuple[np.ndarray, ...]
    if uses_double_rounding(op.kind, kernel):
        finish, size = "fixed", 12
        mantissas, exponents = fixed_multipliers(op, source.quant_params)
        # 2^31 itself is one bit too many.
        too_large = mantissas == 2**31
        mantissas = np.where(too_large, 2**30, mantissas).astype(np.int64)
        exponents = exponents + too_large
        # Of these, no sum comes to half a unit.
        tiny = exponents < -31
        mantissas[tiny], exponents[tiny] = 0, -1
        away = np.arange(len(begins)) >= first_in_scalar_code(op)
        columns = (begins, mantissas, exponents, away.astype(np.int64))
        quick = np.all((exponents < 0) & ~away)
    else:
        finish, size = "float", 8
        multipliers = float_multipliers(op, source.quant_params)
        columns = (begins, multipliers)
        far = largest_sums * multipliers.astype(np.float64) >= _FAR
        quick = np.all((multipliers >= 2.0**-31) & (multipliers < 1) & ~far)
    lowest, highest = activation_bounds(op)
    if quick:
        full = (lowest, highest) == (INT8_MIN, INT8_MAX)
        finish = f"{'quick' if full else 'bounded'}_{finish}"
    channels = [*zip(*columns, strict=True)]
    if len(begins) // op.attributes.get("groups", 1) % 2:
        channels.append((0, *channels[-1][1:]))
    declarations = (
        structures(f"{finish}_channel_t", f"{name}_channels", channels, size),
        structure(
            "scaling_t",
            f"{name}_scaling",
            zero_point=zero_point,
            from_bits=zero_point - _MOVED_BITS,
            lowest=lowest,
            highest=highest,
            low=float(lowest - zero_point),
            high=float(highest - zero_point),
        ),
    )
    return finish, f"{name}_scaling", declarations


def _linear(
    op: IntegerOp, source: Tensor, name: str, matrix: np.ndarray
) -> tuple[tuple[Constant, ...], str, str]:
    """Declarations of a `linear_t`, how its sums are taken and how they are finished.

    `matrix`: int8 (groups, inputs, outputs of each).
    """
    stored = f"int{storage_bits(kernel_of(op).bits)}"
    begins, largest_sums = _sums(op, source)
    # Channels that two groups have in one pair would have to begin with two values.
    in_pairs = len(matrix) == 1 or matrix.shape[2] % 2 == 0
    if largest_sums.max() < _MAX_SUMS[stored] and in_pairs:
        dot, begins = stored, _BEGINS[stored](begins)
    else:
        dot = f"long_{stored}"
    finish, scaling, declarations = _scaling(op, source, name, begins)
    groups, inputs, outputs = matrix.shape
    pads = ((0, 0), (0, -inputs % 4), (0, -outputs % 2))
    padded = np.pad(matrix.astype(np.int64), pads)
    # (groups, pairs of outputs, fours of inputs, inputs, outputs)
    fours = padded.reshape(groups, -1, 4, padded.shape[2] // 2, 2)
    words = _WORDS[stored](fours.transpose(0, 3, 1, 2, 4))
    declarations += (
        array("uint32_t", f"{name}_weights", words),
        structure(
            "linear_t",
            f"{name}_linear",
            scaling=f"&{scaling}",
            weights=f"{name}_weights",
            channels=f"{name}_channels",
            inputs=inputs,
            outputs=outputs,
            stride=words[0, 0].size,
        ),
    )
    return declarations, dot, finish


def _begins_of_int8(bias: np.ndarray) -> np.ndarray:
    """See `weights_int8.c`; modulo 2^32."""
    begins = bias.copy()
    begins[0::2] *= 256
    begins[0 : 2 * (len(bias) // 2) : 2] += bias[1::2]
    return (begins + 2**31) % 2**32 - 2**31


def _begins_of_int4(bias: np.ndarray) -> np.ndarray:
    """See `weights_int4.c`."""
    return 4096 * bias


_BEGINS = {"int8": _begins_of_int8, "int4": _begins_of_int4}


def _words_of_int8(weights: np.ndarray) -> np.ndarray:
    """(..., 4 inputs, 2 outputs) -> (..., 2), see `weights_int8.c`."""
    halves = 256 * weights[..., 0] + weights[..., 1]
    return _halves_joined(halves[..., [0, 1]], halves[..., [2, 3]])


def _words_of_int4(weights: np.ndarray) -> np.ndarray:
    """(..., 4 inputs, 2 outputs) -> (...), see `weights_int4.c`."""
    four_bits = weights & 15
    pairs = 16 * four_bits[..., 0] + four_bits[..., 1]
    halves = 256 * pairs[..., [0, 2]] + pairs[..., [1, 3]]
    return _halves_joined(halves[..., 0], halves[..., 1])


_WORDS = {"int8": _words_of_int8, "int4": _words_of_int4}
# What sums have to stay below to be exact; see `weights_int8.c`, `weights_int4.c`.
_MAX_SUMS = {"int8": 2**23, "int4": 2**19}


def _halves_joined(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return (lower & 0xFFFF) | (upper & 0xFFFF) << 16


def _few_pairs(dot: str, inputs: int) -> int | None:
    """Pairs of inputs, if they are few; see `few.c`.

    Those of four inputs are 0 and 2, 1 and 3.
    """
    pairs = inputs // 4 * 2 + min(2, inputs % 4)
    return pairs if pairs in _FEW_PAIRS and not dot.startswith("long") else None


def _window(
    op: IntegerOp, source: Tensor, output: Tensor, size: Sequence[int], name: str
) -> Constant:
    height, width, channels = source.image_shape
    dilation = op.attributes.get("dilation", (1, 1))
    strides, positions = op.attributes["strides"], output.image_shape[:2]
    margins = op.attributes.get("margins", ((0, 0), (0, 0)))
    before = [margin[0] for margin in margins]
    if op.attributes["padding"] == "same":
        before = [
            margin[0]
            + max(
                0,
                (count - 1) * stride + (taps - 1) * step + 1 - length - sum(margin),
            )
            // 2
            for margin, count, stride, taps, step, length in zip(
                margins,
                positions,
                strides,
                size,
                dilation,
                (height, width),
                strict=True,
            )
        ]
    return structure(
        "window_t",
        f"{name}_window",
        height=height,
        width=width,
        channels=channels,
        kernel_height=size[0],
        kernel_width=size[1],
        stride_y=strides[0],
        stride_x=strides[1],
        dilation_y=dilation[0],
        dilation_x=dilation[1],
        top=before[0],
        left=before[1],
        out_height=positions[0],
        out_width=positions[1],
        zero_point=source.quant_params.zero_point,
    )


def _conv(op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str) -> Call:
    (source,) = inputs
    values, groups = kernel_of(op).values, op.attributes.get("groups", 1)
    height, width, depth, outputs = values.shape
    matrix = values.reshape(-1, groups, outputs // groups).transpose(1, 0, 2)
    single = (height, width) == (1, 1) and list(op.attributes["strides"]) == [1, 1]
    if single and groups == 1 and "margins" not in op.attributes:
        return _rows(op, source, output, name, matrix)
    constants, dot, finish = _linear(op, source, name, matrix)
    window = _window(op, source, output, (height, width), name)
    patch = height * width * depth
    pairs = _few_pairs(dot, patch) if groups == 1 else None
    if pairs:
        few = f"conv_few:{dot}:{finish}:{pairs}"
        return Call(
            (
                f"{_function(few)}(&{name}_linear, &{name}_window, {name}_offsets, "
                "{in0}, (int8_t *)({scratch}), {out});",
            ),
            (few,),
            (*constants, window, _offsets(op, source, pairs, name)),
            scratch=patch,
        )
    linear = f"linear:{dot}:{finish}"
    return Call(
        (
            f"conv({_function(linear)}, &{name}_linear, &{name}_window, {groups}, "
            "{in0}, {scratch}, {out});",
        ),
        ("conv", linear),
        (*constants, window),
        scratch=_column_bytes(patch) + patch,
    )


def _offsets(op: IntegerOp, source: Tensor, pairs: int, name: str) -> Constant:
    """Where the inputs of each pair lie on an image, and in a patch of one window."""
    height, width, depth, _ = kernel_of(op).values.shape
    step_y, step_x = op.attributes.get("dilation", (1, 1))
    _, image_width, channels = source.image_shape
    y, x, channel = np.indices((height, width, depth))
    on_image = ((step_y * y * image_width + step_x * x) * channels + channel).ravel()
    fours = np.arange(-(-on_image.size // 4) * 4).reshape(-1, 2, 2).transpose(0, 2, 1)
    # What is not there has weights of zero.
    inputs = np.minimum(fours.ravel()[: 2 * pairs], on_image.size - 1)
    return array("int32_t", f"{name}_offsets", np.stack([on_image[inputs], inputs]))


def _column_bytes(inputs: int) -> int:
    """Of two positions, in pairs of 16 bits."""
    return -(-inputs // 4) * 16


def _rows(
    op: IntegerOp, source: Tensor, output: Tensor, name: str, matrix: np.ndarray
) -> Call:
    """Of inputs as they lie, each row times the one matrix."""
    _, inputs, outputs = matrix.shape
    constants, dot, finish = _linear(op, source, name, matrix)
    count = output.size // outputs
    if count == 1:
        dense = f"dense:{dot}:{finish}"
        call = f"{_function(dense)}(&{name}_linear, {{}}, {{{{out}}}});"
        if inputs % 4 == 0:
            return Call((call.format("{in0}"),), (dense,), constants)
        # Room for whole fours; what lies behind the inputs has weights of zero.
        copy = f"memcpy({{scratch}}, {{in0}}, {inputs});"
        call = call.format("(int8_t *)({scratch})")
        return Call((copy, call), (dense,), constants, scratch=inputs)
    pairs = _few_pairs(dot, inputs)
    if pairs and inputs % 4 == 0:
        few = f"rows_few:{dot}:{finish}:{pairs}"
        statement = f"{_function(few)}(&{name}_linear, {{in0}}, {count}, {{out}});"
        return Call((statement,), (few,), constants)
    linear = f"linear:{dot}:{finish}"
    statement = (
        f"rows({_function(linear)}, &{name}_linear, {{in0}}, {count}, {{scratch}}, "
        "{out});"
    )
    return Call(
        (statement,), ("rows", linear), constants, scratch=_column_bytes(inputs)
    )


def _function(part: str) -> str:
    """The function that a part of the code defines."""
    name, *filled = part.split(":")
    if name.endswith("few"):
        *filled, pairs = filled
        name += pairs
    return "_".join([name, *filled])


def _dense(op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str) -> Call:
    return _rows(op, inputs[0], output, name, kernel_of(op).values[np.newaxis])


def _depthwise(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    (source,) = inputs
    kernel = kernel_of(op)
    height, width, channels, multiplier = kernel.values.shape
    stored = f"int{storage_bits(kernel.bits)}"
    biases, _ = _sums(op, source)
    finish, scaling, constants = _scaling(op, source, name, biases)
    taps, outputs = height * width, channels * multiplier
    values = kernel.values.reshape(taps, outputs).astype(np.int64)
    window = _window(op, source, output, (height, width), name)
    if _has_plane(op, output):
        part = f"depthwise_3x3:{stored}:{finish}"
        rows, words = _plane_shape(op, output)
        constants += (
            array("uint8_t", f"{name}_weights", _NINES[stored](values.T)),
            structure(
                "depthwise_3x3_t",
                f"{name}_depthwise",
                scaling=f"&{scaling}",
                weights=f"{name}_weights",
                channels=f"{name}_channels",
                multiplier=multiplier,
                words=words,
            ),
            window,
        )
        return Call(
            (_depthwise_statement(part, name),), (part,), constants, 4 * rows * words
        )
    padded = np.pad(values, ((0, 0), (0, -outputs % 4)))
    # (fours of outputs, taps, 4)
    fours = padded.reshape(taps, -1, 4).transpose(1, 0, 2)
    part = f"depthwise:{stored}:{finish}"
    constants += (
        array("uint32_t", f"{name}_weights", _WORDS_OF_FOURS[stored](fours)),
        structure(
            "depthwise_t",
            f"{name}_depthwise",
            scaling=f"&{scaling}",
            weights=f"{name}_weights",
            channels=f"{name}_channels",
            multiplier=multiplier,
        ),
        window,
    )
    return Call(
        (_depthwise_statement(part, name),),
        (part,),
        constants,
        scratch=8 * taps * len(fours) + channels,
        num_taps=taps,
    )


def _depthwise_statement(part: str, name: str) -> str:
    return (
        f"{_function(part)}(&{name}_depthwise, &{name}_window, {{in0}}, {{scratch}}, "
        "{out});"
    )


def _has_plane(op: IntegerOp, output: Tensor) -> bool:
    """Whether channels are laid out one by one; see `plane.c`."""
    height, width, _ = output.image_shape
    return (
        kernel_of(op).values.shape[:2] == (3, 3)
        and op.attributes["strides"][1] == 1
        and tuple(op.attributes.get("dilation", (1, 1))) == (1, 1)
        and height * width >= _PLANE_POSITIONS
    )


def _plane_shape(op: IntegerOp, output: Tensor) -> tuple[int, int]:
    """Rows of a plane, and the words of each: windows are taken two at a time."""
    height, width, _ = output.image_shape
    return (height - 1) * op.attributes["strides"][0] + 3, -(-width // 2) + 1


def _nines_of_int8(nines: np.ndarray) -> np.ndarray:
    """(outputs, 9) -> the same, see `nine_int8.c`."""
    return nines & 255


def _nines_of_int4(nines: np.ndarray) -> np.ndarray:
    """(outputs, 9) -> (outputs, 5), see `nine_int4.c`."""
    even = np.pad(nines & 15, ((0, 0), (0, 1)))
    return even[:, 0::2] | even[:, 1::2] << 4


_NINES = {"int8": _nines_of_int8, "int4": _nines_of_int4}


def _fours_of_int8(fours: np.ndarray) -> np.ndarray:
    """(..., taps, 4 outputs) -> (..., taps), see `unpack_int8.c`."""
    return ((fours & 255) << np.arange(0, 32, 8)).sum(axis=-1)


def _fours_of_int4(fours: np.ndarray) -> np.ndarray:
    """(fours, taps, 4 outputs) -> (fours, half of the taps), see `unpack_int4.c`."""
    halves = ((fours & 15) << np.arange(0, 16, 4)).sum(axis=-1)
    even = np.pad(halves, ((0, 0), (0, halves.shape[1] % 2)))
    return _halves_joined(even[:, 0::2], even[:, 1::2])


_WORDS_OF_FOURS = {"int8": _fours_of_int8, "int4": _fours_of_int4}


def _look_up(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    (source,) = inputs
    levels = tf.constant(np.arange(INT8_MIN, INT8_MAX + 1), tf.float64)
    operand = Operand(levels, source.quant_params)
    table = np.asarray(SIMULATIONS[op.kind].run(op, operand)).astype(np.int8)
    return Call(
        (f"look_up({name}_table, {{in0}}, {output.size}, {{out}});",),
        ("look_up",),
        (array("int8_t", f"{name}_table", table),),
        in_place=0,
    )


def _combined(function: str, how: Callable[..., tuple[Constant, ...]]) -> Writer:
    """Writers of operations on two tensors; `how` declares what they compute with."""

    def write(
        op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
    ) -> Call:
        first, second = inputs
        constants = how(op, first, second, name)
        given = f"&{name}_how" if constants else "NULL"
        shape = (*(1 for _ in range(4 - len(output.shape))), *output.shape)
        meets = structure(
            "broadcast_t",
            f"{name}_shapes",
            sizes=shape,
            first=_steps(first.shape, shape),
            second=_steps(second.shape, shape),
        )
        place = next((i for i in (0, 1) if inputs[i].size == output.size), None)
        part = f"combine:{function}"
        return Call(
            (
                f"{_function(part)}({given}, &{name}_shapes, {{in0}}, {{in1}}, "
                "{out});",
            ),
            (part,),
            (*constants, meets),
            in_place=place,
        )

    return write


def _steps(shape: Shape, output: Shape) -> list[int]:
    """How far apart neighbours lie, 0 along dimensions that are repeated."""
    full = (*(1 for _ in range(len(output) - len(shape))), *shape)
    steps = [math.prod(full[i + 1 :]) for i in range(len(full))]
    return [0 if size == 1 else step for size, step in zip(full, steps, strict=True)]


def _sum_constants(sign: int) -> Callable[..., tuple[Constant, ...]]:
    def declare(
        op: IntegerOp, first: Tensor, second: Tensor, name: str
    ) -> tuple[Constant, ...]:
        taken = [first.quant_params, second.quant_params]
        multipliers, shift = sum_multipliers(op, taken)
        factors = (multipliers[0], sign * multipliers[1])
        offset = sum(
            factor * x.zero_point for factor, x in zip(factors, taken, strict=True)
        )
        low, high = _relative_bounds(op)
        return (
            structure(
                "weighted_sum_t",
                f"{name}_how",
                first=factors[0],
                second=factors[1],
                bias=(1 << (shift - 1)) - offset,
                shift=shift,
                zero_point=op.quant_params.zero_point,
                low=low,
                high=high,
            ),
        )

    return declare


def _product_constants(
    op: IntegerOp, first: Tensor, second: Tensor, name: str
) -> tuple[Constant, ...]:
    low, high = _relative_bounds(op)
    return (
        structure(
            "product_t",
            f"{name}_how",
            first=first.quant_params.zero_point,
            second=second.quant_params.zero_point,
            multiplier=product_multiplier(op, first.quant_params, second.quant_params),
            zero_point=op.quant_params.zero_point,
            low=float(low),
            high=float(high),
        ),
    )


def _pool(reduce: str) -> Writer:
    def write(
        op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
    ) -> Call:
        low, high = activation_bounds(op)
        window = _window(op, inputs[0], output, op.attributes["pool_size"], name)
        return Call(
            (f"pool({reduce}, &{name}_window, {low}, {high}, {{in0}}, {{out}});",),
            (reduce, "pool"),
            (window,),
        )

    return write


def _average(of_channels: bool) -> Writer:
    def write(
        op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
    ) -> Call:
        (source,) = inputs
        channels = source.shape[-1]
        positions = source.size // channels
        count, step = (channels, 1) if of_channels else (positions, channels)
        outputs, between = (positions, channels) if of_channels else (channels, 1)
        multiplier, bias = mean_factors(op, source.quant_params, count)
        how = structure(
            "average_t",
            f"{name}_average",
            multiplier=multiplier,
            bias=bias,
            outputs=outputs,
            between=between,
            count=count,
            step=step,
        )
        statement = f"average(&{name}_average, {{in0}}, {{out}});"
        return Call((statement,), ("average",), (how,))

    return write


def _l2_normalize(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    channels, attributes = output.shape[-1], op.attributes
    how = structure(
        "l2_normalize_t",
        f"{name}_how",
        channels=channels,
        zero_point=inputs[0].quant_params.zero_point,
        constants=attributes["num_constants"] * attributes["constant_level"] ** 2,
    )
    rows = output.size // channels
    statement = f"l2_normalize(&{name}_how, {{in0}}, {rows}, {{out}});"
    return Call((statement,), ("l2_normalize",), (how,), in_place=0)


def _prelu(op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str) -> Call:
    (source,) = inputs
    slopes = slope_levels(op, output.shape).reshape(-1)
    factors = prelu_factors(
        source.quant_params, op.quant_params, op.attributes["slope_scale"]
    )
    above, below = map(fixed_multiplier, factors)
    how = structure(
        "prelu_t",
        f"{name}_how",
        slopes=f"{name}_slopes",
        num_slopes=slopes.size,
        input_zero_point=source.quant_params.zero_point,
        zero_point=op.quant_params.zero_point,
        above=above[0],
        above_exponent=above[1],
        below=below[0],
        below_exponent=below[1],
    )
    return Call(
        (f"prelu(&{name}_how, {{in0}}, {output.size}, {{out}});",),
        ("prelu",),
        (array("int8_t", f"{name}_slopes", slopes), how),
        in_place=0,
    )


def _reshape(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    return Call((), (), in_place=0)


def _permuted(
    sizes: Sequence[int], steps: Sequence[int], start: int, name: str
) -> Call:
    missing = 5 - len(sizes)
    how = structure(
        "permute_t",
        f"{name}_order",
        start=start,
        sizes=[1] * missing + list(sizes),
        steps=[0] * missing + list(steps),
    )
    return Call((f"permute(&{name}_order, {{in0}}, {{out}});",), ("permute",), (how,))


def _transpose(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    shape = inputs[0].shape
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    order = [dimension - 1 for dimension in op.attributes["permutation"]]
    return _permuted([shape[i] for i in order], [steps[i] for i in order], 0, name)


def _crop(op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str) -> Call:
    _, width, channels = inputs[0].shape
    (top, _), (left, _) = op.attributes["crops"]
    height, out_width, _ = output.shape
    return _permuted(
        [height, out_width * channels],
        [width * channels, 1],
        (top * width + left) * channels,
        name,
    )


def _resize_nearest(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    height, width, channels = inputs[0].shape
    rows, columns = op.attributes["size"]
    return _permuted(
        [height, rows, width, columns, channels],
        [width * channels, 0, channels, 0, 1],
        0,
        name,
    )


def _depth_to_space(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    width = inputs[0].shape[1]
    rows, columns = op.attributes["block_size"]
    (top, _), (left, _) = op.attributes["crops"]
    height, out_width, channels = output.shape
    return Call(
        (
            f"blocks({{in0}}, {width}, {rows}, {columns}, {channels}, {top}, {left}, "
            f"{height}, {out_width}, {{out}});",
        ),
        ("blocks",),
    )


def _pad(op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str) -> Call:
    height, width, channels = inputs[0].shape
    (top, _), (left, _) = op.attributes["pads"]
    out_height, out_width, _ = output.shape
    return Call(
        (
            f"pad({{in0}}, {height}, {width * channels}, {{out}}, {out_height}, "
            f"{out_width * channels}, {top}, {left * channels}, "
            f"{op.quant_params.zero_point});",
        ),
        ("pad",),
    )


def _concatenate(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    channels = output.shape[-1]
    statements, start = [], 0
    for i, source in enumerate(inputs):
        width = source.shape[-1]
        statements.append(
            f"copy_block({{in{i}}}, {source.size // width}, {width}, "
            f"{{out}} + {start}, {channels});"
        )
        start += width
    return Call(tuple(statements), ("copy_block",))


def _resize_bilinear(
    op: IntegerOp, inputs: Sequence[Tensor], output: Tensor, name: str
) -> Call:
    height, width, channels = inputs[0].shape
    rows, columns = (
        array("int16_t", f"{name}_{of}", np.stack(neighbours(length, factor), -1))
        for of, length, factor in zip(
            ("rows", "columns"), (height, width), op.attributes["size"], strict=True
        )
    )
    how = structure(
        "resize_t",
        f"{name}_how",
        width=width,
        channels=channels,
        out_height=output.shape[0],
        out_width=output.shape[1],
        rows=f"{name}_rows",
        columns=f"{name}_columns",
    )
    statement = f"resize(&{name}_how, {{in0}}, {{out}});"
    return Call((statement,), ("resize",), (rows, columns, how))


def _nothing(*_: object) -> tuple[Constant, ...]:
    return ()


WRITERS: Mapping[str, Writer] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "dense_convolution": _dense,
    "pointwise": _dense,
    "add": _combined("weighted_sum", _sum_constants(1)),
    "subtract": _combined("weighted_sum", _sum_constants(-1)),
    "multiply": _combined("product", _product_constants),
    "elementwise_maximum": _combined("maximum", _nothing),
    "elementwise_minimum": _combined("minimum", _nothing),
    **dict.fromkeys(
        (
            "relu",
            "leaky_relu",
            "minimum",
            "sigmoid",
            "tanh",
            "gelu",
            "elu",
            "hard_swish",
        ),
        _look_up,
    ),
    "prelu": _prelu,
    "average_pool": _pool("mean"),
    "max_pool": _pool("largest"),
    "global_average": _average(of_channels=False),
    "channel_mean": _average(of_channels=True),
    "l2_normalize": _l2_normalize,
    "reshape": _reshape,
    "transpose": _transpose,
    "pad": _pad,
    "crop": _crop,
    "concatenate": _concatenate,
    "depth_to_space": _depth_to_space,
    "resize_nearest": _resize_nearest,
    "resize_bilinear": _resize_bilinear,
}
