from __future__ import annotations

import dataclasses

import pytest

from gdfq_tf.config import (
    DEFAULT_RECIPE,
    RECIPES,
    BitWidths,
    DistillationConfig,
    FineTuningConfig,
    Recipe,
    ReconstructionConfig,
    RefinementConfig,
    StudentBudget,
    SynthesisConfig,
    get_recipe,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError
from tests.tiny import alike


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
        ("w4a8/pointwise", BitWidths(4, 8, "pointwise")),
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
        ("w4a9", "activation bits must be 3..8 or 16, got 9"),
        ("w4a2", "activation bits must be 3..8 or 16, got 2"),
        ("w4a4/wide", "one of edge, paper, pointwise, got 'wide'"),
    ],
)
def test_wrong_widths_are_refused(text, named):
    with pytest.raises(UserError) as error:
        parse_bit_widths(text)
    assert named in one_line(error)


@pytest.mark.parametrize("text", ["w8a8", "w4a4/paper", "w4a8/pointwise", "w2a3"])
def test_names_are_file_names_and_tell_protocols_apart(text):
    assert parse_bit_widths(text).name == text.replace("/", "_")


def test_recipes_are_frozen_and_known_by_their_names():
    assert set(RECIPES) == {"calibrate", "fast", "balanced", "best", "gdfq"}
    for name, recipe in RECIPES.items():
        assert get_recipe(name) is recipe
        assert recipe.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.name = "other"
    assert DEFAULT_RECIPE == "fast"


def test_the_published_recipe_holds_the_published_numbers():
    recipe = RECIPES["gdfq"]
    assert isinstance(recipe.student, FineTuningConfig)
    assert recipe.synthesis.batch_size == 200
    assert recipe.synthesis.images_per_step((32, 32, 3)) == 200  # CIFAR's size
    assert recipe.synthesis.bn_weight == 0.1
    assert recipe.synthesis.learning_rate == 1e-3
    assert not recipe.synthesis.relative_bn_loss
    assert recipe.student.temperature == 20.0
    assert recipe.student.learning_rate == 1e-4
    assert recipe.student.classification_weight == 1.0
    assert recipe.student.num_steps == recipe.synthesis.num_steps


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"gdfq"}))
def test_all_other_recipes_reconstruct(name):
    recipe = RECIPES[name]
    assert isinstance(recipe.student, ReconstructionConfig)
    # Noise says nothing of the classes: it takes statistics of its own.
    assert recipe.student.images_are_noise == (recipe.synthesis.num_steps == 0)


WIDTHS = tuple(map(parse_bit_widths, ("w8a8", "w4a8", "w4a4")))


def num_training_steps(recipe, width) -> int:
    training = recipe.student.budgets.of(width).distillation
    return 0 if training is None else training.num_steps


def test_recipes_take_more_work_the_better_they_are():
    names = ("calibrate", "fast", "balanced", "best")
    steps = [RECIPES[name].synthesis.num_steps for name in names]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    for width in WIDTHS:
        passes = [RECIPES[x].image_passes((32, 32, 3), (width,)) for x in names]
        assert passes == sorted(set(passes))
        trained = [num_training_steps(RECIPES[x], width) for x in names]
        assert trained == sorted(trained)
    assert trained[-1] > trained[-2] > 0


@pytest.mark.parametrize("name", ["fast", "balanced", "best"])
def test_the_fewer_bits_the_more_images_and_training(name):
    recipe = RECIPES[name]
    sizes = [recipe.pool_size((32, 32, 3), (width,)) for width in WIDTHS]
    assert sizes == sorted(sizes)
    assert sorted(set(sizes)) == recipe.pool_sizes((32, 32, 3))
    trained = [num_training_steps(recipe, width) for width in WIDTHS]
    assert trained == sorted(trained)
    assert trained[0] == 0
    # A run for several widths makes as many as the one that wants most.
    assert recipe.pool_size((32, 32, 3), WIDTHS) == sizes[-1]


@pytest.mark.parametrize(
    ("bits", "field"),
    [
        ("w8a8", "eight_bits"),
        ("w4a8", "few_weight_bits"),
        ("w2a8/paper", "few_weight_bits"),
        ("w4a4", "few_activation_bits"),
        ("w8a7", "few_activation_bits"),
    ],
)
def test_budgets_go_by_widths(bits, field):
    budgets = RECIPES["best"].student.budgets
    assert budgets.of(parse_bit_widths(bits)) is getattr(budgets, field)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # 10 steps of 128 images; 1536 images 5 times.
        (32, 10 * 128 + 5 * 1536),
        # 2^21 // 224^2 = 41 images; 2^22 // 224^2 = 83, but half of 1536 at least.
        (224, 10 * 41 + 5 * 768),
        # 2^22 // 60^2 = 1165.
        (60, 10 * 128 + 5 * 1165),
    ],
)
def test_image_passes_by_hand(size, expected):
    student = ReconstructionConfig(alike(1536))
    recipe = Recipe("r", SynthesisConfig(10), RefinementConfig(5), student)
    shape = (size, size, 3)
    assert recipe.image_passes(shape, WIDTHS) == expected
    generator_alone = Recipe("r", SynthesisConfig(10), None, student)
    steps = recipe.synthesis.images_per_step(shape)
    assert generator_alone.image_passes(shape, WIDTHS) == 10 * steps


def test_without_bn_statistics_nothing_is_refined():
    balanced, calibrate = RECIPES["balanced"], RECIPES["calibrate"]
    found = balanced.without_bn_statistics()
    assert found.refinement is None
    assert found.student.logits_margin == 1.0
    assert found.student.budgets == balanced.student.budgets
    assert found.synthesis == balanced.synthesis
    # Noise excites no class and keeps its room.
    assert calibrate.without_bn_statistics() == calibrate
    assert RECIPES["gdfq"].without_bn_statistics() == RECIPES["gdfq"]


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"calibrate"}))
def test_num_steps_replaces_the_steps_and_nothing_else(name):
    full = RECIPES[name]
    half = get_recipe(name, full.synthesis.num_steps // 2)
    steps = full.synthesis.num_steps // 2
    assert half.synthesis == dataclasses.replace(full.synthesis, num_steps=steps)
    if name == "gdfq":
        expected = dataclasses.replace(full.student, num_steps=steps)
    else:
        expected = full.with_budgets(halved).student
        # 25 / 2 is rounded to even.
        refined = round(full.refinement.num_steps / 2)
        assert half.refinement == dataclasses.replace(
            full.refinement, num_steps=refined
        )
    assert half.student == expected
    assert half.name == name


def halved(budget: StudentBudget) -> StudentBudget:
    if budget.distillation is None:
        return budget
    training = dataclasses.replace(
        budget.distillation, num_steps=budget.distillation.num_steps // 2
    )
    return dataclasses.replace(budget, distillation=training)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("default",), "calibrate"),
        (("default",), "best"),
        (("balanced", 0), "num_steps must be at least 1, got 0"),
        (("gdfq", -3), "got -3"),
        (("calibrate", 5), "'calibrate' trains nothing"),
        (("calibrate", 0), "num_steps must be at least 1, got 0"),
    ],
)
def test_unknown_recipes_and_step_counts_are_refused(arguments, named):
    with pytest.raises(UserError) as error:
        get_recipe(*arguments)
    assert named in one_line(error)


@pytest.mark.parametrize(
    ("batch_size", "height", "width", "expected"),
    [
        (128, 8, 8, 128),
        (128, 128, 128, 128),  # 2^21 pixels exactly
        (128, 128, 129, 127),  # 127 * 16512 = 2,097,024 of 2,097,152
        (128, 160, 160, 81),  # 2^21 / 25600 = 81.92
        (128, 224, 224, 41),  # 2^21 / 50176 = 41.8
        (128, 256, 256, 32),
        (128, 1024, 1024, 32),  # 2 would fit; 32 at least
        (16, 1024, 1024, 16),  # never more than asked for
        (200, 32, 32, 200),
        (200, 112, 112, 167),  # 2^21 / 12544 = 167.2
    ],
)
def test_images_per_step(batch_size, height, width, expected):
    for kind in (SynthesisConfig, RefinementConfig, DistillationConfig):
        config = kind(1, batch_size=batch_size)
        assert config.images_per_step((height, width, 3)) == expected


def test_the_shortest_run_trains_its_student_too():
    recipe = RECIPES["balanced"]
    training = recipe.student.budgets.few_activation_bits.distillation
    budgets = get_recipe("balanced", 1).student.budgets
    assert budgets.few_activation_bits.distillation.num_steps == max(
        1, round(training.num_steps / recipe.synthesis.num_steps)
    )
    assert get_recipe("gdfq", 1).student.num_steps == 1


def test_activations_of_16_bits():
    widths = parse_bit_widths("w4a16")
    assert (widths.weight_bits, widths.activation_bits) == (4, 16)
    assert (widths.name, widths.has_int16) == ("w4a16", True)
    assert not parse_bit_widths("w4a8").has_int16
    with pytest.raises(UserError, match=r"3\.\.8 or 16, got 12"):
        parse_bit_widths("w8a12")
