"""`gdfq COMMAND`: reads the flags, then runs the command in a child process.

Imports neither TensorFlow nor anything else that takes long.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from gdfq_tf.cli.session import SIGNALS

_EXIT_USAGE = 2


def main() -> NoReturn:
    """The console command."""
    arguments = sys.argv[1:]
    from gdfq_tf.cli.flags import COMMANDS, help_of_all, names_help

    if not arguments or names_help(arguments[0]):
        _show(help_of_all())
    if arguments[0] == "--version":
        import importlib.metadata

        _show(f"gdfq-tf {importlib.metadata.version('gdfq-tf')}")
    if arguments[0] not in COMMANDS:
        _refuse(
            f"{arguments[0]!r} is no command; expected one of {', '.join(COMMANDS)}"
        )
    run(arguments[0], arguments[1:])


def run(name: str, arguments: list[str]) -> NoReturn:
    """One command with its flags, supervised; exits as `supervisor.supervise` does.

    SIGINT and its like wait until the supervisor has been imported, which knows what
    to do about them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    from gdfq_tf.cli.flags import COMMANDS, names_help
    from gdfq_tf.cli.supervisor import supervise
    from gdfq_tf.errors import UserError, as_flag

    command = COMMANDS[name]
    if any(map(names_help, arguments)):
        _show(command.help())
    try:
        flags = command.parse(arguments)
    except UserError as error:
        _refuse(f"{error.render(as_flag)}; gdfq {name} --help lists all flags")
    supervise(command.module, flags)


def _show(text: str) -> NoReturn:
    """Prints and exits; who reads but the first lines is no error."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)
    sys.exit(0)


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(_EXIT_USAGE)
