"""The one exception that means "the user asked for something that cannot be"."""


class UserError(ValueError):
    """Bad input, told in one line: what is wrong and what is allowed.

    The command line prints the message and exits with code 2; Python callers catch it as a
    ``ValueError``.
    """
