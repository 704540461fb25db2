"""Signals at random moments of every command: it stops, leaves no process, and can be repeated."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from emotion import REPOSITORY
from tests.reliability.world import Command, World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("stopping"),
]
MOMENTS = 10
LIMIT_S = 20  # 5 s on an idle machine
STARTUP_S = 0.5  # Python itself, before the first line of a script
FRESH = {  # command -> what is removed before, so that there is work for it
    "preprocess": ("cache",),
    "train": ("outputs/runs/new",),
    "sweep": ("outputs/sweeps",),
    "predict": ("outputs/predict",),
    "report": (),
    "export": ("outputs/runs/one/model.onnx",),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("stopping"))
    yield world
    world.close()


def start(command: Command) -> subprocess.Popen:
    is_script = command.script.endswith(".py")
    target = [str(REPOSITORY / command.script)] if is_script else ["-m", command.script]
    return subprocess.Popen(
        [sys.executable, *target, *command.arguments], cwd=REPOSITORY, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def remove(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = folder / name
        path.unlink(missing_ok=True) if path.is_file() else shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("name", FRESH)
def test_a_signal_stops_a_command_that_then_can_be_repeated(world: World, name: str):
    command = world.commands[name]
    world.restore()
    remove(world.folder, FRESH[name])
    begin_s = time.monotonic()
    process = start(command)
    _, error = process.communicate()
    duration_s = time.monotonic() - begin_s
    assert process.returncode == 0, error
    expected = command.result(world.folder)

    world.restore()
    remove(world.folder, FRESH[name])
    moments_s = np.random.default_rng(len(name)).uniform(0.05, duration_s, MOMENTS)
    for index, moment_s in enumerate(moments_s):
        sent = (signal.SIGINT, signal.SIGTERM)[index % 2]
        send = os.kill if index % 4 < 2 else os.killpg
        stop_at(command, moment_s, sent, send)
    outcome = world.run(command)
    assert outcome.status == 0, outcome.output
    assert command.result(world.folder) == expected


def stop_at(command: Command, moment_s: float, sent: signal.Signals, send) -> None:
    """Start a command, stop it after some seconds, and check how it ends."""
    process = start(command)
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        send(process.pid, sent)
    else:
        children = []
    try:
        _, error = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert not psutil.wait_procs(children, timeout=LIMIT_S)[1]
    if process.returncode == -sent and moment_s < STARTUP_S:
        return
    assert process.returncode in (0, 128 + sent), (moment_s, error)
    assert "Traceback" not in error, (moment_s, error)
    if process.returncode:
        assert error.splitlines()[-1].startswith("stopped; "), (moment_s, error)
