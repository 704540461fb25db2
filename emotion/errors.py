"""The one exception that a user sees as a line instead of a stack trace."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the file or key, and the remedy."""
