from __future__ import annotations

import shlex

import pytest

from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.plan import match_kernel_layers
from gdfq_tf.report.advice import advise, keep_layers_flag


def layer(name: str, bits: int | None, error: float, num_bytes: int = 10) -> dict:
    return {
        "name": name,
        "weight_bits": bits,
        "rmse_over_scale": error,
        "weight_bytes": num_bytes,
    }


def test_layers_of_few_bits_with_the_largest_errors_come_first():
    rows = [
        layer("first", 8, 9.0),
        layer("a", 4, 0.5, 1),
        layer("b", 4, 2.0, 2),
        layer("add", None, 5.0),
        layer("c", 4, 1.0, 4),
        layer("d", 4, 0.4, 8),
    ]
    found = advise(rows, kept=["z", "c"])
    assert [row["name"] for row in found.worst] == ["b", "c", "a"]
    assert found.flag == "--keep_layers=z,c,b,a"
    assert found.num_bytes == 7


def test_of_8_bits_there_is_nothing_to_keep():
    found = advise([layer("a", 8, 0.3), layer("b", 8, 0.4)], kept=[])
    assert [row["name"] for row in found.worst] == ["b", "a"]
    assert found.flag is None


@pytest.mark.parametrize(
    "name",
    ["conv1", "a,b", 'say "x"', "it's", "a b", "w[0]", "*", "?", "$(x)", "a\\b", ";x"],
)
def test_the_flag_names_that_layer_alone_whatever_its_name(name):
    """As a shell, the parser of flags and the matching of patterns take it."""
    flag = keep_layers_flag([name, "conv2"])
    words = shlex.split(f"gdfq quantize model.keras --output_dir=x {flag}")
    values = COMMANDS["quantize"].parse(words[2:])
    inputs = keras.Input((4, 4, 1))
    others = ["w0", "ab", "a-b", "conv"]
    model = keras.Model(
        inputs, [keras.layers.Conv2D(1, 1, name=x)(inputs) for x in others]
    )
    layers = [*model.layers, _named(name), _named("conv2")]
    fake = type("Model", (), {"layers": layers})
    assert match_kernel_layers(fake, values.keep_layers) == {name, "conv2"}


def _named(name: str) -> keras.layers.Layer:
    built = keras.layers.Conv2D(1, 1)
    built._name = name
    return built
