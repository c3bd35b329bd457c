"""What commands tell of the interrupted ones that they go on from."""

from __future__ import annotations

import collections

from gdfq_tf.checkpoints import SavedCheckpoints
from gdfq_tf.cli import session
from gdfq_tf.cli.runner import CommandProgress


def open_checkpoints(
    checkpoints: SavedCheckpoints, progress: CommandProgress, *, fresh: bool
) -> SavedCheckpoints:
    """The same; `fresh` ones are empty. The user is told what is in them.

    The supervisor knows from here on that the command can be gone on with.
    """
    if fresh:
        checkpoints.forget()
    if stages := checkpoints.stages():
        count = collections.Counter(stages)
        left = [name if n == 1 else f"{name} ({n})" for name, n in count.items()]
        progress.note(
            f"goes on where an interrupted run was, which has left {', '.join(left)}; "
            "--fresh begins anew"
        )
    session.resumable(checkpoints.path)
    return checkpoints
