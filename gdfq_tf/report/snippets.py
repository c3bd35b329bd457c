"""Code that runs one file: Python, Android and C, with the file's own numbers."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gdfq_tf.classifier import Head
from gdfq_tf.run_directory import input_format_of
from tflite_export.interface import END_TYPES

if TYPE_CHECKING:
    import jinja2

# Language -> its template.
_TEMPLATES = {"Python": "use.py.jinja", "Kotlin": "use.kt.jinja", "C": "use.c.jinja"}
_MOST_NAMES = 20


@dataclasses.dataclass(frozen=True)
class Snippet:
    """Code for one language.

    Attributes:
      language: its name.
      code: that runs as it stands.
    """

    language: str
    code: str


def snippets(summary: dict[str, Any], row: Mapping[str, Any]) -> list[Snippet]:
    """Code for the file of a row of models.

    Args:
      summary: as `summary.json` holds it.
      row: one of its models.
    """
    facts, environment = _facts(summary, row), _environment()
    return [
        Snippet(language, environment.get_template(name).render(facts))
        for language, name in _TEMPLATES.items()
        if language == "Python" or facts["input_type"] != "int16"
    ]


def end_types(summary: dict[str, Any], row: Mapping[str, Any]) -> tuple[str, str]:
    """Types of input and output of a row's file."""
    if "int16_input" in row:
        return "int16", "int16"
    classifier = summary["classifier"]
    return classifier["input_type"], classifier["output_type"]


def _facts(summary: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    classifier, form = summary["classifier"], input_format_of(summary)
    preprocessing = form.preprocessing
    mean, std = preprocessing.mean_and_std()
    head = Head(classifier["head"])
    input_type, output_type = end_types(summary, row)
    quantization = preprocessing.input_quantization(16 if input_type == "int16" else 8)
    picture = form.picture_shape
    output = row[f"{output_type}_output"]
    shape = classifier["input_shape"]
    return {
        "file": row["file"],
        "input_type": input_type,
        "output_type": output_type,
        "shape": shape,
        "channels": form.image_shape[-1],
        "picture": picture,
        "takes_pixels": form.takes_pixels,
        "uniform": preprocessing.is_uniform and quantization.bits == 8,
        "reverse": preprocessing.reverse_channels,
        "mean": _shortened(mean),
        "std": _shortened(std),
        "input": quantization.as_json(),
        "input_offset": END_TYPES[input_type],
        "output": output,
        "output_offset": END_TYPES[output_type],
        "low": quantization.lowest,
        "high": quantization.highest,
        "has_classes": head.has_classes,
        "labels": _few(summary["class_names"] or ()),
    }


def less(number: int) -> str:
    """What takes a number from what stands before."""
    return f"- {number}" if number >= 0 else f"+ {-number}"


def _shortened(values: tuple[float, ...]) -> list[float]:
    """One value if all are the same."""
    found = [float(f"{value:.9g}") for value in values]
    return found[:1] if len(set(found)) == 1 else found


def _few(names: Sequence[str]) -> Sequence[str]:
    """Names of classes, unless there are too many to read."""
    return names if len(names) <= _MOST_NAMES else ()


@functools.cache
def _environment() -> jinja2.Environment:
    """Templates of code: what stands in texts there is quoted by filters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gdfq_tf.report", "files"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "less": less,
        "python": repr,
        "cfloat": lambda value: f"{float(value)!r}f",
        "shell": shlex.quote,
        "comment": lambda text: " ".join(text.split()).replace("*/", "* /"),
    }
    return environment
