"""The exception that a user sees as one line instead of a stack trace."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """A mistake that the user can fix: the message names the file or key, and what to do."""


def first_problem(error: "ValidationError") -> str:
    """Return the first problem of a failed validation as `key: message`."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key}: {first['msg']}" if key else first["msg"]
