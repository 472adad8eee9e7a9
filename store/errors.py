"""The one exception that a person can fix."""


class UsageError(Exception):
    """Something the person can fix: the message is one line with the value, the rule and the way out.

    The command line prints it without a traceback and exits with status 2.
    """
