"""Names and reasons out of files, as messages may print them."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_NAME = 60
_LONGEST_TEXT = 200


def shown(name: str | bytes) -> str:
    """A name in quotes, fit for one line of a terminal, whatever it holds.

    Control characters, line ends and marks that turn the direction of writing come
    escaped; what goes beyond 60 characters is left out.
    """
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
    return repr(_cut(text, _LONGEST_NAME))


def printable(text: str) -> str:
    """A text that may quote a file, such as a library's reason, fit for a message.

    Escaped as by `shown`, up to 200 characters, without quotes.
    """
    characters = (
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    return _cut("".join(characters), _LONGEST_TEXT)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def listed(names: Iterable[str]) -> str:
    """Names as `shown`, but without quotes, with commas between them."""
    return ", ".join(shown(name)[1:-1] for name in names)
