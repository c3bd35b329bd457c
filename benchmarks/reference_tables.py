"""Tables of docs/ that follow from the code: flags, recipes, layers, operations."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.config import RECIPES, FineTuningConfig, Recipe
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.operation_importers import OPERATIONS
from gdfq_tf.frontend.refusals import REFUSED_LAYERS, REFUSED_OPERATIONS
from gdfq_tf.model_files.layer_arguments import ACTIVATIONS, ARGUMENTS, IDENTITIES
from gdfq_tf.model_files.operation_arguments import OPERATION_MODULES

_HELP_WIDTH = 80
# What all layers have, or what means nothing to users.
_ARGUMENTS_NOT_SHOWN = ("name", "trainable", "dtype", "batch_input_shape")


def markdown_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], align: str
) -> str:
    """A table in Markdown.

    Args:
      titles: of the columns.
      rows: their cells.
      align: "l" or "r" for each column.
    """
    lines = {"l": "---", "r": "---:"}
    head = [titles, [lines[side] for side in align]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*head, *rows])


def commands() -> str:
    """What `gdfq COMMAND --help` shows of every command."""
    return "\n\n".join(
        f"### gdfq {name}\n\n```text\n{command.help(_HELP_WIDTH)}\n```"
        for name, command in COMMANDS.items()
    )


def recipes() -> str:
    """What each recipe consists of, the shortest first.

    Images and training are of students with 8 bits, with fewer in kernels, and with
    fewer in activations.
    """
    titles = ("recipe", "generator steps", "refinement steps", "images", "student")
    ordered = sorted(
        RECIPES.values(), key=lambda recipe: (_alternates(recipe), _num_steps(recipe))
    )
    rows = [
        (
            f"`{recipe.name}`",
            f"{recipe.synthesis.num_steps:,}",
            f"{recipe.refinement.num_steps if recipe.refinement else 0:,}",
            _numbers(_num_images(recipe)),
            _student(recipe),
        )
        for recipe in ordered
    ]
    return markdown_table(titles, rows, "lrrrl")


def _alternates(recipe: Recipe) -> bool:
    return isinstance(recipe.student, FineTuningConfig)


def _num_steps(recipe: Recipe) -> int:
    return recipe.synthesis.num_steps


def _student(recipe: Recipe) -> str:
    student = recipe.student
    if isinstance(student, FineTuningConfig):
        return f"trained in turn with the generator, {student.num_steps:,} steps"
    source = "reconstructed from noise" if student.images_are_noise else "reconstructed"
    trainings = [x.distillation for x in student.budgets.all()]
    steps = [0 if x is None else x.num_steps for x in trainings]
    if not any(steps):
        return source
    return f"{source}, then distilled for {_numbers(steps)} steps"


def _num_images(recipe: Recipe) -> list[int]:
    student = recipe.student
    if isinstance(student, FineTuningConfig):
        return [student.num_images]
    return [budget.num_images for budget in student.budgets.all()]


def _numbers(values: Sequence[int]) -> str:
    """One number if all are the same."""
    shown = [f"{value:,}" for value in values]
    return shown[0] if len(set(shown)) == 1 else " / ".join(shown)


def layers() -> str:
    """Layers that can be translated, with the arguments that are looked at."""
    by_arguments: dict[tuple[str, ...], list[str]] = {}
    for name, arguments in ARGUMENTS.items():
        shown = tuple(sorted(set(arguments) - set(_ARGUMENTS_NOT_SHOWN)))
        by_arguments.setdefault(shown, []).append(name)
    rows = [(_code(names), _code(shown)) for shown, names in by_arguments.items()]
    rows.append((_code(IDENTITIES), "none: the identity at inference"))
    return markdown_table(("layers", "arguments"), sorted(rows), "ll")


def refusals() -> str:
    """Layers and operations that are refused, by reason."""
    rows = [
        (_code(sorted(names.split())), str(UserError(reason)))
        for table in (REFUSED_LAYERS, REFUSED_OPERATIONS)
        for reason, names in table.items()
    ]
    return markdown_table(("layers or operations", "why, and what to do"), rows, "ll")


def operations() -> str:
    """Operations and functions that can be translated."""
    tensorflow = sorted(name for name in OPERATIONS if name.startswith("tf."))
    rows = (
        ("activation functions", _code(ACTIVATIONS)),
        ("operations of Keras 3", _code(sorted(OPERATION_MODULES))),
        ("TensorFlow functions in models of Keras 2", _code(tensorflow)),
    )
    return markdown_table(("written as", "names"), rows, "ll")


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "-"


def summary_keys() -> str:
    """Every key of summary.json, as its schema describes it."""
    path = importlib.resources.files("gdfq_tf.report") / "files/summary.schema.json"
    rows = _described(json.loads(path.read_text(encoding="utf-8")), "")
    return markdown_table(("key", "type", "what it is"), rows, "lll")


def _described(schema: Mapping[str, Any], place: str) -> Iterator[tuple[str, str, str]]:
    """Key, type and description of all properties of an object, and of theirs."""
    for name, part in schema.get("properties", {}).items():
        kinds = part.get("type", "integer")
        kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
        optional = "" if name in schema["required"] else " (optional)"
        text = part["description"].replace("|", "\\|")
        yield f"`{place}{name}`", f"{kind}{optional}", text
        inner = part
        while inner.get("type") == "array":
            inner, name = inner["items"], f"{name}[]"
        yield from _described(inner, f"{place}{name}.")
