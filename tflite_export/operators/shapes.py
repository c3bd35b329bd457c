"""Output shapes that several kinds of operations share. Shapes have batch 1 first."""

from __future__ import annotations

from collections.abc import Sequence

from tflite_export.integer_network import IntegerOp, Shape

Margins = Sequence[Sequence[int]]  # ((top, bottom), (left, right))


def require_fit(fits: bool) -> None:
    """Raises ValueError if an operation cannot take its inputs."""
    if not fits:
        raise ValueError("shapes do not fit")


def same_shape(op: IntegerOp, source: Shape) -> Shape:
    """The input's."""
    return source


def window_positions(op: IntegerOp, source: Shape, size: Sequence[int]) -> Shape:
    """Height and width of what a sliding window of that size gives."""
    _, height, width, _ = source
    attributes = op.attributes
    dilation = attributes.get("dilation", (1, 1))
    if attributes["padding"] == "same":
        size = (1, 1)
    steps = zip((height, width), size, dilation, attributes["strides"], strict=True)
    return tuple(-(-(length - (k - 1) * d) // s) for length, k, d, s in steps)


def with_margins(source: Shape, margins: Margins, sign: int) -> Shape:
    """The shape with (`sign` 1) or without (-1) margins around each image."""
    _, height, width, channels = source
    (top, bottom), (left, right) = margins
    return (
        1,
        height + sign * (top + bottom),
        width + sign * (left + right),
        channels,
    )
