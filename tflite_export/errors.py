"""The one exception family of this package."""


class ExportError(ValueError):
    """What was received, what was expected and how to fix it, in one line."""
