"""Processes of tests: whether they have ended."""

import os
import signal
import time
from pathlib import Path


def gone(pid: int) -> bool:
    """Return whether a process is dead, or a zombie whose parent has not waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pids: list[int], patience_s: float = 60) -> list[int]:
    """Wait for processes to end; kill and return those that do not."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s and not all(map(gone, pids)):
        time.sleep(0.1)
    left = [pid for pid in pids if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left
