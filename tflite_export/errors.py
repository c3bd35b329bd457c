"""Mistakes that a user can make and mend; everything else that is raised is a bug."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

# Control characters, which no text that messages quote contains: `names.shown`
# escapes them.
_OPEN, _BETWEEN, _CLOSE = "\x02", "\x1f", "\x03"
_OPTION = re.compile(f"{_OPEN}(\\w+)(?:{_BETWEEN}([^{_CLOSE}]*))?{_CLOSE}")


class UserError(ValueError):
    """What was received, what was expected and how to mend it, in one line.

    The base of all errors that are about what a caller passed. Messages name options
    by `option`: `str(error)` has them as Python arguments, `render` as the caller
    likes.

    Attributes:
      options: names of the options that the message is about, in its order.
    """

    def __init__(self, message: str) -> None:
        """Takes the message, with options as `option` writes them."""
        self._message = message
        found = [match[1] for match in _OPTION.finditer(message)]
        self.options = tuple(dict.fromkeys(found))
        super().__init__(self.render(_as_argument))

    def render(self, show: Callable[[str, str | None], str]) -> str:
        """The message with each option as `show(name, value)` writes it.

        The value is None for an option named alone, "True" for a switch that is on.
        """
        return _OPTION.sub(lambda match: show(match[1], match[2]), self._message)


class ExportError(UserError):
    """A model that cannot be exported, read or run as TFLite."""


def option(name: str, value: object = None) -> str:
    """An option, with a value if it is about one, for the message of a `UserError`."""
    if value is None:
        return f"{_OPEN}{name}{_CLOSE}"
    text = str(value).replace(_CLOSE, "")
    return f"{_OPEN}{name}{_BETWEEN}{text}{_CLOSE}"


def as_flag(name: str, value: str | None) -> str:
    """An option as command lines write it, for `UserError.render`."""
    if value in (None, "True"):
        return f"--{name}"
    if isinstance(pairs := _literal(value), dict):
        value = ",".join(f"{key}={item}" for key, item in pairs.items())
    return f"--{name}={value}"


def _as_argument(name: str, value: str | None) -> str:
    if value is None:
        return name
    return f"{name}={repr(value) if _literal(value) is None else value}"


def _literal(text: str) -> object:
    """The number, truth value, dict or the like that a text is; None if it is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
