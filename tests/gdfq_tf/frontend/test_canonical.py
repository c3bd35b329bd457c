from __future__ import annotations

import importlib
import re
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import Canonical, canonicalize
from gdfq_tf.keras_compat import keras as tf_keras
from tests.tiny import operations

LIBRARIES = [pytest.param(keras, id="keras3"), pytest.param(tf_keras, id="tf_keras")]
VOCABULARY = {
    "InputLayer", "Conv2D", "DepthwiseConv2D", "Dense", "BatchNormalization", "ReLU",
    "Add", "Concatenate", "MaxPooling2D", "AveragePooling2D",
    "GlobalAveragePooling2D", "Flatten", "Reshape", "ZeroPadding2D", "Cropping2D",
    "Multiply", "Activation", "ChannelMean", "Subtract", "L2Normalization", "LeakyReLU",
    "UpSampling2D", "DepthToSpace", "Permute", "Maximum", "Minimum",
    "PReLU",
}  # fmt: skip


def randomize(model):
    """Weights for which no two layers and no two channels do the same."""
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.2, 1, w.shape) for w in model.get_weights()]
    signs = [rng.choice([-1, 1], w.shape) if w.ndim > 1 else 1 for w in weights]
    model.set_weights([w * s for w, s in zip(weights, signs, strict=True)])
    return model


def outputs(model, spread=5.0):
    """Outputs of a source model or of a `Canonical` on the same random images."""
    is_canonical = isinstance(model, Canonical)
    keras_model = model.model if is_canonical else model
    shape = (2, *keras_model.inputs[0].shape[1:])
    images = np.random.default_rng(0).normal(0, spread, shape)
    if is_canonical:
        images = model.input_scale * images + model.input_offset
    result = keras_model(images.astype(np.float32), training=False)
    if is_canonical and model.head == Head.MULTI_LABEL:
        result = tf.sigmoid(result)
    elif is_canonical and model.head != Head.LOGITS:
        result = tf.nn.softmax(result)
    if is_canonical and model.head == Head.SIGMOID:
        result = result[:, 1:]
    return np.asarray(result)


def make(k, body, shape=(9, 9, 3), head=True):
    image = k.Input(shape)
    x = body(k.layers, image)
    if head:
        x = k.layers.Dense(4, name="classes")(k.layers.Flatten(name="flat")(x))
    return randomize(k.Model(image, x))


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def check_same(source):
    """Canonicalizes and compares; returns the kinds between input and flatten."""
    canonical = canonicalize(source)
    model = canonical.model
    assert isinstance(model, tf_keras.Model)
    assert set(kinds(model)) <= VOCABULARY
    for layer in model.layers:
        if hasattr(layer, "activation") and type(layer).__name__ != "Activation":
            assert layer.activation is tf_keras.activations.linear
    expected = outputs(source)
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(outputs(canonical), expected, rtol=1e-4, atol=tolerance)
    assert canonical.head == Head.LOGITS
    return kinds(model)[1:-2]


def shortcut_a(lay, x):
    """ResNet's option A: subsample, then pad channels with zeros."""
    y = lay.AveragePooling2D(1, strides=2)(lay.Conv2D(4, 3, padding="same")(x))
    y = lay.ZeroPadding2D(((0, 0), (2, 2)))(lay.Reshape((-1, 4, 1))(y))
    return lay.Reshape((5, 5, 8))(y)


def residual(lay, x):
    x = lay.Conv2D(4, 1)(x)
    return lay.Add()([x, lay.Conv2D(4, 3, padding="same")(x), lay.ReLU()(x), x])


def concatenated(lay, x):
    return lay.Concatenate()([x, lay.ReLU(6.0)(x), lay.Conv2D(2, 1)(x)])


REWRITES = {
    "same_padding_with_stride": (
        lambda lay, x: lay.Conv2D(5, 3, strides=2, padding="same", use_bias=False)(x),
        ["Conv2D"],
    ),
    "rectangular_dilated": (
        lambda lay, x: lay.Conv2D(5, (2, 3), dilation_rate=(2, 1))(x),
        ["Conv2D"],
    ),
    "fused_relu": (
        lambda lay, x: lay.Conv2D(5, 3, activation="relu")(x),
        ["Conv2D", "ReLU"],
    ),
    "relu_object": (
        lambda lay, x: lay.Conv2D(5, 3, activation=lay.ReLU(0.5))(x),
        ["Conv2D", "ReLU"],
    ),
    "relu_layers": (
        lambda lay, x: lay.Activation("relu6")(lay.ReLU(max_value=7)(x)),
        ["ReLU", "ReLU"],
    ),
    "depthwise": (
        lambda lay, x: lay.DepthwiseConv2D(
            3, strides=2, padding="same", depth_multiplier=2, activation="relu"
        )(x),
        ["DepthwiseConv2D", "ReLU"],
    ),
    "depthwise_dilated": (
        lambda lay, x: lay.DepthwiseConv2D(3, dilation_rate=2, use_bias=False)(x),
        ["DepthwiseConv2D"],
    ),
    "separable": (
        lambda lay, x: lay.BatchNormalization()(
            lay.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2)(x)
        ),
        ["DepthwiseConv2D", "Conv2D", "BatchNormalization"],
    ),
    "separable_without_bias": (
        lambda lay, x: lay.SeparableConv2D(4, 3, use_bias=False, activation="relu")(x),
        ["DepthwiseConv2D", "Conv2D", "ReLU"],
    ),
    "batch_norm_plain": (
        lambda lay, x: lay.BatchNormalization(scale=False, center=False)(
            lay.Dropout(0.5)(lay.Conv2D(4, 1)(x))
        ),
        ["Conv2D", "BatchNormalization"],
    ),
    "batch_norm_no_scale": (
        lambda lay, x: lay.BatchNormalization(axis=3, scale=False)(lay.Conv2D(4, 1)(x)),
        ["Conv2D", "BatchNormalization"],
    ),
    "batch_norm_no_center": (
        lambda lay, x: lay.BatchNormalization(center=False)(lay.DepthwiseConv2D(3)(x)),
        ["DepthwiseConv2D", "BatchNormalization"],
    ),
    "identities": (
        lambda lay, x: lay.SpatialDropout2D(0.5)(
            lay.Activation("linear")(lay.GaussianNoise(1.0)(lay.ReLU()(x)))
        ),
        ["ReLU"],
    ),
    "pooling": (
        lambda lay, x: lay.AveragePooling2D(3, 2, "same")(
            lay.MaxPooling2D(2, 1, "same")(x)
        ),
        ["MaxPooling2D", "AveragePooling2D"],
    ),
    "global_average": (
        lambda lay, x: lay.GlobalAveragePooling2D()(x),
        ["GlobalAveragePooling2D"],
    ),
    "global_average_keepdims": (
        lambda lay, x: lay.Conv2D(4, 1)(lay.GlobalAveragePooling2D(keepdims=True)(x)),
        ["GlobalAveragePooling2D", "Conv2D"],
    ),
    "global_average_over_one_position": (
        lambda lay, x: lay.GlobalAveragePooling2D()(lay.Conv2D(4, 9)(x)),
        ["Conv2D", "Reshape"],
    ),
    "option_a_shortcut": (
        shortcut_a,
        ["Conv2D", "AveragePooling2D", "Reshape", "ZeroPadding2D", "Reshape"],
    ),
    "dense_batch_norm": (
        lambda lay, x: lay.BatchNormalization()(lay.Dense(6)(lay.Flatten()(x))),
        ["Flatten", "Dense", "BatchNormalization"],
    ),
}


def squeeze_and_excitation(lay, x):
    x = lay.Conv2D(4, 1)(x)
    y = lay.Reshape((1, 1, 4))(lay.GlobalAveragePooling2D()(x))
    return lay.Multiply()([x, lay.Conv2D(4, 1, activation="sigmoid")(y)])


def batch_norm_beside_others(lay, x):
    x = lay.Conv2D(3, 1)(x)
    return lay.Add()([x, lay.BatchNormalization()(x)])


def shared_conv(lay, x):
    conv = lay.Conv2D(3, 1)
    return conv(conv(x))


def twins(lay, x):
    x, conv = lay.Conv2D(4, 1)(x), lay.Conv2D(4, 1)
    return lay.Add()([conv(lay.MaxPooling2D(2)(lay.ReLU()(x))) for _ in range(2)])


def commuted(kind):
    """What gives the same in both orders, beside its ReLU."""

    def network(lay, x):
        pair = [lay.Conv2D(4, 1)(x), lay.Conv2D(4, 3, padding="same")(x)]
        both = [getattr(lay, kind)()(inputs) for inputs in (pair, pair[::-1])]
        return lay.Concatenate()([both[0], lay.ReLU()(both[1])])

    return network


def twins_with_normalizations(lay, x):
    conv = lay.Conv2D(4, 1)
    return lay.Add()([lay.BatchNormalization()(conv(x)) for _ in range(2)])


def twins_with_one_normalization(lay, x):
    conv, normalization = lay.Conv2D(4, 1), lay.BatchNormalization()
    return lay.Add()([normalization(conv(x)) for _ in range(2)])


def batch_norms_of_one_tensor(lay, x):
    x = lay.ReLU()(x)
    return lay.Add()([lay.BatchNormalization()(x) for _ in range(2)])


def joined_image(lay, x):
    ends = [lay.Conv2D(4, 2, 2)(x), lay.MaxPooling2D(2)(x)]
    return lay.Conv2D(2, 1)(lay.Concatenate()([lay.Conv2D(3, 1)(ends[0]), ends[1]]))


def moved_image_read_twice(lay, x):
    x = lay.ZeroPadding2D()(x)
    joined = lay.Concatenate()([x, lay.Conv2D(4, 1)(x)])
    return lay.Concatenate()([joined, x])


def affine_before_two(lay, x):
    x = lay.ReLU()(x) * -2.0 - 1.5
    return lay.Add()([x, lay.Conv2D(3, 1)(x)])


def relu_beside_others(lay, x):
    x = lay.MaxPooling2D()(lay.Conv2D(4, 1)(x))
    return lay.Concatenate()([x, lay.ReLU()(x)])


def transposed_beside_others(lay, x):
    x = lay.Conv2DTranspose(2, 3, 2)(x)
    return lay.Add()([x, lay.BatchNormalization()(x)])


CARRIED = ["DepthwiseConv2D", "BatchNormalization"]
REWRITES |= {
    "batch_norm_first": (lambda lay, x: lay.BatchNormalization()(x), CARRIED),
    "batch_norm_after_relu": (
        lambda lay, x: lay.BatchNormalization()(lay.ReLU()(lay.Conv2D(3, 1)(x))),
        ["Conv2D", "ReLU", *CARRIED],
    ),
    "batch_norm_before_padded_conv": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(lay.BatchNormalization()(x)),
        [*CARRIED, "Conv2D"],
    ),
    "batch_norm_beside_others": (
        batch_norm_beside_others,
        ["Conv2D", *CARRIED, "Add"],
    ),
    "batch_norm_of_features": (
        lambda lay, x: lay.BatchNormalization()(lay.ReLU()(lay.Flatten()(x))),
        ["ReLU", "Flatten", "Reshape", *CARRIED, "Reshape"],
    ),
    "grouped": (
        lambda lay, x: lay.Conv2D(8, 3, groups=2, strides=2, padding="same")(
            lay.Conv2D(4, 1)(x)
        ),
        ["Conv2D", "Conv2D"],
    ),
    "grouped_by_channels": (
        lambda lay, x: lay.Conv2D(
            6, 3, groups=3, strides=2, padding="same", use_bias=False
        )(x),
        ["DepthwiseConv2D"],
    ),
    "grouped_by_channels_with_unequal_strides": (
        lambda lay, x: lay.Conv2D(6, 3, groups=3, strides=(1, 2))(x),
        ["Conv2D"],
    ),
    "dense_on_images": (
        lambda lay, x: lay.Dense(5, use_bias=False)(lay.Dense(4, activation="relu")(x)),
        ["Conv2D", "ReLU", "Conv2D"],
    ),
    "swish": (
        lambda lay, x: lay.Conv2D(4, 3, activation="swish")(x),
        ["Conv2D", "Activation", "Multiply"],
    ),
    "gelu": (lambda lay, x: lay.Activation("gelu")(x), ["Activation"]),
    "elu": (
        lambda lay, x: lay.ELU()(lay.Conv2D(4, 3, activation="elu")(x)),
        ["Conv2D", "Activation", "Activation"],
    ),
    "elu_of_another_alpha": (
        lambda lay, x: lay.ELU(0.3)(lay.Conv2D(4, 1)(lay.ELU(2.0)(x))),
        ["Activation", "LeakyReLU", "Conv2D", "Activation", "LeakyReLU"],
    ),
    "selu": (
        lambda lay, x: lay.Conv2D(4, 1)(lay.Conv2D(4, 3, activation="selu")(x)),
        ["Conv2D", "Activation", "LeakyReLU", "Conv2D"],
    ),
    "leaky_relu": (
        lambda lay, x: lay.Conv2D(4, 3, activation=lay.LeakyReLU())(
            lay.ReLU(negative_slope=0.1)(x)
        ),
        ["LeakyReLU", "Conv2D", "LeakyReLU"],
    ),
    "hard_sigmoid": (
        lambda lay, x: lay.Conv2D(4, 3, activation="hard_sigmoid")(x),
        ["Conv2D", "ReLU"],
    ),
    "hard_swish_of_mobilenet_v3": (
        lambda lay, x: lay.Multiply()([x, lay.ReLU(6.0)(x + 3.0) * (1 / 6)]),
        ["Activation"],
    ),
    "hard_sigmoid_of_mobilenet_v3": (
        lambda lay, x: lay.ReLU(6.0)(lay.DepthwiseConv2D(3)(x) + 3.0) * (1 / 6),
        ["DepthwiseConv2D", "ReLU"],
    ),
    "squeeze_and_excitation": (
        squeeze_and_excitation,
        ["Conv2D", "GlobalAveragePooling2D", "Conv2D", "Activation", "Multiply"],
    ),
    "affine_of_batch_norm": (
        lambda lay, x: 1.0 - lay.BatchNormalization()(lay.Conv2D(4, 3)(x)) / 2.0,
        ["Conv2D", "BatchNormalization"],
    ),
    "affine_alone": (
        lambda lay, x: lay.Conv2D(4, 3)(lay.MaxPooling2D(2)(x) * np.ones(3) - 1.5),
        ["MaxPooling2D", "Conv2D"],
    ),
    "affine_before_groups": (
        lambda lay, x: lay.Conv2D(6, 3, groups=2)(
            lay.ReLU()(lay.Conv2D(4, 1)(x)) * np.array([0.5, -1.0, 2.0, 3.0]) + 0.7
        ),
        ["Conv2D", "ReLU", "Conv2D"],
    ),
    "affine_before_depthwise": (
        lambda lay, x: lay.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(
            lay.ReLU()(x) * np.array([-1.0, 2.0, 3.0]) + np.array([0.7, 0.0, 1.0])
        ),
        ["ReLU", "DepthwiseConv2D"],
    ),
    "affine_before_dense": (
        lambda lay, x: lay.Dense(4)(lay.GlobalAveragePooling2D()(x) * 2.0 - 1.5),
        ["GlobalAveragePooling2D", "Dense"],
    ),
    "affine_before_padding": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(lay.ReLU()(x) * -2.0 - 1.5),
        ["ReLU", "DepthwiseConv2D", "Conv2D"],
    ),
    "factor_before_padding": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(lay.ReLU()(x) * -2.0),
        ["ReLU", "Conv2D"],
    ),
    "affine_before_two": (
        affine_before_two, ["ReLU", "DepthwiseConv2D", "Conv2D", "Add"]
    ),
    "scaling_at_the_input": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(
            lay.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(
                lay.Rescaling(1 / 255, offset=-1.0)(x)
            )
        ),
        ["Conv2D"],
    ),
    "negative_scaling_at_the_input": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(lay.Rescaling(-1, 0.5)(x)),
        ["DepthwiseConv2D", "Conv2D"],
    ),
    "negative_factor_at_the_input": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(lay.Rescaling(-1)(x)),
        ["Conv2D"],
    ),
    "difference": (
        lambda lay, x: lay.Conv2D(3, 1)(x) - x,
        ["Conv2D", "DepthwiseConv2D", "Add"],
    ),
    "global_max": (
        lambda lay, x: lay.GlobalMaxPooling2D()(x),
        ["MaxPooling2D", "Reshape"],
    ),
    "global_max_keepdims": (
        lambda lay, x: lay.GlobalMaxPooling2D(keepdims=True)(x),
        ["MaxPooling2D"],
    ),
    "cropping": (lambda lay, x: lay.Cropping2D(((1, 2), (0, 3)))(x), ["Cropping2D"]),
    "strided_slice": (
        lambda lay, x: lay.Conv2D(4, 1)(x)[:, 1::2, :-2:3, 1:],
        ["Conv2D", "Cropping2D", "AveragePooling2D", "Reshape", "Cropping2D",
         "Reshape"],
    ),
    "joined_sigmoid": (
        lambda lay, x: lay.Concatenate()(
            [x, lay.MaxPooling2D(1)(lay.Activation("sigmoid")(x))]
        ),
        ["Activation", "ReLU", "DepthwiseConv2D", "MaxPooling2D", "Concatenate"],
    ),
    "joined_image": (
        joined_image,
        ["Conv2D", "DepthwiseConv2D", "Conv2D", "MaxPooling2D", "Concatenate",
         "Conv2D"],
    ),
    "moved_image_read_twice": (
        moved_image_read_twice,
        ["DepthwiseConv2D", "ZeroPadding2D", "ZeroPadding2D", "Conv2D", "Concatenate",
         "Concatenate"],
    ),
    "images_joined": (
        lambda lay, x: lay.Conv2D(4, 1)(lay.Concatenate()([x, lay.Cropping2D(0)(x)])),
        ["Cropping2D", "Concatenate", "Conv2D"],
    ),
    "twins_with_normalizations": (
        twins_with_normalizations,
        ["Conv2D", "Conv2D", "BatchNormalization", "BatchNormalization", "Add"],
    ),
    "twins_with_one_normalization": (
        twins_with_one_normalization,
        ["Conv2D", "BatchNormalization", "Add"],
    ),
    "batch_norms_of_one_tensor": (
        batch_norms_of_one_tensor,
        ["ReLU", "DepthwiseConv2D", "DepthwiseConv2D", "BatchNormalization",
         "BatchNormalization", "Add"],
    ),
    "upsampling": (
        lambda lay, x: lay.UpSampling2D((2, 3))(lay.Conv2D(2, 4)(x)),
        ["Conv2D", "UpSampling2D"],
    ),
    "upsampling_bilinear": (
        lambda lay, x: lay.UpSampling2D(2, interpolation="bilinear")(x),
        ["UpSampling2D"],
    ),
    "transposed": (
        lambda lay, x: lay.Conv2DTranspose(4, 5, 2, "same", activation="relu")(x),
        ["Conv2D", "ReLU", "DepthToSpace"],
    ),
    "transposed_of_2": (
        lambda lay, x: lay.Conv2DTranspose(4, 2, 2)(x),
        ["Conv2D", "DepthToSpace"],
    ),
    "transposed_padded": (
        lambda lay, x: lay.ReLU()(
            lay.BatchNormalization()(
                lay.Dropout(0.5)(lay.Conv2DTranspose(2, 4, (2, 3), "same")(x))
            )
        ),
        ["ZeroPadding2D", "Conv2D", "BatchNormalization", "ReLU", "DepthToSpace"],
    ),
    "transposed_without_bias": (
        lambda lay, x: lay.BatchNormalization(scale=False)(
            lay.Conv2DTranspose(2, 3, 2, output_padding=1, use_bias=False)(x)
        ),
        ["ZeroPadding2D", "Conv2D", "BatchNormalization", "DepthToSpace"],
    ),
    "transposed_of_stride_1": (
        lambda lay, x: lay.Conv2DTranspose(4, 3, 1, "same", activation="relu")(x),
        ["Conv2D", "ReLU"],
    ),
    "transposed_and_affine": (
        lambda lay, x: lay.Conv2DTranspose(2, 2, 2)(x) * np.array([2.0, -1.0]) - 1.5,
        ["Conv2D", "DepthToSpace"],
    ),
    "transposed_and_swish": (
        lambda lay, x: lay.Conv2DTranspose(2, 2, 2, activation="swish")(x),
        ["Conv2D", "DepthToSpace", "Activation", "Multiply"],
    ),
    "transposed_beside_others": (
        transposed_beside_others,
        ["ZeroPadding2D", "Conv2D", "DepthToSpace", *CARRIED, "Add"],
    ),
    "joined_enlarged_sigmoid": (
        lambda lay, x: lay.Concatenate()(
            [
                lay.Conv2DTranspose(2, 2, 2, activation="sigmoid")(x),
                lay.UpSampling2D(2)(lay.Activation("sigmoid")(x)),
            ]
        ),
        ["Conv2D", "DepthToSpace", "Activation", "Activation", "ReLU", "ReLU",
         "UpSampling2D", "Concatenate"],
    ),
    "joined_average_of_sigmoids": (
        lambda lay, x: lay.Concatenate()(
            [
                lay.AveragePooling2D(2)(lay.Activation("sigmoid")(x)),
                lay.UpSampling2D(interpolation="bilinear")(
                    lay.Activation("sigmoid")(lay.MaxPooling2D(4)(x))
                ),
            ]
        ),
        ["MaxPooling2D", "Activation", "Activation", "ReLU", "ReLU", "AveragePooling2D",
         "UpSampling2D", "Concatenate"],
    ),
    "relu_behind_moves": (
        lambda lay, x: lay.ReLU(0.5)(
            lay.Flatten()(lay.ZeroPadding2D()(lay.MaxPooling2D()(lay.Conv2D(4, 1)(x))))
        ),
        ["Conv2D", "ReLU", "MaxPooling2D", "ZeroPadding2D", "Flatten"],
    ),
    "relu_behind_blends": (
        lambda lay, x: lay.ReLU()(
            lay.UpSampling2D(interpolation="bilinear")(
                lay.ReLU()(lay.AveragePooling2D(2)(lay.Conv2D(4, 1)(x)))
            )
        ),
        ["Conv2D", "AveragePooling2D", "ReLU", "UpSampling2D", "ReLU"],
    ),
    "relu_beside_others": (
        relu_beside_others,
        ["Conv2D", "MaxPooling2D", "ReLU", "Concatenate"],
    ),
    "shared_layer": (shared_conv, ["Conv2D", "Conv2D"]),
    "twins": (twins, ["Conv2D", "ReLU", "MaxPooling2D", "Conv2D", "Add"]),
    **{
        f"commuted_{kind}": (
            commuted(kind), ["Conv2D", "Conv2D", kind, "ReLU", "Concatenate"]
        )
        for kind in ("Add", "Multiply", "Maximum", "Minimum")
    },
    "not_commuted": (
        commuted("Concatenate"),
        ["Conv2D", "Conv2D", "Concatenate", "Concatenate", "ReLU", "Concatenate"],
    ),
}  # fmt: skip


def shuffled(lay, x):
    """Of four channels, in two groups: twice is the identity."""
    x = lay.Conv2D(4, 1)(x) if x.shape[-1] != 4 else x
    x = lay.Permute((1, 2, 4, 3))(lay.Reshape((9, 9, 2, 2))(x))
    return lay.Reshape((9, 9, 4))(x)


def channel_shuffle(lay, x):
    x = lay.Reshape((9, 9, 2, 4))(lay.Conv2D(8, 1)(x))
    return lay.Conv2D(4, 1)(lay.Reshape((9, 9, 8))(lay.Permute((1, 2, 4, 3))(x)))


def spatial_attention(lay, x):
    """CBAM's, its mean and maximum as poolings of rows."""
    x = lay.Conv2D(4, 1)(x)
    rows = lay.Reshape((81, 4, 1))(x)
    ends = [pool((1, 4))(rows) for pool in (lay.AveragePooling2D, lay.MaxPooling2D)]
    joined = lay.Concatenate()([lay.Reshape((9, 9, 1))(end) for end in ends])
    gate = lay.Conv2D(1, 3, padding="same", activation="sigmoid")(joined)
    return lay.Multiply()([x, gate])


def coordinate_attention(lay, x):
    """Gates of rows, and of columns."""
    x = lay.Conv2D(4, 1)(x)
    rows = lay.Conv2D(4, 1, activation="sigmoid")(lay.AveragePooling2D((1, 9))(x))
    columns = lay.Conv2D(4, 1, activation="sigmoid")(lay.AveragePooling2D((9, 1))(x))
    return lay.Multiply()([x, rows, columns])


def joined_image_by_maximum(lay, x):
    return lay.Maximum()([x, lay.Conv2D(3, 1)(x), lay.Conv2D(3, 3, padding="same")(x)])


def joined_sigmoid_by_minimum(lay, x):
    return lay.Minimum()([lay.Activation("sigmoid")(x), lay.Conv2D(3, 1)(x)])


REWRITES |= {
    "permute": (
        lambda lay, x: lay.Permute((3, 1, 2))(lay.Conv2D(4, 1)(x)),
        ["Conv2D", "Permute"],
    ),
    "permute_nothing": (lambda lay, x: lay.Permute((1, 2, 3))(x), []),
    "channel_shuffle": (
        channel_shuffle,
        ["Conv2D", "Reshape", "Permute", "Reshape", "Conv2D"],
    ),
    "shuffled_and_back": (
        lambda lay, x: lay.Conv2D(4, 1)(shuffled(lay, shuffled(lay, x))),
        ["Conv2D", "Reshape", "Reshape", "Conv2D"],
    ),
    "transposed_and_back": (
        lambda lay, x: lay.Conv2D(4, 1)(
            lay.Permute((3, 1, 2))(lay.Permute((2, 3, 1))(lay.Conv2D(8, 1)(x)))
        ),
        ["Conv2D", "Conv2D"],
    ),
    "transposed_twice": (
        lambda lay, x: lay.Conv2D(4, 1)(
            lay.Permute((2, 3, 1))(lay.Permute((2, 3, 1))(lay.Conv2D(8, 1)(x)))
        ),
        ["Conv2D", "Permute", "Conv2D"],
    ),
    "relu_behind_permute": (
        lambda lay, x: lay.ReLU()(lay.Permute((2, 1, 3))(lay.Conv2D(4, 1)(x))),
        ["Conv2D", "ReLU", "Permute"],
    ),
    "average": (
        lambda lay, x: lay.Conv2D(2, 1)(
            lay.Average()([x, lay.Conv2D(3, 1)(x), lay.ReLU()(x)])
        ),
        ["Conv2D", "Add", "ReLU", "Add", "Conv2D"],
    ),
    "spatial_attention": (
        spatial_attention,
        ["Conv2D", "Reshape", "AveragePooling2D", "MaxPooling2D", "Reshape", "Reshape",
         "Concatenate", "Conv2D", "Activation", "Multiply"],
    ),
    "coordinate_attention": (
        coordinate_attention,
        ["Conv2D", "AveragePooling2D", "Conv2D", "AveragePooling2D", "Activation",
         "Conv2D", "Multiply", "Activation", "Multiply"],
    ),
    "joined_image_by_maximum": (
        joined_image_by_maximum,
        ["DepthwiseConv2D", "Conv2D", "Maximum", "Conv2D", "Maximum"],
    ),
    "joined_sigmoid_by_minimum": (
        joined_sigmoid_by_minimum,
        ["Activation", "ReLU", "Conv2D", "Minimum"],
    ),
    "prelu": (
        lambda lay, x: lay.PReLU(shared_axes=[1, 2])(
            lay.BatchNormalization()(lay.Conv2D(4, 3)(x))
        ),
        ["Conv2D", "BatchNormalization", "PReLU"],
    ),
    "prelu_of_values": (lambda lay, x: lay.PReLU()(x), ["PReLU"]),
    "prelu_of_rows": (lambda lay, x: lay.PReLU(shared_axes=[2, 3])(x), ["PReLU"]),
    "prelu_of_one_slope": (
        lambda lay, x: lay.PReLU(shared_axes=[1, 2, 3])(x), ["LeakyReLU"]
    ),
    "prelu_of_units": (
        lambda lay, x: lay.PReLU()(lay.Dense(5)(lay.Flatten()(x))),
        ["Flatten", "Dense", "PReLU"],
    ),
    "prelu_and_affine": (
        lambda lay, x: lay.Conv2D(2, 3)(lay.PReLU(shared_axes=[1, 2])(x * 2.0) - 1.0),
        ["PReLU", "Conv2D"],
    ),
    "center_crop": (
        lambda lay, x: lay.CenterCrop(6, 9)(lay.Conv2D(4, 1)(x)),
        ["Conv2D", "Cropping2D"],
    ),
}  # fmt: skip


NORMALIZED = ["ChannelMean", "Subtract", "L2Normalization"]


def layer_norm_beside_others(lay, x):
    x = lay.Conv2D(4, 1)(x)
    return lay.Add()([x, lay.LayerNormalization()(x)])


def layer_norm_twice(lay, x):
    x = lay.Conv2D(4, 1)(x)
    return lay.Add()([lay.LayerNormalization()(x) for _ in range(2)])


# An epsilon of 0.5 is felt beside the variance.
REWRITES |= {
    "layer_norm": (
        lambda lay, x: lay.LayerNormalization(epsilon=0.5)(x),
        [*NORMALIZED, "DepthwiseConv2D"],
    ),
    "layer_norm_plain": (
        lambda lay, x: lay.LayerNormalization(scale=False, center=False)(lay.ReLU()(x)),
        ["ReLU", *NORMALIZED, "DepthwiseConv2D"],
    ),
    "layer_norm_between_convolutions": (
        lambda lay, x: lay.Conv2D(4, 2, strides=2)(
            lay.LayerNormalization(axis=3, epsilon=0.5)(lay.Conv2D(5, 3)(x))
        ),
        ["Conv2D", "L2Normalization", "Conv2D"],
    ),
    "layer_norm_between_dense": (
        lambda lay, x: lay.Dense(4)(
            lay.LayerNormalization(epsilon=1e-6)(
                lay.Dense(6, use_bias=False)(lay.Flatten()(x))
            )
        ),
        ["Flatten", "Dense", "L2Normalization", "Dense"],
    ),
    "layer_norm_of_depthwise": (
        lambda lay, x: lay.Dense(4)(
            lay.LayerNormalization(epsilon=0.5)(lay.Conv2D(6, 3, groups=3)(x))
        ),
        ["DepthwiseConv2D", *NORMALIZED, "Conv2D"],
    ),
    "layer_norm_of_groups": (
        lambda lay, x: lay.Dense(4)(
            lay.LayerNormalization(center=False)(
                lay.Conv2D(6, 3, groups=2)(lay.Conv2D(4, 1)(x))
            )
        ),
        ["Conv2D", "Conv2D", *NORMALIZED, "Conv2D"],
    ),
    "layer_norm_before_padding": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(lay.LayerNormalization()(x)),
        [*NORMALIZED, "DepthwiseConv2D", "Conv2D"],
    ),
    "layer_norm_without_beta_before_padding": (
        lambda lay, x: lay.Conv2D(4, 3, padding="same")(
            lay.LayerNormalization(center=False)(x)
        ),
        [*NORMALIZED, "Conv2D"],
    ),
    "layer_norm_of_features": (
        lambda lay, x: lay.Activation("relu")(
            lay.LayerNormalization(scale=False)(lay.GlobalAveragePooling2D()(x))
        ),
        ["GlobalAveragePooling2D", *NORMALIZED, "Reshape", "DepthwiseConv2D",
         "ReLU", "Reshape"],
    ),
    "layer_norm_beside_others": (
        layer_norm_beside_others,
        ["Conv2D", *NORMALIZED, "DepthwiseConv2D", "Add"],
    ),
    "layer_norm_twice": (
        layer_norm_twice,
        ["Conv2D", *NORMALIZED, "DepthwiseConv2D", "DepthwiseConv2D", "Add"],
    ),
    "layer_norm_then_batch_norm": (
        lambda lay, x: lay.BatchNormalization()(lay.LayerNormalization()(x)),
        [*NORMALIZED, "DepthwiseConv2D", "BatchNormalization"],
    ),
}  # fmt: skip


def squeeze_and_excitation_over_time(lay, x):
    x = lay.Conv1D(4, 3)(x)
    gate = lay.Conv1D(4, 1, activation="sigmoid")(
        lay.Reshape((1, 4))(lay.GlobalAveragePooling1D()(x))
    )
    return lay.Multiply()([x, gate])


SIGNALS = {
    "conv": (
        lambda lay, x: lay.BatchNormalization()(
            lay.Conv1D(5, 3, strides=2, padding="same", use_bias=False)(x)
        ),
        ["Conv2D", "BatchNormalization"],
    ),
    "causal": (
        lambda lay, x: lay.Conv1D(
            5, 3, dilation_rate=2, padding="causal", activation="relu"
        )(x),
        ["ZeroPadding2D", "Conv2D", "ReLU"],
    ),
    "grouped": (lambda lay, x: lay.Conv1D(6, 2, groups=3)(x), ["DepthwiseConv2D"]),
    "dense": (lambda lay, x: lay.Dense(5)(x), ["Conv2D"]),
    "layer_norm": (
        lambda lay, x: lay.Dense(5)(lay.LayerNormalization()(x)),
        [*NORMALIZED, "Conv2D"],
    ),
    "depthwise": (
        lambda lay, x: lay.DepthwiseConv1D(
            3, strides=2, padding="same", depth_multiplier=2
        )(x),
        ["DepthwiseConv2D"],
    ),
    "separable": (
        lambda lay, x: lay.SeparableConv1D(4, 3, dilation_rate=2)(x),
        ["DepthwiseConv2D", "Conv2D"],
    ),
    "pooling": (
        lambda lay, x: lay.MaxPooling1D(2, strides=1)(
            lay.AveragePooling1D(3, 2, "same")(x)
        ),
        ["AveragePooling2D", "MaxPooling2D"],
    ),
    "global_average": (
        lambda lay, x: lay.GlobalAveragePooling1D()(lay.Conv1D(4, 2)(x)),
        ["Conv2D", "GlobalAveragePooling2D"],
    ),
    "global_max": (
        lambda lay, x: lay.GlobalMaxPooling1D()(x),
        ["MaxPooling2D", "Reshape"],
    ),
    "padding_and_cropping": (
        lambda lay, x: lay.Cropping1D((0, 2))(
            lay.ReLU()(lay.ZeroPadding1D((3, 1))(lay.SpatialDropout1D(0.5)(x)))
        ),
        ["ReLU", "ZeroPadding2D", "Cropping2D"],
    ),
    "branches": (
        lambda lay, x: lay.Concatenate()(
            [lay.Add()([x, lay.Conv1D(3, 1)(x)]), lay.Activation("swish")(x)]
        ),
        ["Conv2D", "Activation", "Add", "Multiply", "Concatenate"],
    ),
    "squeeze_and_excitation": (
        squeeze_and_excitation_over_time,
        ["Conv2D", "GlobalAveragePooling2D", "Conv2D", "Activation", "Multiply"],
    ),
    "upsampling": (lambda lay, x: lay.UpSampling1D(3)(x), ["UpSampling2D"]),
    "transposed": (
        lambda lay, x: lay.BatchNormalization()(
            lay.Conv1DTranspose(4, 5, 2, "same", activation="linear")(x)
        ),
        ["Conv2D", "BatchNormalization", "DepthToSpace"],
    ),
    "transposed_valid": (
        lambda lay, x: lay.Conv1DTranspose(2, 3, 2, output_padding=1)(x),
        ["ZeroPadding2D", "Conv2D", "DepthToSpace"],
    ),
    "prelu": (lambda lay, x: lay.PReLU(shared_axes=[1])(x), ["PReLU"]),
    "prelu_of_values": (
        lambda lay, x: lay.PReLU()(lay.Conv1D(4, 3)(x)),
        ["Conv2D", "PReLU"],
    ),
    "time_distributed": (
        lambda lay, x: lay.TimeDistributed(lay.ReLU())(
            lay.TimeDistributed(lay.BatchNormalization())(
                lay.TimeDistributed(lay.Dropout(0.5))(
                    lay.TimeDistributed(lay.Dense(5, activation="sigmoid"))(x)
                )
            )
        ),
        ["Conv2D", "Activation", "DepthwiseConv2D", "BatchNormalization", "ReLU"],
    ),
    "time_distributed_normalization": (
        lambda lay, x: lay.Dense(5)(lay.TimeDistributed(lay.LayerNormalization())(x)),
        [*NORMALIZED, "Conv2D"],
    ),
    "permuted": (
        lambda lay, x: lay.Conv1D(4, 2)(lay.Permute((2, 1))(lay.Conv1D(5, 3)(x))),
        ["Conv2D", "Permute", "Conv2D"],
    ),
    "as_an_image": (
        lambda lay, x: lay.Conv2D(2, 3)(lay.Reshape((11, 3, 1))(lay.Conv1D(3, 1)(x))),
        ["Conv2D", "Reshape", "Conv2D"],
    ),
}


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", SIGNALS)
def test_layers_over_time_are_layers_over_height(k, case):
    body, expected = SIGNALS[case]
    source = make(k, body, shape=(11, 3))
    assert canonicalize(source).model.input_shape == (None, 11, 1, 3)
    assert check_same(source) == expected


@pytest.mark.parametrize("k", LIBRARIES)
def test_resizing_at_the_input_is_left_to_who_brings_the_images(k):
    def body(lay, x):
        x = lay.Resizing(9, 8, name="resizing")(lay.Rescaling(0.5)(x))
        return lay.Conv2D(4, 3)(lay.Rescaling(3.0, offset=1.0)(x))

    source = make(k, body, shape=(None, 20, 3), head=False)
    source = k.Model(source.inputs, k.layers.Flatten()(source.outputs[0]))
    canonical = canonicalize(source)
    assert canonical.model.input_shape == (None, 9, 8, 3)
    assert canonical.resizing is source.get_layer("resizing")
    np.testing.assert_allclose(canonical.input_scale, [1.5] * 3)
    np.testing.assert_allclose(canonical.input_offset, [1.0] * 3)
    assert kinds(canonical.model)[1:] == ["Conv2D", "Flatten"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_resizing_elsewhere_is_refused(k):
    def of_features(lay, x):
        return lay.Resizing(5, 5, name="resizing")(lay.Conv2D(3, 1)(x))

    def beside_others(lay, x):
        y = lay.Resizing(9, 9, name="resizing")(x)
        return lay.Add()([x, y])

    for body in (of_features, beside_others):
        matches(r"'resizing' \(Resizing\).*at the input", refusal(make(k, body)))


def function_operations(k):
    """The functions of each library for one and the same network."""
    if k is tf_keras:
        return tf.nn.relu6, tf.nn.silu, tf.reduce_mean, tf.pad, tf.concat, tf.reshape
    ops = k.ops
    return ops.relu6, ops.silu, ops.mean, ops.pad, ops.concatenate, ops.reshape


@pytest.mark.parametrize("k", LIBRARIES)
def test_operations_and_functions_keep_the_function(k):
    relu6, silu, mean, pad, concatenate, reshape = function_operations(k)

    def body(lay, x):
        x = pad(relu6(lay.Conv2D(4, 3)(x)), [[0, 0], [1, 0], [0, 2], [2, 1]])
        x = concatenate([silu(x), x], axis=-1)
        x = lay.Conv2D(4, 1)(reshape(x, (-1, 4, 18, 14)))
        return mean(x, axis=[1, 2])

    assert check_same(make(k, body)) == [
        "Conv2D", "ReLU", "ZeroPadding2D", "Reshape", "ZeroPadding2D", "Reshape",
        "Activation", "Multiply", "Concatenate", "Reshape", "Conv2D",
        "GlobalAveragePooling2D",
    ]  # fmt: skip


def split_by_channels(ops, x):
    first, second, third = ops.split(x, 3, axis=-1)
    return ops.maximum(third, first) + second * 0.5


def split_by_rows(ops, x):
    top, bottom = ops.split(x, 2, axis=1)
    return ops.minimum(bottom, top)


def split_of_a_part(ops, x):
    first, _ = ops.split(x, 2, axis=-1)
    return ops.split(first, 3, axis=2)[1]


def attended(ops, x):
    """CBAM's spatial attention, with the product alone."""
    mean, largest = (f(x, axis=-1, keepdims=True) for f in (ops.mean, ops.max))
    return x * mean * largest


OPERATIONS = {
    "transpose": (
        lambda ops, x: ops.transpose(x, (0, 2, 1, 3)), ["Permute"]
    ),
    "transpose_of_rows": (
        lambda ops, x: ops.transpose(ops.max(x, axis=1), (0, 2, 1)),
        ["MaxPooling2D", "Reshape", "Permute"],
    ),
    "expand_and_squeeze": (
        lambda ops, x: ops.squeeze(ops.expand_dims(x, 1), 1), ["Reshape", "Reshape"]
    ),
    "split_by_channels": (
        split_by_channels,
        ["Reshape", *["Cropping2D", "Reshape"] * 3, "Maximum", "DepthwiseConv2D",
         "Add"],
    ),
    "split_by_rows": (
        split_by_rows,
        ["Reshape", *["Cropping2D", "Reshape"] * 2, "Minimum"],
    ),
    "split_of_a_part": (
        split_of_a_part, ["Reshape", "Cropping2D", "Reshape"] * 2
    ),
    "clip_from_0": (lambda ops, x: ops.clip(x, 0.0, 1.5), ["ReLU"]),
    "clip": (
        lambda ops, x: ops.clip(x, -1.0, 2.0),
        ["DepthwiseConv2D", "ReLU", "DepthwiseConv2D"],
    ),
    "elu": (lambda ops, x: ops.elu(x), ["Activation"]),
    "selu": (
        lambda ops, x: ops.selu(x), ["Activation", "LeakyReLU", "DepthwiseConv2D"]
    ),
    "at_least_0": (lambda ops, x: ops.maximum(x, 0.0), ["ReLU"]),
    "at_least": (
        lambda ops, x: ops.maximum(x, -0.7),
        ["DepthwiseConv2D", "ReLU", "DepthwiseConv2D"],
    ),
    "at_most": (
        lambda ops, x: ops.minimum(0.7, x),
        ["DepthwiseConv2D", "ReLU", "DepthwiseConv2D"],
    ),
    "mean_of_channels": (
        lambda ops, x: ops.mean(x, axis=3), ["ChannelMean", "Reshape"]
    ),
    "maximum_of_channels": (
        lambda ops, x: ops.max(x, axis=-1), ["Reshape", "MaxPooling2D", "Reshape"]
    ),
    "mean_of_columns": (
        lambda ops, x: ops.mean(x, axis=1), ["AveragePooling2D", "Reshape"]
    ),
    "maximum_of_rows": (
        lambda ops, x: ops.max(x, axis=2, keepdims=True), ["MaxPooling2D"]
    ),
    "mean_of_means": (
        lambda ops, x: ops.mean(ops.mean(x, axis=[1, 2]), axis=-1, keepdims=True),
        ["GlobalAveragePooling2D", "ChannelMean"],
    ),
    "attended": (
        attended,
        ["ChannelMean", "Multiply", "Reshape", "MaxPooling2D", "Reshape", "Multiply"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", OPERATIONS)
def test_operation_keeps_the_function(k, case):
    compute, expected = OPERATIONS[case]

    def body(lay, x):
        x = compute(operations(k), lay.ReLU(4.0)(x) + lay.Conv2D(6, 1)(x))
        return lay.ReLU()(x)

    source = make(k, body, shape=(6, 6, 6))
    found = Counter(check_same(source))
    assert found == Counter(["ReLU", "Conv2D", "Add", *expected, "ReLU"])


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("AdaptiveAveragePooling2D", (3, 1), ["AveragePooling2D"]),
        ("AdaptiveMaxPooling2D", (9, 3), ["MaxPooling2D"]),
        ("AdaptiveMaxPooling2D", 9, []),
    ],
)
def test_pooling_to_a_size_of_keras_3(name, size, expected):
    pool = getattr(keras.layers, name)(size)
    found = check_same(make(keras, lambda lay, x: lay.Conv2D(4, 1)(pool(x))))
    assert found == [*expected, "Conv2D"]


def test_pooling_to_a_size_of_signals():
    pool = keras.layers.AdaptiveAveragePooling1D(4)
    source = make(keras, lambda lay, x: lay.Conv1D(4, 1)(pool(x)), shape=(12, 3))
    assert check_same(source) == ["AveragePooling2D", "Conv2D"]


def test_random_crop_of_keras_2_is_a_crop_where_it_resizes_nothing():
    def body(lay, x):
        return lay.RandomCrop(9, 6)(lay.Conv2D(4, 1)(x))

    assert check_same(make(tf_keras, body)) == ["Conv2D", "Cropping2D"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_random_crop_that_resizes_is_refused(k):
    source = make(k, lambda lay, x: lay.RandomCrop(6, 6, name="crop")(x))
    matches(
        r"'crop'.*leaves 9 x 9 of 9 x 9, not 6 x 6.*put CenterCrop", refusal(source)
    )


def test_random_crop_of_keras_3_may_leave_all():
    source = make(keras, lambda lay, x: lay.Conv2D(4, 1)(lay.RandomCrop(9, 9)(x)))
    assert check_same(source) == ["Conv2D"]


def test_pooling_by_unequal_windows_is_refused():
    pool = keras.layers.AdaptiveAveragePooling2D((9, 4), name="pool")
    text = refusal(make(keras, lambda lay, x: pool(x)))
    matches(r"'pool'.*pools \[9, 9\] to \[9, 4\], by windows of unequal", text)


def test_axes_that_change_places_in_keras_3():
    def body(lay, x):
        x = lay.ReLU()(lay.Conv2D(4, 1)(keras.ops.swapaxes(lay.Conv2D(4, 1)(x), 1, -1)))
        return lay.Conv2D(4, 1)(keras.ops.moveaxis(x, (1, 2), (3, 1)))

    kernel = ["Conv2D", "Permute", "Conv2D"]
    assert check_same(make(keras, body)) == [*kernel, "ReLU", *kernel[1:]]


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize(
    ("compute", "pattern"),
    [
        (lambda ops, x: ops.clip(x, 2.0, 1.0), r"clips to 2.0 to 1.0; expected two"),
        (lambda ops, x: ops.mean(x, axis=(1, 3)), r"makes \(None, 9\) of \(None, 9, 9"),
        (
            lambda ops, x: ops.expand_dims(ops.max(x, axis=(1, 2, 3)), 1),
            r"makes \(None,\) of .*expected a mean or maximum over height, width",
        ),
        (
            lambda ops, x: ops.transpose(ops.transpose(x, (1, 0, 2, 3)), (1, 0, 2, 3)),
            r"moves the images of a batch",
        ),
    ],
)
def test_operation_without_counterpart(k, compute, pattern):
    image = k.Input((9, 9, 3), batch_size=None)
    x = compute(operations(k), k.layers.Conv2D(3, 1)(image))
    with pytest.raises(UserError, match=pattern):
        canonicalize(k.Model(image, x), "features")


@pytest.mark.parametrize("k", LIBRARIES)
def test_functions_with_a_slope(k):
    functions = tf.nn if k is tf_keras else k.ops
    by_slope = "alpha" if k is tf_keras else "negative_slope"

    def body(lay, x):
        x = functions.leaky_relu(lay.Conv2D(4, 3)(x), **{by_slope: 0.15})
        return functions.leaky_relu(lay.LeakyReLU(0.3)(x))

    model = make(k, body)
    assert check_same(model) == ["Conv2D", *["LeakyReLU"] * 3]
    layers = canonicalize(model).model.layers
    slopes = [layer.alpha for layer in layers if hasattr(layer, "alpha")]
    np.testing.assert_allclose(slopes, [0.15, 0.3, 0.2], rtol=1e-6)


@pytest.mark.parametrize("k", LIBRARIES)
def test_models_inside_the_model_are_entered(k):
    lay = k.layers
    image = k.Input((9, 9, 3))
    first = lay.Conv2D(3, 1, name="conv")(image)
    two_ends = k.Model(image, [lay.ReLU()(first), first], name="two_ends")
    shared = k.Sequential(
        [k.Input((9, 9, 3)), lay.Conv2D(3, 1, name="conv"), lay.BatchNormalization()]
    )

    def body(lay, x):
        relu, conv = two_ends(x)
        return lay.Add()([shared(relu), shared(shared(conv))])

    found = Counter(check_same(make(k, body)))
    assert found == {"Conv2D": 4, "BatchNormalization": 3, "ReLU": 1, "Add": 1}


def test_custom_scale_of_inception_resnet():
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    def body(lay, x):
        return CustomScaleLayer(scale=0.17)([x, lay.Conv2D(3, 1)(x)])

    assert check_same(make(keras, body)) == ["Conv2D", "Add"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_block_of_convnext(k):
    convnext = importlib.import_module(f"{k.__name__}.src.applications.convnext")

    def body(lay, x):
        x = lay.LayerNormalization(epsilon=1e-6)(lay.Conv2D(8, 3, strides=3)(x))
        block = convnext.ConvNeXtBlock(
            8, drop_path_rate=0.5, layer_scale_init_value=0.1, name="block"
        )
        return block(x)

    source = make(k, body)
    classes = {type(layer).__name__ for layer in source.layers}
    assert {"LayerScale", "StochasticDepth"} <= classes
    assert check_same(source) == [
        "Conv2D", "L2Normalization", "DepthwiseConv2D",
        "DepthwiseConv2D", *NORMALIZED, "Conv2D", "Activation", "Conv2D", "Add",
    ]  # fmt: skip


@pytest.mark.parametrize("k", LIBRARIES)
def test_inputs_that_are_all_equal_have_no_direction(k):
    source = make(
        k,
        lambda lay, x: lay.LayerNormalization(epsilon=0.0)(x[:, :, :, :1]),
        shape=(2, 2, 2),
    )
    (_, beta), (kernel, bias) = (source.layers[i].get_weights() for i in (-3, -1))
    expected = np.full((2, 4), beta) @ kernel + bias
    np.testing.assert_allclose(outputs(canonicalize(source)), expected, rtol=1e-5)


@pytest.mark.parametrize("k", LIBRARIES)
def test_input_scaling_is_reported(k):
    def body(lay, x):
        x = lay.Rescaling(0.5, offset=-1.0)(x)
        x = lay.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0])(x)
        return lay.Conv2D(3, 1)(x)

    canonical = canonicalize(make(k, body))
    # (x / 2 - 1 - mean) / deviation, by hand.
    np.testing.assert_allclose(canonical.input_scale, [1 / 4, 1 / 6, 1 / 8], 1e-6)
    np.testing.assert_allclose(canonical.input_offset, [-1, -1, -1], 1e-6)


@pytest.mark.parametrize("k", LIBRARIES)
def test_a_carried_batch_norm_keeps_its_statistics(k):
    source = make(k, lambda lay, x: lay.BatchNormalization(name="bn")(lay.ReLU()(x)))
    model = canonicalize(source).model
    carrier = model.get_layer("bn_carrier")
    np.testing.assert_array_equal(carrier.get_weights()[0], np.ones((1, 1, 3, 1)))
    for found, expected in zip(
        model.get_layer("bn").get_weights(),
        source.get_layer("bn").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", REWRITES)
def test_rewrite_keeps_the_function(k, case):
    body, expected = REWRITES[case]
    assert check_same(make(k, body)) == expected


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("body", [residual, concatenated])
def test_branches_keep_the_function(k, body):
    check_same(make(k, body))


@pytest.mark.parametrize("k", LIBRARIES)
def test_add_of_four_becomes_a_chain_of_pairs(k):
    model = canonicalize(make(k, residual)).model
    adds = [x for x in model.layers if isinstance(x, tf_keras.layers.Add)]
    assert [len(x.input) for x in adds] == [2, 2, 2]


def test_python_addition_of_keras_3_is_an_add():
    source = make(keras, lambda lay, x: lay.Conv2D(3, 1)(x) + x)
    assert check_same(source) == ["Conv2D", "Add"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_batch_norm_keeps_epsilon_and_explicit_weights(k):
    def body(lay, x):
        x = lay.Conv2D(4, 1)(x)
        return lay.BatchNormalization(epsilon=1.7e-5, scale=False, center=False)(x)

    source = make(k, body)
    model = canonicalize(source).model
    gamma, beta, mean, variance = model.layers[2].get_weights()
    assert model.layers[2].epsilon == 1.7e-5
    np.testing.assert_array_equal(gamma, [1, 1, 1, 1])
    np.testing.assert_array_equal(beta, [0, 0, 0, 0])
    np.testing.assert_array_equal(mean, source.layers[2].get_weights()[0])
    np.testing.assert_array_equal(variance, source.layers[2].get_weights()[1])


def negative_gammas(lay, x):
    x = lay.BatchNormalization()(lay.Conv2D(6, 3)(x))
    x = lay.BatchNormalization()(lay.ReLU()(x))  # carried by a layer of its own
    x = lay.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    x = lay.Conv2D(4, 1, groups=2)(lay.BatchNormalization()(x))
    x = lay.Flatten()(lay.BatchNormalization()(x))
    return lay.BatchNormalization()(lay.Dense(5)(x))


@pytest.mark.parametrize("k", LIBRARIES)
def test_negative_gammas_become_positive_and_keep_the_function(k):
    source = make(k, negative_gammas)
    normalizations = [x for x in source.layers if "BatchNorm" in type(x).__name__]
    for layer in normalizations:
        gamma, *rest = layer.get_weights()
        gamma[::2] *= -1
        layer.set_weights([gamma, *rest])
    check_same(source)
    found = [
        x for x in canonicalize(source).model.layers if "Batch" in type(x).__name__
    ]
    assert len(found) == 5
    for layer, original in zip(found, normalizations, strict=True):
        gamma, _, mean, _ = layer.get_weights()
        theirs, _, mean_of_theirs, _ = original.get_weights()
        np.testing.assert_allclose(gamma, np.abs(theirs), rtol=1e-6)
        np.testing.assert_allclose(
            mean[::2], -mean_of_theirs[::2], rtol=1e-5, err_msg=layer.name
        )


@pytest.mark.parametrize("k", LIBRARIES)
def test_a_prelu_that_was_not_trained_is_a_relu(k):
    image = k.Input((9, 9, 3))
    x = k.layers.Flatten()(k.layers.PReLU()(image))
    model = canonicalize(k.Model(image, k.layers.Dense(2)(x))).model
    assert kinds(model)[1:] == ["ReLU", "Flatten", "Dense"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_relu_keeps_max_value(k):
    model = canonicalize(make(k, lambda lay, x: lay.ReLU(2.5)(lay.ReLU()(x)))).model
    assert [model.layers[1].max_value, model.layers[2].max_value] == [None, 2.5]


# ---- heads


def conv_reshape_softmax(lay, x):
    x = lay.Conv2D(4, 1)(lay.GlobalAveragePooling2D(keepdims=True)(x))
    return lay.Activation("softmax")(lay.Reshape((4,))(x))


HEADS = {
    "dense": (
        lambda lay, x: lay.Dense(4, activation="softmax")(lay.Flatten()(x)),
        ["Flatten", "Dense"],
    ),
    "layer": (
        lambda lay, x: lay.Softmax()(lay.Dense(4)(lay.Flatten()(x))),
        ["Flatten", "Dense"],
    ),
    "activation_then_linear": (
        lambda lay, x: lay.Activation("linear")(
            lay.Activation("softmax")(lay.Dense(4)(lay.Flatten()(x)))
        ),
        ["Flatten", "Dense"],
    ),
    "conv_reshape": (
        conv_reshape_softmax,
        ["GlobalAveragePooling2D", "Conv2D", "Reshape"],
    ),
}


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", HEADS)
def test_final_softmax_is_stripped_and_recorded(k, case):
    body, expected = HEADS[case]
    source = make(k, body, head=False)
    canonical = canonicalize(source)
    assert canonical.head == Head.SOFTMAX
    assert kinds(canonical.model)[1:] == expected
    expected = outputs(source, spread=0.02)  # small, so that no class takes it all
    assert 0.01 < expected.max() < 0.99
    np.testing.assert_allclose(
        outputs(canonical, spread=0.02), expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("use_bias", [True, False])
def test_one_sigmoid_becomes_two_logits(k, use_bias):
    def body(lay, x):
        x = lay.GlobalAveragePooling2D()(x)
        return lay.Dense(1, activation="sigmoid", use_bias=use_bias, name="p")(x)

    source = make(k, body, head=False)
    canonical = canonicalize(source)
    assert canonical.head == Head.SIGMOID
    assert kinds(canonical.model)[1:] == ["GlobalAveragePooling2D", "Dense"]
    assert canonical.model.output_shape == (None, 2)
    expected = outputs(source, spread=0.5)
    assert 0.01 < expected.min() < expected.max() < 0.99
    np.testing.assert_allclose(outputs(canonical, spread=0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("pools_last", [False, True])
def test_one_logit_becomes_two(k, pools_last):
    image = k.Input((6, 6, 3))
    pool, conv = k.layers.GlobalAveragePooling2D(), k.layers.Conv2D(1, 3)
    last = k.layers.Dense(1, name="logit")
    outputs_ = pool(conv(image)) if pools_last else last(pool(image))
    source = randomize(k.Model(image, outputs_))
    with pytest.warns(UserWarning, match=r"gives one value, .* 1 where it is above 0"):
        canonical = canonicalize(source)
    assert canonical.head == Head.LOGIT
    first, second = np.split(canonical.model(source_images(source)), 2, axis=1)
    np.testing.assert_allclose(
        second - first, source(source_images(source)), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(first, -second, rtol=1e-5)


@pytest.mark.parametrize("k", LIBRARIES)
def test_one_sigmoid_behind_a_convolution(k):
    def body(lay, x):
        x = lay.Conv2D(1, 1)(lay.GlobalAveragePooling2D(keepdims=True)(x))
        return lay.Activation("sigmoid")(lay.Flatten()(x))

    source = make(k, body, head=False)
    canonical = canonicalize(source)
    assert kinds(canonical.model)[2:] == ["Conv2D", "Flatten", "Dense"]
    expected = outputs(source, spread=0.5)
    np.testing.assert_allclose(outputs(canonical, spread=0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("k", LIBRARIES)
def test_several_sigmoids_are_labels(k):
    def body(lay, x):
        return lay.Dense(3, activation="sigmoid")(lay.GlobalAveragePooling2D()(x))

    source = make(k, body, head=False)
    canonical = canonicalize(source)
    assert canonical.head == Head.MULTI_LABEL
    assert kinds(canonical.model)[1:] == ["GlobalAveragePooling2D", "Dense"]
    expected = outputs(source, spread=0.5)
    assert 0.01 < expected.min() < expected.max() < 0.99
    np.testing.assert_allclose(outputs(canonical, spread=0.5), expected, rtol=1e-5)


FEATURES = {
    "dense": (lambda lay, x: lay.Dense(5)(lay.Flatten()(x)), ["Flatten", "Dense"]),
    "one": (lambda lay, x: lay.Dense(1)(lay.Flatten()(x)), ["Flatten", "Dense"]),
    "tanh": (
        lambda lay, x: lay.Dense(2, activation="tanh")(lay.Flatten()(x)),
        ["Flatten", "Dense", "Activation"],
    ),
    "sigmoids": (
        lambda lay, x: lay.Dense(2, activation="sigmoid")(lay.Flatten()(x)),
        ["Flatten", "Dense", "Activation"],
    ),
    "image": (lambda lay, x: lay.Conv2D(2, 3)(x), ["Conv2D", "Reshape"]),
    "decoder": (
        lambda lay, x: lay.Conv2DTranspose(3, 2, 2, activation="sigmoid")(x),
        ["Conv2D", "DepthToSpace", "Activation", "Reshape"],
    ),
    "image_named_features": (
        lambda lay, x: lay.Conv2D(2, 3, name="features")(x),
        ["Conv2D", "Reshape"],
    ),
}


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", FEATURES)
def test_features_are_whatever_comes_out(k, case):
    body, expected = FEATURES[case]
    source = make(k, body, head=False)
    canonical = canonicalize(source, "features")
    assert canonical.head == Head.FEATURES
    assert kinds(canonical.model)[1:] == expected
    found = canonical.model(source_images(source))
    expected = np.asarray(source(source_images(source)))
    np.testing.assert_allclose(found, expected.reshape(len(expected), -1), rtol=1e-4)


def source_images(source):
    shape = (2, *source.inputs[0].shape[1:])
    return np.random.default_rng(0).normal(0, 0.2, shape).astype(np.float32)


@pytest.mark.parametrize("k", LIBRARIES)
def test_classes_are_no_features(k):
    source = make(
        k, lambda lay, x: lay.Dense(4, "softmax")(lay.Flatten()(x)), head=False
    )
    with pytest.raises(UserError, match=r"last layer only, of classifiers") as error:
        canonicalize(source, "features")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="task 'feature' is unknown"):
        canonicalize(source, "feature")


# ---- graphs and names


@pytest.mark.parametrize("k", LIBRARIES)
def test_sequential(k):
    layers = [k.layers.Input((9, 9, 3)), k.layers.Conv2D(4, 3, activation="relu")]
    layers += [k.layers.Flatten(), k.layers.Dense(4)]
    assert check_same(randomize(k.Sequential(layers))) == ["Conv2D", "ReLU"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_layers_that_do_not_reach_the_output_are_left_out(k):
    image = k.Input((9, 9, 3))
    x = k.layers.Conv2D(4, 1)(image)
    k.layers.LeakyReLU()(x)
    source = k.Model(image, k.layers.Dense(4)(k.layers.Flatten()(x)))
    assert check_same(randomize(source)) == ["Conv2D"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_a_layer_without_weights_may_be_called_twice(k):
    def body(lay, x):
        relu = lay.ReLU(name="relu")
        return relu(lay.Conv2D(4, 1)(relu(x)))

    model = canonicalize(make(k, body)).model
    assert [x.name for x in model.layers[1:4:2]] == ["relu", "relu_1"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_names_are_kept_and_derived_ones_avoid_them(k):
    def body(lay, x):
        x = lay.SeparableConv2D(4, 1, activation="relu", name="a")(x)
        return lay.ReLU(name="a_relu")(lay.ReLU(name="a_depthwise")(x))

    model = canonicalize(make(k, body)).model
    assert [x.name for x in model.layers[1:]] == [
        "a_depthwise_1", "a", "a_relu_1", "a_depthwise", "a_relu", "flat", "classes",
    ]  # fmt: skip


def test_names_that_tensorflow_refuses_are_replaced():
    def body(lay, x):
        return lay.ReLU(name="my_conv")(lay.Conv2D(4, 1, name="_my conv")(x))

    model = canonicalize(make(keras, body)).model
    assert [x.name for x in model.layers[1:3]] == ["my_conv", "my_conv_1"]
    tf.function(model)(tf.zeros((1, 9, 9, 3)))


def test_mobilenet_v2():
    source = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, input_shape=(32, 32, 3), classes=10
    )
    canonical = canonicalize(source)
    model = canonical.model
    assert canonical.head == Head.SOFTMAX
    assert Counter(kinds(model)) == {
        "InputLayer": 1, "Conv2D": 35, "DepthwiseConv2D": 17, "Dense": 1,
        "BatchNormalization": 52, "ReLU": 35, "Add": 10, "ZeroPadding2D": 4,
        "Reshape": 1,  # global average over the one position that is left
    }  # fmt: skip
    assert model.count_params() == source.count_params()
    np.testing.assert_allclose(outputs(canonical), outputs(source), atol=1e-6)


@pytest.mark.slow
def test_resnet50():
    source = tf_keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=10
    )
    canonical = canonicalize(source)
    counts = Counter(kinds(canonical.model))
    assert [counts[k] for k in ("Conv2D", "BatchNormalization", "Add")] == [53, 53, 16]
    np.testing.assert_allclose(outputs(canonical), outputs(source), atol=1e-6)


# ---- refusals


REFUSALS = {
    "batch_norm_axis": (
        lambda lay, x: lay.BatchNormalization(axis=1, name="bn")(lay.Conv2D(3, 1)(x)),
        r"'bn'.*axis 1; expected the last",
    ),
    "concatenate_axis": (
        lambda lay, x: lay.Concatenate(axis=1, name="cat")([x, x]),
        r"'cat'.*axis 1",
    ),
    "broadcast_add": (
        lambda lay, x: lay.Add(name="add")([x, lay.Conv2D(1, 1)(x)]),
        r"'add' \(Add\).*of one shape",
    ),
    "channels_first": (
        lambda lay, x: lay.Flatten(data_format="channels_first", name="f")(x),
        r"'f' \(Flatten\).*channels_first",
    ),
    "broadcast_maximum": (
        lambda lay, x: lay.Maximum(name="max")([x, lay.Conv2D(1, 1)(x)]),
        r"'max' \(Maximum\).*of one shape",
    ),
    "multiply_with_other_dimensions": (
        lambda lay, x: lay.Multiply(name="m")([x, lay.GlobalAveragePooling2D()(x)]),
        r"'m' \(Multiply\).*as many dimensions of each",
    ),
    "crop_that_enlarges": (
        lambda lay, x: lay.CenterCrop(8, 10, name="crop")(x),
        r"'crop' \(CenterCrop\).*9 x 9 to 8 x 10, which enlarges.*use Resizing",
    ),
    "softplus": (
        lambda lay, x: lay.Conv2D(3, 1, activation="softplus", name="c")(x),
        r"'c' \(Conv2D\).*activation is softplus; expected one of elu, gelu",
    ),
    "unknown_layer": (
        lambda lay, x: lay.UnitNormalization(name="unit")(x),
        r"'unit' \(UnitNormalization\).*divides by what it measures of each image",
    ),
    "bicubic": (
        lambda lay, x: lay.UpSampling2D(interpolation="bicubic", name="up")(x),
        r"'up' \(UpSampling2D\).*interpolation is bicubic; expected nearest or bilin",
    ),
    "dilated_transposed": (
        lambda lay, x: lay.Conv2DTranspose(3, 2, dilation_rate=2, name="up")(x),
        r"'up' \(Conv2DTranspose\).*dilation_rate is \(2, 2\); expected 1: .*flipped",
    ),
    "inner_softmax": (
        lambda lay, x: lay.Softmax(name="attention")(x),
        r"'attention' \(Softmax\).*last layer only",
    ),
    "softmax_axis": (lambda lay, x: lay.Softmax(axis=1, name="s")(x), r"'s'.*axis 1"),
    "leaky_relu_with_a_bound": (
        lambda lay, x: lay.ReLU(6.0, negative_slope=0.1, name="leaky")(x),
        r"'leaky' \(ReLU\).*max_value, beside a slope, is 6.0; expected None",
    ),
    "relu_threshold": (
        lambda lay, x: lay.ReLU(threshold=1.0, name="r")(x),
        r"'r' \(ReLU\).*threshold is 1.0; expected 0.0",
    ),
    "relu_of_nothing": (
        lambda lay, x: lay.ReLU(max_value=0.0, name="r")(x),
        r"'r'.*max_value is 0\.0",
    ),
    "dense_on_more_than_images": (
        lambda lay, x: lay.Dense(3, name="d")(lay.Reshape((9, 9, 1, 3))(x)),
        r"'d' \(Dense\).*\(None, 9, 9, 1, 3\); expected units, images or signals",
    ),
    "prelus_of_one_tensor": (
        lambda lay, x: lay.Add()([lay.PReLU()(x), lay.PReLU(name="second")(x)]),
        r"'second' \(PReLU\).*another PReLU reads the same.*a BatchNormalization of",
    ),
    "prelu_on_more_than_images": (
        lambda lay, x: lay.PReLU(name="p")(lay.Reshape((9, 3, 3, 3))(x)),
        r"'p' \(PReLU\).*\(None, 9, 3, 3, 3\); expected units, images",
    ),
    "time_distributed_images": (
        lambda lay, x: lay.TimeDistributed(lay.Conv2D(2, 3), name="frames")(
            lay.Reshape((1, 9, 9, 3))(x)
        ),
        r"'frames' \(TimeDistributed\).*it holds Conv2D; expected one of Activation",
    ),
    "batch_norm_on_more_than_images": (
        lambda lay, x: lay.BatchNormalization(name="bn")(lay.Reshape((9, 3, 3, 3))(x)),
        r"'bn' \(BatchNormalization\).*\(None, 9, 3, 3, 3\); expected units, images",
    ),
    "factor_on_more_than_images": (
        lambda lay, x: lay.Rescaling(2.0, name="r")(lay.Reshape((9, 3, 3, 3))(x)),
        r"'r' \(Rescaling\).*\(None, 9, 3, 3, 3\); expected units, images",
    ),
    "layer_norm_axis": (
        lambda lay, x: lay.LayerNormalization(axis=1, name="norm")(x),
        r"'norm' \(LayerNormalization\).*axis 1; expected the last one",
    ),
    "layer_norm_axes": (
        lambda lay, x: lay.LayerNormalization(axis=(1, 2, 3), name="norm")(x),
        r"'norm' \(LayerNormalization\).*axis 1, 2, 3; expected the last one",
    ),
    "float16": (
        lambda lay, x: lay.Conv2D(3, 1, dtype="mixed_float16", name="half")(x),
        r"'half' \(Conv2D\).*policy is mixed_float16",
    ),
}


def refusal(source):
    with pytest.raises(UserError) as error:
        canonicalize(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def matches(pattern, text):
    assert re.search(pattern, text), text


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_names_the_layer(k, case):
    body, pattern = REFUSALS[case]
    matches(pattern, refusal(make(k, body)))


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_layer_norm_that_leaves_the_mean_is_refused():
    def body(lay, x):
        return lay.LayerNormalization(rms_scaling=True, name="norm")(x)

    matches(r"'norm' \(LayerNorm.*has rms_scaling.*train", refusal(make(keras, body)))


def test_other_operations_are_refused():
    text = refusal(make(tf_keras, lambda lay, x: tf.math.exp(x)))
    matches(r"\(tf.math.exp\).*this function is none of.* tf.math.add", text)
    text = refusal(make(keras, lambda lay, x: keras.ops.exp(x)))
    matches(r"\(Exp\) is not supported: this function has no integer kernel", text)


def test_functions_without_integers_are_refused_with_the_reason():
    for k, compute in ((keras, keras.ops.softplus), (tf_keras, tf.nn.softsign)):
        text = refusal(make(k, lambda lay, x, compute=compute: compute(x)))
        matches(r"(?i)\(\S*soft\w+\).*in float; .*train with elu, gelu", text)


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(k, value):
    source = make(k, lambda lay, x: lay.Conv2D(3, 1, name="conv")(x))
    kernel, bias = source.layers[1].get_weights()
    bias[1] = value
    source.layers[1].set_weights([kernel, bias])
    matches(r"'conv' holds (nan|inf) in its bias", refusal(source))


@pytest.mark.parametrize("k", LIBRARIES)
def test_no_classifier_of_images(k):
    lay = k.layers
    image, other, volume = k.Input((8, 8, 3)), k.Input((4,)), k.Input((2, 2, 2, 1))
    flat = lay.Flatten(name="flat")(image)
    logits = lay.Dense(2, name="classes")(flat)
    for inputs, out, pattern in (
        (
            image,
            lay.Conv2D(3, 1)(image),
            r"\(None, 8, 8, 3\), so it is not a classifier",
        ),
        (
            image,
            lay.Dense(1, activation="tanh")(flat),
            r"one value, so it is not a classifier",
        ),
        (
            image,
            [logits, flat],
            r"outputs classes, flat; expected.*output_name='classes'",
        ),
        (
            image,
            [logits, lay.Dense(3, name="more")(flat)],
            r"outputs classes, more; expected .*choose it with output_name$",
        ),
        (
            [image, other],
            lay.Concatenate()([flat, other]),
            r"has 2 inputs that its outputs depend on, .*bind them to .*, or train it",
        ),
        (
            volume,
            lay.Dense(2)(lay.Flatten()(volume)),
            r"takes \(None, 2, 2, 2, 1\); expected images",
        ),
    ):
        matches(pattern, refusal(k.Model(inputs, out)))


@pytest.mark.parametrize("k", LIBRARIES)
def test_undefined_image_size_is_refused_and_the_advice_works(k):
    image = k.Input((None, None, 3))
    x = k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(4, 3)(image))
    model = randomize(k.Model(image, k.layers.Dense(2)(x)))
    matches(r"\(None, None, None, 3\), inputs of no fixed size", refusal(model))
    fixed = k.models.clone_model(model, k.Input((224, 224, 3)))
    fixed.set_weights(model.get_weights())
    check_same(fixed)


@pytest.mark.parametrize("k", LIBRARIES)
def test_undefined_length_of_signals_is_refused_and_the_advice_works(k):
    signal = k.Input((None, 3))
    x = k.layers.GlobalAveragePooling1D()(k.layers.Conv1D(4, 3)(signal))
    model = randomize(k.Model(signal, k.layers.Dense(2)(x)))
    matches(r"\(None, None, 3\), .*keras.Input\(\(224, 3\)\)", refusal(model))
    fixed = k.models.clone_model(model, k.Input((224, 3)))
    fixed.set_weights(model.get_weights())
    check_same(fixed)


def test_models_without_a_graph_are_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    matches(r"no fixed graph", refusal(Subclassed()))
    matches(r"no fixed graph", refusal(keras.Sequential([keras.layers.Flatten()])))
    lazy = tf_keras.Sequential([tf_keras.layers.Flatten()])
    matches(r"no fixed graph", refusal(lazy))
