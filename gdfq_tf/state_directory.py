"""A directory for what one call goes on from if its process is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Checkpoints,
    SavedCheckpoints,
    is_of_checkpoints,
)
from gdfq_tf.errors import UserError, option
from gdfq_tf.system.file_system import LockedError, lock_directory


@contextlib.contextmanager
def kept_in(
    directory: str | Path | None, facts: Mapping[str, object]
) -> Iterator[Checkpoints]:
    """Checkpoints in a directory that no other process or call has meanwhile.

    The directory is removed at the end of the block, but not if that fails.

    Args:
      directory: for checkpoints alone; it is made if it is not there. None: nothing is
        kept.
      facts: all that bytes of the whole run depend on, see `SavedCheckpoints`.

    Raises:
      UserError: it is in use, holds something else or cannot be made and locked.
    """
    if directory is None:
        yield NO_CHECKPOINTS
        return
    path = Path(directory).expanduser()
    named = option("state_dir", directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = lock_directory(path.resolve())
    except LockedError as error:
        raise UserError(
            f"{named} is in use by another run; wait for it or pass another directory"
        ) from error
    except OSError as error:
        raise UserError(
            f"{named} is no directory that can be written and locked "
            f"({error.strerror}); pass another"
        ) from error
    try:
        for entry in sorted(path.iterdir()):
            if not is_of_checkpoints(entry):
                raise UserError(
                    f"{named} holds {entry.name}, which no interrupted run left; pass "
                    "a directory for this alone, such as a new one"
                )
        yield SavedCheckpoints(path, facts)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)
