"""Names out of files, as messages may print them."""

from __future__ import annotations

_LONGEST = 60


def shown(name: str | bytes) -> str:
    """A name in quotes, fit for one line of a terminal, whatever it holds.

    Control characters, line ends and marks that turn the direction of writing come
    escaped; what goes beyond 60 characters is left out.
    """
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 3]}..."
    return repr(text)
