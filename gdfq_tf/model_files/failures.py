"""What libraries raise on the files of strangers, as one line for the user."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from gdfq_tf.errors import UserError
from tflite_export.names import printable


def one_line(reason: object) -> str:
    """A reason that a library or a reader gave, fit for one line."""
    return printable(" ".join(str(reason).split()))


@contextlib.contextmanager
def in_one_line(message: str) -> Iterator[None]:
    """Turns any failure into one UserError line.

    Damaged or foreign files and failed downloads make zipfile, h5py and Keras
    raise almost every exception type, so this catches all of them; the original
    stays attached as the cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras 3 sets some in bold
        lines = [line for line in text.splitlines() if line.strip()]
        lines = lines or [type(error).__name__]
        # Keras nests messages and ends with the innermost.
        inner = [
            i for i, x in enumerate(lines) if x.startswith("Exception encountered")
        ]
        first = inner[-1] if inner else 0
        has_reason_behind = lines[first].startswith("Exception encountered when")
        reason = " ".join(lines[first : first + 1 + has_reason_behind])
        raise UserError(f"{message}: {one_line(reason)}") from error
