"""Run many commands of the project, each in a fork of one process that has imported the packages.

`python -m tests.reliability.commands` serves: a JSON line per command in, a JSON line out.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion import REPOSITORY

LIMIT_S = 120  # a command that takes longer hangs; all of them take seconds
POLL_S = 0.01


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `status` is None after the time limit, negative after a signal."""

    status: int | None
    output: str  # stdout and stderr


class Commands:
    """Starts commands in forks."""

    def __init__(self) -> None:
        """Start the process that forks."""
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        )

    def run(self, script: str, *arguments: str, until: Path | None = None) -> Outcome:
        """Run `train.py` or `emotion.reports`, for example, with these arguments.

        It is killed when it is about to write the file `until` for the second time.
        """
        self._server.stdin.write(json.dumps([str(until or ""), script, *arguments]) + "\n")
        self._server.stdin.flush()
        return Outcome(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        """End the process that forks."""
        self._server.stdin.close()
        self._server.wait()


def serve() -> None:
    """Import what the commands import, then run them until stdin ends."""
    import mediapipe  # noqa: F401
    import onnxruntime  # noqa: F401

    import emotion.inference.drawing
    import emotion.inference.export
    import emotion.reports.report
    import emotion.sweeps.job  # noqa: F401

    for line in sys.stdin:
        until, script, *arguments = json.loads(line)
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = os.fork()
            if process == 0:
                run_in_fork(script, arguments, output.fileno(), until)
            status = wait(process)
            output.seek(0)
            outcome = {"status": status, "output": output.read()}
        print(json.dumps(outcome), flush=True)


def wait(process: int) -> int | None:
    """Wait for a process; kill its session at the time limit, then None."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        ended, code = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(code)
        time.sleep(POLL_S)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def kill_at_second_write(path: str) -> None:
    """Kill this process when a complete new version of a file is about to replace the last one."""

    def watch(event: str, arguments: tuple) -> None:
        if event == "os.rename" and os.fspath(arguments[1]) == path and os.path.exists(path):
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(watch)


def run_in_fork(script: str, arguments: Sequence[str], output: int, until: str) -> None:
    """Run a script or module as Python would, and exit."""
    os.setsid()
    if until:
        kill_at_second_write(until)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [script, *arguments]
    status = 1
    try:
        if script.endswith(".py"):
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
        else:
            runpy.run_module(script, run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def read_below(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder; keys are relative paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    serve()
