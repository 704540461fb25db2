"""A program in a terminal of its own, whose screen can be read."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyte


class Terminal:
    """A pseudo-terminal in which a program runs.

    Attributes:
        screen: pyte's; `display` has the lines, `buffer` characters with colors.
        process: the program.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        columns: int = 160,
        lines: int = 45,
        **settings: Any,
    ) -> None:
        """Start a program; `settings` are those of `subprocess.Popen`."""
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._file, end = pty.openpty()
        self.screen.write_process_input = self.type  # answers what the program asks the terminal
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        variables = {**environment, "TERM": "xterm-256color", "COLORTERM": ""}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=end, stdout=end, stderr=end, env=variables,
            **settings,
        )  # fmt: skip
        os.close(end)

    @property
    def text(self) -> str:
        """The lines of the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._file, keys.encode())

    def read(self, seconds: float) -> bool:
        """Show what the program writes for some time; return False once it has ended."""
        if select.select([self._file], [], [], seconds)[0]:
            try:
                self._stream.feed(os.read(self._file, 65536))
            except OSError:  # Linux's end of file
                return False
        return True

    def wait_for(self, is_shown: Callable[[str], object], timeout_s: float = 60) -> None:
        """Read until the text of the screen is as expected.

        Raises:
            AssertionError: it never is; the message shows the screen.
        """
        end_s = time.monotonic() + timeout_s
        while not is_shown(self.text):
            assert self.read(0.1) and time.monotonic() < end_s, f"the screen:\n{self.text}"

    def close(self) -> None:
        """End the terminal and all that runs in it, also what ignores its hangup."""
        os.close(self._file)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the group that `setsid` has made
        self.process.wait()
