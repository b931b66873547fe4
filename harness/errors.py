"""The one exception that is for the user to read, and the safe part of others."""

import os
import re

SECRET_NAMES = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class UserError(Exception):
    """The request of the user is impossible. The message says what was found, what was expected and what
    to type next. The command line prints it without a traceback and exits with code 2."""


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message, without secrets."""
    lines = without_secrets(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def without_secrets(text: str) -> str:
    """The text with the names of secret environment variables in place of their values.

    A message may quote a request that contains the user's token, and records and logs are published.
    """
    for name, value in os.environ.items():
        if len(value) >= 8 and SECRET_NAMES.search(name):  # shorter ones are words like "true"
            text = text.replace(value, f"[{name}]")
    return text
