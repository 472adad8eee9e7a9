"""Who sits at this machine."""

import getpass


def user_name() -> str:
    """The name that notes are kept under where no other is given."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "nobody"  # a user without a name, as in a container
