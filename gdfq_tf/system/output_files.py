"""Files that are either written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gdfq_tf.errors import UserError, option
from gdfq_tf.system.file_system import LockedError, locked, rename_to_free_name


def write_whole(
    path: Path,
    content: bytes,
    *,
    overwrite: bool = True,
    begin: Callable[[Path], None] = lambda partial: None,
) -> None:
    """Writes `content` to `path`, which never holds a part of it.

    Meanwhile it is in `.NAME.partial` beside; that of a killed process is taken over.

    Args:
      path: of the file; `~` is the home directory.
      content: all of it.
      overwrite: whether what is there may be replaced.
      begin: told the path of the partial file before it is made.

    Raises:
      UserError: the file system refused; something is at `path` and `overwrite` is off;
        another process is writing it.
    """
    path = path.expanduser()
    partial = path.with_name(f".{path.name}.partial")
    begin(partial)
    try:
        with locked(partial) as descriptor:
            os.truncate(descriptor, 0)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(descriptor)
            if overwrite:
                partial.replace(path)
            else:
                rename_to_free_name(partial, path)
    except FileExistsError as error:
        raise UserError(
            f"{path} exists; pass {option('overwrite', True)} to replace it or another "
            f"{option('output')}"
        ) from error
    except LockedError as error:
        raise UserError(
            f"{path} is being written by another process; wait for it or name another "
            "file"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; check that its directory "
            "exists and is writable"
        ) from error
