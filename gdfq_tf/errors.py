"""The errors that users can mend, of both packages: `UserError` is the base of all."""

from tflite_export.errors import ExportError, UserError, as_flag, option

__all__ = ["ExportError", "UserError", "as_flag", "option"]
