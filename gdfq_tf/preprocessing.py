"""The input contract: how camera pixels become the classifier's input.

Every supported preprocessing is one affine map per channel,
`x[c] = scale[c] * pixel[c] + offset[c]` with pixels in [0, 255], after an
optional RGB -> BGR reversal. Where scale and offset are the same for all
channels the exported int8 input is exactly `pixel - 128`.

Features that are no pixels (MFCCs, sensor values) have a range of their own. It is laid
over the same 256 levels, so that images can be made of them; features that are
given are not rounded to those.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.config import PREPROCESSINGS
from gdfq_tf.errors import UserError, option
from tflite_export.interface import DEFAULT_END_TYPE, END_TYPES
from tflite_export.quantization_params import (
    INT8_MIN,
    QuantParams,
    quant_params_over,
    symmetric_quant_params,
)

# keras.applications.imagenet_utils: per-channel statistics of ImageNet, RGB in
# units of 1 for "torch", BGR in pixel units for "caffe".
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
# Means and deviations of pixel / 255 are 1 at most; with room for odd conventions.
_LARGEST_UNIT = 2.0
_STEPS_OF_LEVEL = 2**7  # of an int16 input: 255 levels are within its range

Pixels: TypeAlias = "npt.NDArray[Any] | tf.Tensor"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Pixels (…, channels) in [0, 255] -> model input, float32.

    Attributes:
      name: one of `config.PREPROCESSINGS`, that of the part before the model.
      scale: per channel, in the model's channel order, > 0.
      offset: per channel, in the model's channel order.
      reverse_channels: whether RGB pixels are turned to BGR first.
      input_range: of features, (low, high) per channel, which are levels 0 and 255;
        None: of pixels.
    """

    name: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    reverse_channels: bool = False
    input_range: tuple[tuple[float, float], ...] | None = None

    def then(
        self, scale: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
    ) -> Preprocessing:
        """Followed by scale * x + offset, (channels,) each, scale > 0."""
        return dataclasses.replace(
            self,
            scale=tuple(float(s) for s in scale * self.scale),
            offset=tuple(float(o) for o in scale * self.offset + offset),
        )

    def after(
        self, first: Preprocessing
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scale and offset, (channels,) each, with which `first.then` gives this."""
        scale = np.array(self.scale) / first.scale
        return scale, self.offset - scale * first.offset

    @property
    def is_uniform(self) -> bool:
        """Whether levels of the input can be pixels - 128.

        One scale and one offset serve all channels, in RGB order, and the range holds
        zero, which pads images.
        """
        if self.input_range is not None:
            return False
        same = len(set(self.scale)) == 1 and len(set(self.offset)) == 1
        holds_zero = 0.0 <= -self.offset[0] / self.scale[0] <= 255.0
        return same and holds_zero and not self.reverse_channels

    @property
    def low(self) -> npt.NDArray[np.float32]:
        """Input value of pixel 0, float32 (channels,)."""
        return np.asarray(self.offset, np.float32)

    @property
    def high(self) -> npt.NDArray[np.float32]:
        """Input value of pixel 255, float32 (channels,)."""
        high = 255.0 * np.asarray(self.scale) + np.asarray(self.offset)
        return np.asarray(high, np.float32)

    def levels(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Features (…, channels) as levels, float32, not rounded.

        Raises:
          ValueError: the preprocessing is of pixels.
        """
        if self.input_range is None:
            raise ValueError(f"preprocessing {self.name!r} takes pixels")
        low, high = np.transpose(self.input_range)
        return np.asarray((features - low) * (255.0 / (high - low)), np.float32)

    def features(self, levels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Features, float32, of levels (…, channels): the inverse of `levels`.

        Raises:
          ValueError: the preprocessing is of pixels.
        """
        if self.input_range is None:
            raise ValueError(f"preprocessing {self.name!r} takes pixels")
        low, high = np.transpose(self.input_range)
        return np.asarray(levels * ((high - low) / 255.0) + low, np.float32)

    def to_input(self, pixels: Pixels) -> tf.Tensor:
        """Model input, float32, of pixels or levels (…, channels) in [0, 255]."""
        pixels = tf.cast(pixels, tf.float32)
        if self.reverse_channels:
            pixels = tf.reverse(pixels, axis=[-1])
        return pixels * np.asarray(self.scale, np.float32) + self.low

    def to_pixels(self, inputs: tf.Tensor) -> tf.Tensor:
        """Nearest uint8 pixels of model inputs (…, channels), clipped to 0..255."""
        pixels = (inputs - self.low) / np.asarray(self.scale, np.float32)
        pixels = tf.clip_by_value(tf.round(pixels), 0.0, 255.0)
        if self.reverse_channels:
            pixels = tf.reverse(pixels, axis=[-1])
        return tf.cast(pixels, tf.uint8)

    def input_quantization(self, bits: int = 8) -> QuantParams:
        """The quantization of the model input, of 8 or 16 bits.

        Uniform: q = pixel - 128, so real = scale * (q + 128) + offset; the zero
        point -128 - offset/scale is rounded to an integer because TFLite pads
        with it. `to_student_input` moves the inputs onto that grid. Of 16 bits, levels
        are so many steps each, from the same zero.
        Otherwise: the smallest range that holds every channel's values.
        """
        if self.is_uniform:
            scale = self.scale[0]
            if bits == 16:
                return QuantParams(scale / _STEPS_OF_LEVEL, 0, bits)
            return QuantParams(scale, INT8_MIN + self._level_of_zero)
        low, high = float(self.low.min()), float(self.high.max())
        if bits == 16:
            return symmetric_quant_params(max(high, -low))
        return quant_params_over(low, high)

    @property
    def _level_of_zero(self) -> int:
        """Of pixels, where one serves all channels."""
        return math.floor(-self.offset[0] / self.scale[0] + 0.5)

    def grid_shift(self) -> float:
        """`inputs - student inputs`: what the integer zero point leaves over.

        At most half a pixel level; non-zero only where -offset/scale is not an
        integer (1/2 level for the "tf" range [-1, 1]). The student's first
        layer adds it back through its bias.
        """
        if not self.is_uniform:
            return 0.0
        return self.offset[0] + self.scale[0] * self._level_of_zero

    def to_student_input(self, pixels: Pixels) -> tf.Tensor:
        """Student input, float32: on the exported model's int8 input grid."""
        return self.to_input(pixels) - np.float32(self.grid_shift())

    def to_integers(self, pixels: Pixels, bits: int = 8) -> npt.NDArray[Any]:
        """The exported model's input of pixels (…, channels) in [0, 255].

        `bits`: of its integers, int8 or int16.
        """
        quant_params = self.input_quantization(bits)
        levels = self.to_student_input(pixels).numpy() / np.float32(quant_params.scale)
        q = np.rint(levels) + quant_params.zero_point
        clipped = np.clip(q, quant_params.lowest, quant_params.highest)
        return np.asarray(clipped, quant_params.dtype)

    def formula(self, input_type: str = DEFAULT_END_TYPE) -> str:
        """What a caller computes for the exported model's input, in one line.

        Args:
          input_type: of that input, a key of `END_TYPES`.
        """
        offset = END_TYPES[input_type]
        quantization = self.input_quantization(16 if input_type == "int16" else 8)
        if self.is_uniform and quantization.bits == 16:
            zero = self._level_of_zero
            steps = f"(pixel - {zero})" if zero else "pixel"
            return f"q = {_STEPS_OF_LEVEL} * {steps}"
        if self.is_uniform:
            if offset + INT8_MIN == 0:
                return "q = pixel, bytes of the image unchanged"
            return f"q = pixel - {-INT8_MIN - offset}"
        value, order = self._of_example()
        return (
            f"q = clamp(round({value} / {quantization.scale:.9g}) + "
            f"{quantization.zero_point + offset}, {quantization.lowest + offset}, "
            f"{quantization.highest + offset}){order}"
        )

    def _of_example(self) -> tuple[str, str]:
        """The model input as a formula of pixel or feature, and by which channels."""
        scale, offset = self._scale_and_offset()
        if self.input_range is not None:
            # Up to what float64 leaves over, features are the input itself.
            size = np.maximum(np.abs(self.low), np.abs(self.high))
            if np.allclose(scale, 1.0) and np.all(np.abs(offset) <= 1e-9 * size):
                return "x", ""
            return _line("x", scale, offset), ", by channel"
        order = "by channel"
        if len(self.scale) == 3:
            order = f"channels in {'BGR' if self.reverse_channels else 'RGB'} order"
        return _line("pixel", scale, offset), f", {order}"

    def _scale_and_offset(
        self,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of pixels or features, to which model inputs are scale * x + offset."""
        scale, offset = np.asarray(self.scale), np.asarray(self.offset)
        if self.input_range is not None:
            low, high = np.transpose(self.input_range)
            scale = scale * (255.0 / (high - low))
            offset = offset - scale * low
        return scale, offset

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel: the student's inputs are (x - mean) / std, x pixel or feature.

        With the exported model's scale and zero point these give its input, up to
        rounding, as `to_integers` does. Where one serves all channels the mean is a
        pixel level, so that pixels become themselves: 128, not 127.5, for "tf" (see
        `grid_shift`).
        """
        scale, offset = self._scale_and_offset()
        mean = (self.grid_shift() - offset) / scale
        return tuple(map(float, mean)), tuple(map(float, 1.0 / scale))


def make_preprocessing(
    name: str,
    num_channels: int,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Preprocessing:
    """The `Preprocessing` of a name, for images with `num_channels` channels.

    Args:
      name: tf: [-1, 1]; torch: [0, 1], ImageNet mean and std; caffe: BGR minus
        the ImageNet mean, pixel units; unit: [0, 1]; uint8: [0, 255] as is;
        custom: (pixel / 255 - mean) / std.
      num_channels: channels of the classifier's input.
      mean: for "custom" only, in units of 1, one value or one per channel.
      std: likewise.

    Raises:
      UserError: unknown name, statistics missing, surplus or of a wrong length.
    """
    if name not in PREPROCESSINGS:
        raise UserError(
            f"preprocessing {name!r} is unknown; expected one of "
            f"{', '.join(PREPROCESSINGS)}"
        )
    if name == "custom":
        _check_custom(num_channels, mean=mean, std=std)
        mean, std = (_for_each(num_channels, values) for values in (mean, std))
        return _standardizing(name, mean=mean, std=std)
    if mean or std:
        raise UserError(
            f"mean and std were given with preprocessing {name!r}; they belong to "
            f"'custom' only: drop them or pass {option('preprocessing', 'custom')}"
        )
    if name in ("torch", "caffe") and num_channels != 3:
        raise UserError(
            f"preprocessing {name!r} holds ImageNet statistics for 3 channels, but "
            f"the classifier takes {num_channels}; use custom with {option('mean')} "
            f"and {option('std')}"
        )
    known = _KNOWN[name]
    return dataclasses.replace(
        known,
        scale=_for_each(num_channels, known.scale),
        offset=_for_each(num_channels, known.offset),
    )


def preprocessing_of_features(
    input_range: Sequence[float], num_channels: int
) -> Preprocessing:
    """The `Preprocessing` of features that have a range of their own.

    Args:
      input_range: low, high; or low, high of each channel, one behind the other.
      num_channels: channels of the classifier's input.

    Raises:
      UserError: a wrong count, or no range.
    """
    values = np.asarray(input_range, np.float64).ravel()
    given = ",".join(f"{value:g}" for value in values)
    if values.size not in (2, 2 * num_channels):
        raise UserError(
            f"{option('input_range', given)} holds {values.size} values; expected low "
            f"and high, or both for each of the classifier's {num_channels} channels: "
            f"2 or {2 * num_channels} values"
        )
    pairs = np.broadcast_to(values.reshape(-1, 2), (num_channels, 2))
    low, high = pairs.T
    if not np.all(np.isfinite(values)) or not np.all(low < high):
        raise UserError(
            f"{option('input_range', given)} is no range; expected finite numbers, "
            "each low below its high, such as -123,26"
        )
    return Preprocessing(
        "features",
        scale=tuple(map(float, (high - low) / 255.0)),
        offset=tuple(map(float, low)),
        input_range=tuple((float(a), float(b)) for a, b in pairs),
    )


def _line(
    variable: str, scale: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
) -> str:
    scales = ", ".join(f"{s:.9g}" for s in scale)
    offsets = ", ".join(f"{o:.9g}" for o in offset)
    return f"({variable} * [{scales}] + [{offsets}])"


def _check_custom(
    num_channels: int, *, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Refuses statistics that no images have."""
    for label, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, num_channels):
            raise UserError(
                f"{option(label)} holds {len(values)} values; expected 1 or one for "
                f"each of the classifier's {num_channels} channels, in units of 1"
            )
    if not all(s > 0 and math.isfinite(s) for s in std):
        raise UserError(f"{option('std')} must be positive, got {list(std)}")
    if not all(math.isfinite(m) for m in mean):
        raise UserError(f"{option('mean')} must be finite, got {list(mean)}")
    for label, values in (("mean", mean), ("std", std)):
        if max(map(abs, values)) > _LARGEST_UNIT:
            given = ",".join(f"{value:g}" for value in values)
            raise UserError(
                f"{option(label, given)} looks like pixel levels; expected units of "
                "pixel / 255: divide by 255"
            )


def _for_each(num_channels: int, values: Sequence[float]) -> tuple[float, ...]:
    """One value for each channel, of as many or of one."""
    return tuple(values) * (num_channels if len(values) == 1 else 1)


def _standardizing(
    name: str, *, mean: Sequence[float], std: Sequence[float]
) -> Preprocessing:
    """(pixel / 255 - mean) / std."""
    scale = tuple(1 / (255.0 * s) for s in std)
    offset = tuple(-m / s for m, s in zip(mean, std, strict=True))
    return Preprocessing(name, scale, offset)


# By name; one value stands for all channels.
_KNOWN = {
    "tf": Preprocessing("tf", (1 / 127.5,), (-1.0,)),
    "torch": _standardizing("torch", mean=_TORCH_MEAN, std=_TORCH_STD),
    "caffe": Preprocessing(
        "caffe", (1.0,), tuple(-m for m in _CAFFE_MEAN_BGR), reverse_channels=True
    ),
    "unit": Preprocessing("unit", (1 / 255.0,), (0.0,)),
    "uint8": Preprocessing("uint8", (1.0,), (0.0,)),
}
