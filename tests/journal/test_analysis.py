"""The process that analyzes clips may die, hang or fail; the journal goes on."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from emotion.journal import analysis
from emotion.journal.analysis import CRASHED, Finding, Worker


def deadly(connection: Connection, model: str) -> None:
    """Do what clips are named after, as a decoder may."""
    if model == "missing":
        connection.send(RuntimeError("no model"))
        return
    connection.send(None)
    while True:
        clip, _ = connection.recv()
        if clip.name == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if clip.name == "hangs":
            time.sleep(600)
        connection.send(Finding(reasons=(clip.name,)))


def test_a_clip_that_kills_the_process_costs_itself_alone():
    worker = Worker(deadly, "")
    try:
        names = ("one", "kills", "two", "kills", "kills", "three")
        found = [worker.analyze(Path(name), Path()) for name in names]
    finally:
        worker.close()
    reasons = [CRASHED if name == "kills" else name for name in names]
    assert [each.reasons[0] for each in found] == reasons
    assert [each.is_broken for each in found] == [name == "kills" for name in names]


def test_a_clip_that_takes_too_long_is_broken(monkeypatch: pytest.MonkeyPatch):
    worker = Worker(deadly, "")
    try:
        worker.analyze(Path("one"), Path())
        monkeypatch.setattr(analysis, "LIMIT_S", 0.2)
        assert worker.analyze(Path("hangs"), Path()).is_broken
        monkeypatch.setattr(analysis, "LIMIT_S", 60)
        assert worker.analyze(Path("two"), Path()).reasons == ("two",)
    finally:
        worker.close()


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_clip():
    worker = Worker(deadly, "missing")
    try:
        assert isinstance(worker.analyze(Path("one"), Path()), RuntimeError)
    finally:
        worker.close()
