from __future__ import annotations

import pytest

from benchmarks.own_networks import NETWORKS, build


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_logits_of_their_images(name):
    size, _ = NETWORKS[name]
    model = build(name, 10)
    assert model.input_shape == (None, size, size, 3)
    assert model.output_shape == (None, 10)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert "BatchNormalization" in kinds


def test_the_residual_one_is_resnet_8():
    """By hand, of the stem, three stages and the dense layer, and of 336 channels."""
    kernels = 432 + 4_608 + 14_336 + 57_344 + 650
    assert build("resnet8", 10).count_params() == kernels + 4 * 336
