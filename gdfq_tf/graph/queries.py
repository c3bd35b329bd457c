"""Questions that every stage asks of a canonical network, and answers on names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gdfq_tf.keras_compat import keras

_layers = keras.layers


def is_depthwise(layer: keras.layers.Layer) -> bool:
    """Whether the layer's kernel is (h, w, channels, multiplier)."""
    return isinstance(layer, _layers.DepthwiseConv2D)


def input_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers whose outputs `layer` takes, in order."""
    nodes = layer.inbound_nodes
    if isinstance(layer, _layers.InputLayer) or not nodes:
        return []
    producers = nodes[0].inbound_layers
    return list(producers) if isinstance(producers, (list, tuple)) else [producers]


def output_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer whose output is the model's."""
    return next(layer for layer in model.layers if layer.output is model.output)


def consumers(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Layer name -> the layers that take its output, in graph order."""
    result: dict[str, list[keras.layers.Layer]]
    result = {layer.name: [] for layer in model.layers}
    for layer in model.layers:
        for producer in input_layers(layer):
            result[producer.name].append(layer)
    return result


def tensors_at_once(model: keras.Model) -> Iterator[frozenset[str]]:
    """Which tensors are there while each layer is computed, one after the other.

    None is kept longer than layers take it.

    Yields:
      Of each layer but the input, in graph order: names of layers whose outputs they
      are, its own among them.
    """
    waiting = {name: len(layers) for name, layers in consumers(model).items()}
    there = {model.layers[0].name}
    for layer in model.layers[1:]:
        there.add(layer.name)
        yield frozenset(there)
        for producer in input_layers(layer):
            waiting[producer.name] -= 1
            if not waiting[producer.name]:
                there.remove(producer.name)


def join(names: Sequence[str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Groups names that belong together, directly or through others.

    Args:
      names: all of them, in order.
      pairs: which two belong together.

    Returns:
      Each name -> the first of its group.
    """
    groups = {name: [name] for name in names}
    for a, b in pairs:
        if groups[a] is not groups[b]:
            groups[a] += groups[b]
            groups |= dict.fromkeys(groups[b], groups[a])
    position = {name: i for i, name in enumerate(names)}
    return {
        name: min(group, key=position.__getitem__) for name, group in groups.items()
    }


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image through the kernel layers."""
    return sum(multiply_adds_by_layer(model).values())


def multiply_adds_by_layer(model: keras.Model) -> dict[str, int]:
    """Kernel layer name -> its multiply-adds of one image."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, _layers.Dense):
            found[layer.name] = layer.kernel.shape.num_elements()
        elif isinstance(layer, _layers.Conv2D | _layers.DepthwiseConv2D):
            positions = layer.output.shape[1] * layer.output.shape[2]
            elements = layer.get_weights()[0].size
            found[layer.name] = positions * elements
    return found
