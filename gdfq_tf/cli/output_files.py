"""Files that are either written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gdfq_tf.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, which never holds a part of it.

    Raises:
      UserError: the file system refused.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; check that its directory "
            "exists and is writable"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
