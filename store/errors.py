"""The one exception that a person can fix."""


class UsageError(Exception):
    """Something the person can fix: the message is one line with the value, the rule and the way out.

    The command line prints it without a traceback and exits with status 2.
    """


class Busy(UsageError):
    """Another process is making the run that was asked for: whoever waits for it need not make it."""


class DiskFull(UsageError):
    """There is no room left: what was finished stays, and the command goes on from there once there is room."""
