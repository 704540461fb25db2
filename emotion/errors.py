"""The exceptions that a user sees as one line instead of a stack trace."""

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

MISSING_PACKAGE = (
    "error: the package {} is not installed: run `make install`, then the script with "
    ".venv/bin/python, or `pip install '.[train,predict]'`"
)


class UserError(ValueError):
    """A mistake that the user can fix: the message names the file or key, and what to do."""


class DamagedFile(UserError):
    """A file of ours whose content is not what was written, or is of another version."""


# No space, quota exceeded, read-only file system, input/output error, out of memory.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM}


def is_machine_fault(error: BaseException) -> bool:
    """Return whether an error is the machine's, such as a full disk, and no fault of a clip.

    It must stop the command. Code that catches any exception of one clip re-raises these.
    """
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINE_FAULTS


def first_problem(error: "ValidationError") -> str:
    """Return the first problem of a failed validation as `key: message`."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key}: {first['msg']}" if key else first["msg"]
