"""Whether the numbers that a model file stores can be worked with."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.ops import Op
from tflite_export.names import shown

FLOAT32_MAX = float(np.finfo(np.float32).max)
# Of `Op.weights`, by kind; all other kinds that have any are linear layers.
_WEIGHT_NAMES = {
    "Affine": ("factor", "offset"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
_LINEAR_WEIGHT_NAMES = ("kernel", "bias")
_ADVICE = (
    "the file is damaged or its training diverged; pass the network as it was before"
)


def check_stored_values(ops: Iterable[Op]) -> None:
    """Refuses values that no training stores and no arithmetic survives.

    Raises:
      UserError: a value is NaN or infinite, a variance is negative, or a tensor's sum
        of squares, which losses and optimizers take, exceeds float32.
    """
    for op in ops:
        names = _WEIGHT_NAMES.get(op.kind, _LINEAR_WEIGHT_NAMES)
        for name, values in zip(names, op.weights, strict=False):
            wrong = _what_is_wrong(name, np.asarray(values, np.float64))
            if wrong:
                raise UserError(f"layer {shown(op.name)} {wrong}: {_ADVICE}")


def check_folded_values(ops: Iterable[Op]) -> None:
    """Refuses layers that folding gave values beyond float32.

    Raises:
      UserError: names the layer.
    """
    for op in ops:
        for values in op.weights:
            if not np.all(np.abs(values) <= FLOAT32_MAX):  # so that NaN is refused too
                raise UserError(
                    f"layer {shown(op.name)}, with the factors and offsets around it "
                    f"multiplied in, exceeds float32, {FLOAT32_MAX:.2g}: {_ADVICE}"
                )


def _what_is_wrong(name: str, values: np.ndarray) -> str | None:
    """What no value of that name may be and one of `values`, float64, is."""
    not_finite = values[~np.isfinite(values)]
    if not_finite.size:
        return (
            f"holds {not_finite[0]} in its {name}, at {not_finite.size} of "
            f"{values.size} places; expected finite numbers"
        )
    if name == "moving_variance" and values.min() < 0:
        return (
            f"holds {values.min():.3g} in its {name}, at {np.sum(values < 0)} of "
            f"{values.size} places below 0, which is no variance"
        )
    largest, limit = np.abs(values).max(), math.sqrt(FLOAT32_MAX / values.size)
    if largest > limit:
        return (
            f"holds {largest:.3g} in its {name}; expected at most {limit:.2g}, so that "
            "the sum of squares stays within float32"
        )
    return None
