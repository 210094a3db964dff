"""The one exception for what a user can cause and mend."""


class UsageError(ValueError):
    """Says in one line what is wrong, where, and the way out. The command line prints it and exits with code 2."""
