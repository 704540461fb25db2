"""The processes of `trainer=ddp`, which Lightning, `torchrun` or Slurm starts.

Lightning starts them by the command line of the main process. Imports little, because every
process begins here.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emotion.stopping import end_with

MAIN_PID = "EMOTION_MAIN_PID"  # environment variable, set for the processes that Lightning starts


@contextmanager
def main_process_announced() -> Iterator[None]:
    """Let the processes that Lightning starts meanwhile know this one, the main process.

    Afterwards the environment is as before: a command that is started later, by a program that has
    trained a model, is none of them.
    """
    if "LOCAL_RANK" in os.environ:  # this is one of them
        yield
        return
    before = os.environ.get(MAIN_PID)
    os.environ[MAIN_PID] = str(os.getpid())
    try:
        yield
    finally:
        if before is None:
            del os.environ[MAIN_PID]
        else:
            os.environ[MAIN_PID] = before


def end_with_main_process() -> None:
    """End this process as soon as the main process does, if this is one that Lightning started.

    A process whose main process was killed would wait for it forever.
    """
    main_pid = int(os.environ.get(MAIN_PID, os.getpid()))
    if main_pid != os.getpid():
        end_with(main_pid)


def run_alone(overrides: Sequence[str], run_dir: Path) -> None:
    """Run a cell of a sweep as a command of its own, which Lightning can start again for each rank.

    If a rank fails, Lightning kills the main process; here it kills that command, not the sweep.
    """
    module = ("-m", "emotion.commands.train")
    command = [sys.executable, *module, *overrides, f"hydra.run.dir='{run_dir}'"]
    environment = os.environ | {MAIN_PID: str(os.getpid())}  # it ends with this process
    if status := subprocess.run(command, env=environment).returncode:
        raise RuntimeError(f"trainer=ddp ended with status {status}, see the log in {run_dir}")
