"""The one exception that a user is meant to read."""


class UserError(Exception):
    """What the user asked for cannot be done; the message says what was found, what was expected
    and what to type next. The command line prints it without a traceback and exits with 2."""


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
