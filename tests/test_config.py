from __future__ import annotations

import dataclasses

import pytest

from gdfq_tf.config import RECIPES, BitWidths, get_recipe, parse_bit_widths
from gdfq_tf.errors import UserError


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("w8a8", BitWidths(8, 8, "edge")),
        ("w4a8", BitWidths(4, 8, "edge")),
        (" W2A3 ", BitWidths(2, 3, "edge")),
        ("w4a4/paper", BitWidths(4, 4, "paper")),
        ("w4a4/edge", BitWidths(4, 4, "edge")),
    ],
)
def test_widths_are_read(text, expected):
    assert parse_bit_widths(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("foo", "'foo'"),
        ("", "w<bits>a<bits>"),
        ("w4", "'w4'"),
        ("w4a8x", "'w4a8x'"),
        ("w-4a8", "'w-4a8'"),
        ("w4a4/", "'w4a4/'"),
        ("w9a8", "weight bits must be 2..8, got 9"),
        ("w1a8", "weight bits must be 2..8, got 1"),
        ("w4a9", "activation bits must be 3..8, got 9"),
        ("w4a2", "activation bits must be 3..8, got 2"),
        ("w4a4/wide", "'wide'"),
    ],
)
def test_wrong_widths_are_refused(text, named):
    with pytest.raises(UserError) as error:
        parse_bit_widths(text)
    assert named in one_line(error)


@pytest.mark.parametrize("text", ["w8a8", "w4a4/paper", "w2a3"])
def test_names_are_file_names_and_tell_protocols_apart(text):
    assert parse_bit_widths(text).name == text.replace("/", "_")


def test_recipes_are_frozen_and_known_by_their_names():
    assert set(RECIPES) == {"default", "gdfq"}
    for name, recipe in RECIPES.items():
        assert get_recipe(name) is recipe
        assert recipe.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.name = "other"


def test_the_published_recipe_holds_the_published_numbers():
    recipe = RECIPES["gdfq"]
    assert recipe.alternating
    assert not RECIPES["default"].alternating
    assert recipe.synthesis.batch_size == recipe.fine_tuning.batch_size == 200
    assert recipe.synthesis.bn_weight == 0.1
    assert not recipe.synthesis.relative_bn_loss
    assert recipe.fine_tuning.temperature == 20.0
    assert recipe.fine_tuning.learning_rate == 1e-4
    assert recipe.fine_tuning.distillation_per_class
    assert recipe.fine_tuning.feature_weight == 0.0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_num_steps_scales_both_trainings(name):
    full = RECIPES[name]
    half = get_recipe(name, full.fine_tuning.num_steps // 2)
    assert half.fine_tuning.num_steps == full.fine_tuning.num_steps // 2
    assert half.synthesis.num_steps == full.synthesis.num_steps // 2
    # Nothing else changes.
    assert full == dataclasses.replace(
        half, synthesis=full.synthesis, fine_tuning=full.fine_tuning
    )
    assert half.synthesis == dataclasses.replace(
        full.synthesis, num_steps=half.synthesis.num_steps
    )
    assert half.fine_tuning == dataclasses.replace(
        full.fine_tuning, num_steps=half.fine_tuning.num_steps
    )


def test_the_shortest_run_has_a_step_of_each():
    recipe = get_recipe("default", 1)
    assert recipe.fine_tuning.num_steps == 1
    assert recipe.synthesis.num_steps >= 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("best",), "default, gdfq"),
        (("default", 0), "--num_steps must be at least 1, got 0"),
        (("gdfq", -3), "got -3"),
    ],
)
def test_unknown_recipes_and_step_counts_are_refused(arguments, named):
    with pytest.raises(UserError) as error:
        get_recipe(*arguments)
    assert named in one_line(error)
