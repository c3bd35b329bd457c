"""The student: the classifier's fake-quantized copy, built through tfmot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.graph.bn_statistics import batch_normalization_layers
from gdfq_tf.graph.queries import consumers, input_layers, is_depthwise, output_layer
from gdfq_tf.graph.slopes import quantize_slopes
from gdfq_tf.graph.traits import has_kernel, traits
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.calibration import Calibration
from gdfq_tf.quantization.plan import QuantizationPlan
from gdfq_tf.quantization.quantizers import (
    ActivationQuantizer,
    WeightQuantizer,
    channels_last_kernel,
)
from gdfq_tf.quantization.tfmot import tfmot

_layers = keras.layers
_INPUT_LAYER = "quantized_input"
_PREFIX = "quant_"


@dataclasses.dataclass(frozen=True)
class Student:
    """A fake-quantized model and the quantizers that its plan named.

    Attributes:
      model: student input (N, H, W, C) float32 -> logits (N, classes); kernels,
        biases, gammas and betas are trainable.
      plan: where each quantizer stands.
      activation_quantizers: group name -> quantizer.
      weight_quantizers: kernel layer name -> quantizer.
    """

    model: keras.Model
    plan: QuantizationPlan
    activation_quantizers: dict[str, ActivationQuantizer]
    weight_quantizers: dict[str, WeightQuantizer]

    def layer(self, name: str) -> keras.layers.Layer:
        """The classifier's layer of that name as it stands in the student."""
        return self.model.get_layer(_PREFIX + name).layer

    def wrapper(self, name: str) -> keras.layers.Layer:
        """The student's layer that stands for the classifier's layer of that name."""
        return self.model.get_layer(_PREFIX + name)

    def quantize_input(self, inputs: tf.Tensor) -> tf.Tensor:
        """Student inputs as the exported model's int8 input holds them."""
        return self.model.get_layer(_PREFIX + _INPUT_LAYER)(inputs)

    def set_output_shift(
        self,
        layer: keras.layers.Layer,
        following: Sequence[keras.layers.Layer],
        shift: np.ndarray,
    ) -> None:
        """Makes a kernel layer add something to input times kernel.

        Without a bias or BatchNormalization of its own, the layer can add nothing.

        Args:
          layer: of the classifier.
          following: its consumers there.
          shift: what to add, (channels,).
        """
        if layer.use_bias:
            self.layer(layer.name).bias.assign(shift)
        elif following and isinstance(following[0], _layers.BatchNormalization):
            mean = following[0].moving_mean.numpy() - shift
            self.layer(following[0].name).moving_mean.assign(mean)

    def move_statistics(self, source: keras.Model, target: keras.Model) -> None:
        """Takes BatchNormalization statistics from one model's to another's.

        Args:
          source: what the student was built from.
          target: the same but for its statistics.
        """
        for layer in batch_normalization_layers(target):
            copy, old = self.layer(layer.name), source.get_layer(layer.name)
            copy.moving_mean.assign_add(layer.moving_mean - old.moving_mean)
            copy.moving_variance.assign(layer.moving_variance)


class _LayerQuantizeConfig(tfmot.quantization.keras.QuantizeConfig):
    """At most one kernel quantizer and one output quantizer."""

    def __init__(
        self,
        kernel_name: str,
        weight_quantizer: WeightQuantizer | None,
        output_quantizer: ActivationQuantizer | None,
    ) -> None:
        self.kernel_name = kernel_name
        self.weight_quantizer = weight_quantizer
        self.output_quantizer = output_quantizer

    def get_weights_and_quantizers(
        self, layer: keras.layers.Layer
    ) -> list[tuple[tf.Variable, WeightQuantizer]]:
        if self.weight_quantizer is None:
            return []
        # Asked once, before the wrapper puts quantized tensors in the kernel's place.
        self.weight_quantizer.kernel = getattr(layer, self.kernel_name)
        return [(self.weight_quantizer.kernel, self.weight_quantizer)]

    def set_quantize_weights(
        self, layer: keras.layers.Layer, quantize_weights: list[tf.Tensor]
    ) -> None:
        if quantize_weights:
            setattr(layer, self.kernel_name, quantize_weights[0])

    def get_activations_and_quantizers(
        self, layer: keras.layers.Layer
    ) -> list[tuple[tf.Tensor, ActivationQuantizer]]:
        return []

    def set_quantize_activations(
        self, layer: keras.layers.Layer, quantize_activations: list[tf.Tensor]
    ) -> None:
        pass

    def get_output_quantizers(
        self, layer: keras.layers.Layer
    ) -> list[ActivationQuantizer]:
        return [] if self.output_quantizer is None else [self.output_quantizer]

    def get_config(self) -> dict[str, object]:
        raise NotImplementedError("a student is stored as plan, scales and weights")


class _PlanScheme(
    tfmot.quantization.keras.QuantizeScheme,
    tfmot.quantization.keras.QuantizeLayoutTransform,
    tfmot.quantization.keras.QuantizeRegistry,
):
    """A tfmot scheme that looks every layer up in a plan; no layout changes."""

    def __init__(self, configs: Mapping[str, _LayerQuantizeConfig]) -> None:
        self._configs = configs

    def get_layout_transformer(self) -> _PlanScheme:
        return self

    def apply(
        self, model: keras.Model, layer_quantize_map: dict[str, object]
    ) -> tuple[keras.Model, dict[str, object]]:
        return model, layer_quantize_map

    def get_quantize_registry(self) -> _PlanScheme:
        return self

    def supports(self, layer: keras.layers.Layer) -> bool:
        return layer.name in self._configs

    def get_quantize_config(self, layer: keras.layers.Layer) -> _LayerQuantizeConfig:
        return self._configs[layer.name]


def build_student(
    classifier: Classifier, plan: QuantizationPlan, calibration: Calibration
) -> Student:
    """The student of a classifier, its scales as calibrated.

    It takes inputs as the exported model's int8 input holds them
    (`Preprocessing.to_student_input`) and shares no variable with `classifier`.

    Args:
      classifier: what is copied.
      plan: of its model.
      calibration: of that plan.
    """
    model = classifier.model
    base = _student_graph(model, classifier.preprocessing.grid_shift())
    activation_quantizers = {
        name: ActivationQuantizer(name, quant_params)
        for name, quant_params in calibration.activation_quant_params.items()
    }
    weight_quantizers = {
        name: WeightQuantizer(
            bits,
            is_depthwise(model.get_layer(name)),
            calibration.weight_scales[name],
        )
        for name, bits in plan.weight_bits.items()
    }

    def config(layer: keras.layers.Layer) -> _LayerQuantizeConfig:
        group = plan.outputs.get(layer.name, "")
        if layer.name == _INPUT_LAYER:
            group = plan.input_group
        kernel_name = "depthwise_kernel" if is_depthwise(layer) else "kernel"
        return _LayerQuantizeConfig(
            kernel_name,
            weight_quantizers.get(layer.name),
            activation_quantizers.get(group),
        )

    scheme = _PlanScheme({layer.name: config(layer) for layer in base.layers})
    quantized = tfmot.quantization.keras.quantize_apply(
        tfmot.quantization.keras.quantize_annotate_model(base),
        scheme,
        quantized_layer_name_prefix=_PREFIX,
    )
    return Student(quantized, plan, activation_quantizers, weight_quantizers)


def _student_graph(model: keras.Model, grid_shift: float) -> keras.Model:
    """A copy of the classifier whose input passes a named identity, to be quantized."""
    first = model.layers[0].name
    image = keras.Input(model.input_shape[1:], name=first)
    outputs = {first: _layers.Activation("linear", name=_INPUT_LAYER)(image)}
    for layer in model.layers[1:]:
        inputs = [outputs[producer.name] for producer in input_layers(layer)]
        clone = type(layer).from_config(_config_of_copy(layer))
        outputs[layer.name] = clone(inputs if len(inputs) > 1 else inputs[0])
        clone.set_weights(_weights_to_start_from(layer))
    base = keras.Model(image, outputs[output_layer(model).name])
    _absorb_input_shift(model, base, grid_shift)
    return base


def _config_of_copy(layer: keras.layers.Layer) -> dict[str, object]:
    """The layer's; training must not change the sign of a gamma.

    Kernels of few bits have one negative level more than positive ones.
    """
    config = layer.get_config()
    if isinstance(layer, _layers.BatchNormalization):
        config |= {"gamma_constraint": keras.constraints.NonNeg()}
    return config


def _weights_to_start_from(layer: keras.layers.Layer) -> list[np.ndarray]:
    """The layer's weights; slopes, which are not trained, as they will be stored."""
    weights = layer.get_weights()
    if isinstance(layer, _layers.PReLU):
        return [quantize_slopes(slopes).values for slopes in weights]
    return weights


def _absorb_input_shift(
    model: keras.Model, base: keras.Model, grid_shift: float
) -> None:
    """Makes `base(x - grid_shift)` equal `model(x)` up to zero padding.

    A constant on every input pixel reaches a kernel layer's output as
    shift * sum(kernel): it goes into the layer's bias, or out of the mean of the
    BatchNormalization behind it.
    """
    if grid_shift == 0.0:
        return
    consumed_by, shifted = consumers(model), shifted_layers(model)
    for layer in model.layers[1:]:
        takes_it = shifted.issuperset(x.name for x in input_layers(layer))
        if takes_it and has_kernel(layer):
            kernel = channels_last_kernel(layer.get_weights()[0], is_depthwise(layer))
            shift = grid_shift * np.sum(kernel, axis=tuple(range(kernel.ndim - 1)))
            following = consumed_by[layer.name]
            if layer.use_bias:
                copy = base.get_layer(layer.name)
                copy.bias.assign_add(shift)
            elif isinstance(following[0], _layers.BatchNormalization):
                copy = base.get_layer(following[0].name)
                copy.moving_mean.assign_sub(shift)


def shifted_layers(model: keras.Model) -> set[str]:
    """Names of layers, the input first, whose outputs a constant on the input reaches.

    What they give in a student is less by its grid shift (`Preprocessing.grid_shift`).
    """
    shifted = {model.layers[0].name}
    for layer in model.layers[1:]:
        takes_it = shifted.issuperset(x.name for x in input_layers(layer))
        if takes_it and _hands_constants_on(layer):
            shifted.add(layer.name)
    return shifted


def _hands_constants_on(layer: keras.layers.Layer) -> bool:
    """Whether a constant on every input is one on every output, but for padding."""
    kept = traits(layer)
    return kept.moves or kept.pools or kept.joins
