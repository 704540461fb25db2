"""Stops a command on Ctrl-C or SIGTERM at any moment, and ends workers with their parent process.

Imports little, because scripts call `stop_on_signals` before they import anything else.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import FrameType
from typing import Any, NoReturn

GRACE_S = 3.5  # for the main thread to end in order
POLL_S = 0.5


class Stop:
    """The signal that has stopped this command, and what the command prints last."""

    signal = 0  # none yet
    raised = False  # whether KeyboardInterrupt was raised
    line = ""
    ending = threading.Lock()  # held by the thread that ends the process


def stop_on_signals(line: str) -> None:
    """Make SIGINT and SIGTERM end this command within 5 s, with status 130 or 143 and a last line.

    The first signal raises KeyboardInterrupt in the main thread. If the process still runs after
    `GRACE_S`, because the exception was swallowed or the thread is in C code, another thread ends
    it. Worker processes never outlive it.
    """
    Stop.line = line
    sys.excepthook, sys.unraisablehook = map(unless_stopped, (sys.excepthook, sys.unraisablehook))
    atexit.register(end_if_stopped)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # C code writes each signal's number
    threading.Thread(target=watch, args=(reader,), daemon=True).start()
    os.register_at_fork(after_in_child=leave_signals_to_parent)


def is_command() -> bool:
    """Return whether this process is one of our commands, which `stop_on_signals` has prepared."""
    return bool(Stop.line)


def is_stopped() -> bool:
    """Return whether a signal has stopped this command, so that no new work must begin."""
    return bool(Stop.signal)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt at the first one; `timeout` sends it twice."""
    Stop.signal = Stop.signal or number
    if not Stop.raised:
        Stop.raised = True
        raise KeyboardInterrupt


def watch(reader: int) -> None:
    """Wait for a signal's number in a pipe, and end the process some seconds later."""
    while (number := os.read(reader, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
        pass
    Stop.signal = Stop.signal or number
    time.sleep(GRACE_S)
    end_if_stopped()


def end_if_stopped() -> None:
    """End a stopped process and its children at once; the last function that it calls at exit."""
    if not Stop.signal:  # it has done its work: a signal comes too late
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        return
    end_command(128 + Stop.signal, Stop.line)


def end_command(status: int, line: str) -> NoReturn:
    """End this process and its children at once, from any thread, with a last line on stderr."""
    Stop.ending.acquire()  # never released
    with suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            child.kill()
    with suppress(OSError):
        os.write(sys.__stderr__.fileno(), f"{line}\n".encode())
    os._exit(status)


def unless_stopped(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Silence a hook that prints exceptions once the command is stopped."""
    return lambda *arguments: None if Stop.signal else hook(*arguments)


def leave_signals_to_parent() -> None:
    """Reset a forked child, such as a worker of a data loader: its parent decides when it ends."""
    signal.set_wakeup_fd(-1)
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@cache
def end_with(parent_pid: int) -> None:
    """End this process as soon as its parent process has ended, however that one ended."""

    def poll() -> None:
        while os.getppid() == parent_pid:  # another process adopts this one then
            time.sleep(POLL_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=poll, name="parent-watch", daemon=True).start()
