"""The exceptions that mean "the user asked for something that cannot be"."""


class UserError(ValueError):
    """Bad input, told in one line: what is wrong and what is allowed.

    The command line prints the message and exits with code 2; Python callers catch it as a
    ``ValueError``.
    """


class DivergenceError(UserError):
    """What was asked for made numbers that are none; less guidance or precision may help."""
