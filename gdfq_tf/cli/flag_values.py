"""Flags that are lists, as the values that their texts stand for."""

from __future__ import annotations

from absl import flags

from gdfq_tf.errors import UserError, option


def numbers(values: flags.FlagValues, name: str) -> tuple[float, ...]:
    """The numbers of a list.

    Raises:
      UserError: they are none.
    """
    try:
        return tuple(float(text) for text in values[name].value)
    except ValueError as error:
        raise UserError(
            f"{option(name, ','.join(values[name].value))} must be numbers separated "
            "by commas, such as 0.485,0.456,0.406"
        ) from error


def constant_inputs(values: flags.FlagValues) -> dict[str, float | str]:
    """By names of inputs, numbers and paths of .npy files.

    Raises:
      UserError: they are neither, or a name is missing or stands twice.
    """
    found: dict[str, float | str] = {}
    for entry in values.constant_inputs:
        name, _, text = entry.partition("=")
        value = _number_or_file(text)
        if not name or value is None or name in found:
            raise UserError(
                f"{option('constant_inputs', ','.join(values.constant_inputs))} must "
                "be names of inputs, each once with a number or an .npy file, such as "
                "mask=1,weather=weather.npy"
            )
        found[name] = value
    return found


def _number_or_file(text: str) -> float | str | None:
    """What a text stands for; None if for neither."""
    try:
        return float(text)
    except ValueError:
        return text if text.endswith(".npy") else None
