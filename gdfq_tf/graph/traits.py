"""What kinds of layers canonical networks are made of: one record for each.

All that planning, equalization, training, lowering and the estimates of memory know of
a kind of layer stands here; what LiteRT does with it stands in the table of operators
of `tflite_export`. A new kind is one row here and one there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from gdfq_tf.graph.layers import ChannelMean, DepthToSpace, L2Normalization
from gdfq_tf.graph.slopes import quantize_slopes
from gdfq_tf.keras_compat import keras

_layers = keras.layers


def _always(layer: keras.layers.Layer) -> bool:
    return True


def _never(layer: keras.layers.Layer) -> bool:
    return False


def _keeps_channels_apart(layer: keras.layers.Layer) -> bool:
    """Whether a reshape leaves the last dimension alone: there is one position."""
    return layer.input_shape[-1] == layer.output_shape[-1]


def _keeps_channels_last(layer: keras.layers.Layer) -> bool:
    return layer.dims[-1] == len(layer.dims)


def _is_unbounded(layer: keras.layers.Layer) -> bool:
    return layer.max_value is None


def is_bilinear(layer: keras.layers.Layer) -> bool:
    """Whether each output is a blend of neighbours."""
    return isinstance(layer, _layers.UpSampling2D) and layer.interpolation == "bilinear"


def _pools_several(layer: keras.layers.Layer) -> bool:
    return layer.pool_size != (1, 1)


def _no_attributes(layer: keras.layers.Layer) -> dict[str, Any]:
    return {}


def _convolution(layer: keras.layers.Layer) -> dict[str, Any]:
    return {
        "strides": list(layer.strides),
        "padding": layer.padding,
        "dilation": list(layer.dilation_rate),
    }


def _grouped_convolution(layer: keras.layers.Layer) -> dict[str, Any]:
    return {**_convolution(layer), "groups": layer.groups}


def _pooling(layer: keras.layers.Layer) -> dict[str, Any]:
    return {
        "pool_size": list(layer.pool_size),
        "strides": list(layer.strides),
        "padding": layer.padding,
    }


def _shape(layer: keras.layers.Layer) -> dict[str, Any]:
    return {"shape": list(layer.output.shape[1:])}


def _pairs(pairs: tuple[tuple[int, int], ...]) -> list[list[int]]:
    return [list(pair) for pair in pairs]


def _slopes(layer: keras.layers.Layer) -> dict[str, Any]:
    slopes = quantize_slopes(layer.alpha.numpy())
    return {"slopes": slopes.levels.ravel().tolist(), "slope_scale": slopes.scale}


@dataclasses.dataclass(frozen=True)
class LayerTraits:
    """What there is to know of one kind of layer.

    Attributes:
      kind: of the `IntegerOp` it becomes, or how to tell that of a layer; None for
        layers that others take in.
      attributes: those of the `IntegerOp`, as JSON values.
      has_kernel: weights that are quantized: convolution or dense.
      pools: gives means or maxima of positions.
      moves: each output value is one of the inputs', a blend of neighbours, or the zero
        of padding.
      keeps_scale: the integer kernel has one scale for inputs and output.
      joins: takes several tensors, which must have that one scale.
      commutes: gives the same for its inputs in any order.
      rounds: whether the integer kernel of a layer rounds its results.
      fuses_relu: the integer kernel applies a ReLU behind it.
      fuses_normalization: it takes in the BatchNormalization behind it.
      passes_factors: whether positive factors of the input's channels are those of the
        output's.
    """

    kind: str | Callable[[keras.layers.Layer], str] | None
    attributes: Callable[[keras.layers.Layer], dict[str, Any]] = _no_attributes
    has_kernel: bool = False
    pools: bool = False
    moves: bool = False
    keeps_scale: bool = False
    joins: bool = False
    commutes: bool = False
    rounds: Callable[[keras.layers.Layer], bool] = _always
    fuses_relu: bool = False
    fuses_normalization: bool = False
    passes_factors: Callable[[keras.layers.Layer], bool] = _never


def _kernel(kind: str, attributes: Callable = _no_attributes) -> LayerTraits:
    return LayerTraits(
        kind,
        attributes,
        has_kernel=True,
        fuses_relu=True,
        fuses_normalization=True,
    )


def _moving(
    kind: str | Callable[[keras.layers.Layer], str],
    attributes: Callable[[keras.layers.Layer], dict[str, Any]],
    passes_factors: Callable[[keras.layers.Layer], bool] = _always,
    rounds: Callable[[keras.layers.Layer], bool] = _never,
) -> LayerTraits:
    return LayerTraits(
        kind,
        attributes,
        moves=True,
        keeps_scale=True,
        rounds=rounds,
        passes_factors=passes_factors,
    )


def _joining(
    kind: str,
    passes_factors: Callable[[keras.layers.Layer], bool],
    *,
    commutes: bool,
) -> LayerTraits:
    return LayerTraits(
        kind,
        keeps_scale=True,
        joins=True,
        commutes=commutes,
        rounds=_never,
        passes_factors=passes_factors,
    )


TRAITS: dict[type, LayerTraits] = {
    _layers.InputLayer: LayerTraits(None),
    _layers.Conv2D: _kernel("conv", _grouped_convolution),
    _layers.DepthwiseConv2D: _kernel("depthwise", _convolution),
    _layers.Dense: _kernel("dense"),
    _layers.BatchNormalization: LayerTraits(None, fuses_relu=True),
    _layers.ReLU: LayerTraits("relu", passes_factors=_is_unbounded),
    _layers.LeakyReLU: LayerTraits(
        "leaky_relu", lambda layer: {"slope": float(layer.alpha)}
    ),
    _layers.PReLU: LayerTraits("prelu", _slopes),
    _layers.Activation: LayerTraits(lambda layer: layer.activation.__name__),
    L2Normalization: LayerTraits("l2_normalize"),
    ChannelMean: LayerTraits("channel_mean"),
    _layers.Add: LayerTraits(
        "add", commutes=True, fuses_relu=True, passes_factors=_always
    ),
    _layers.Subtract: LayerTraits("subtract"),
    _layers.Multiply: LayerTraits("multiply", commutes=True, fuses_relu=True),
    _layers.GlobalAveragePooling2D: LayerTraits(
        "global_average",
        lambda layer: {"keepdims": bool(layer.keepdims)},
        pools=True,
        passes_factors=_always,
    ),
    _layers.AveragePooling2D: LayerTraits(
        "average_pool",
        _pooling,
        pools=True,
        keeps_scale=True,
        rounds=_pools_several,
        fuses_relu=True,
        passes_factors=_always,
    ),
    _layers.MaxPooling2D: LayerTraits(
        "max_pool",
        _pooling,
        pools=True,
        keeps_scale=True,
        rounds=_never,
        passes_factors=_always,
    ),
    _layers.Concatenate: _joining("concatenate", _never, commutes=False),
    _layers.Maximum: _joining("elementwise_maximum", _always, commutes=True),
    _layers.Minimum: _joining("elementwise_minimum", _always, commutes=True),
    _layers.Flatten: _moving("reshape", _shape, _keeps_channels_apart),
    _layers.Reshape: _moving("reshape", _shape, _keeps_channels_apart),
    _layers.Permute: _moving(
        "transpose", lambda x: {"permutation": list(x.dims)}, _keeps_channels_last
    ),
    _layers.ZeroPadding2D: _moving("pad", lambda x: {"pads": _pairs(x.padding)}),
    _layers.Cropping2D: _moving("crop", lambda x: {"crops": _pairs(x.cropping)}),
    _layers.UpSampling2D: _moving(
        lambda layer: f"resize_{layer.interpolation}",
        lambda layer: {"size": list(layer.size)},
        rounds=is_bilinear,
    ),
    DepthToSpace: _moving(
        "depth_to_space",
        lambda layer: {
            "block_size": list(layer.block_size),
            "crops": _pairs(layer.cropping),
        },
        _never,
    ),
}


def traits(layer: keras.layers.Layer) -> LayerTraits:
    """The record of a canonical layer's kind.

    Raises:
      KeyError: canonical networks have no such layers.
    """
    return TRAITS[type(layer)]


def has_kernel(layer: keras.layers.Layer) -> bool:
    """Whether the layer is a convolution, depthwise or not, or dense."""
    return type(layer) in TRAITS and traits(layer).has_kernel


def becomes_operation(layer: keras.layers.Layer) -> bool:
    """Whether a layer is an `IntegerOp` where no other one takes it along."""
    return traits(layer).kind is not None


def kind_of(layer: keras.layers.Layer) -> str:
    """The kind of the `IntegerOp` that a layer which is one becomes."""
    kind = traits(layer).kind
    if kind is None:
        raise ValueError(f"{layer.name!r} becomes no operation of its own")
    return kind(layer) if callable(kind) else kind
