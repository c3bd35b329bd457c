"""The first step of every command; what it imports takes a millisecond."""

from __future__ import annotations

import signal
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(command: str) -> NoReturn:
    """Runs `main()` of the module `command`, supervised, and exits.

    SIGINT and its like wait until the supervisor has been imported, which knows what
    to do about them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    from gdfq_tf.cli.supervisor import supervise

    supervise(command)
