"""The one exception family for mistakes a user can make and fix."""


class UserError(ValueError):
    """What was received, what was expected and how to fix it, in one line.

    The command-line tools print the message alone and exit with code 1; any
    other exception is a bug and keeps its traceback.
    """
