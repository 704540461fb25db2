"""Executors: all that was handed out comes back, and what kills its process costs itself alone."""

import os
import signal
import time
from pathlib import Path

import joblib
import pytest

from emotion.executor import LocalExecutor


def square(number: int) -> int:
    return number * number


def square_or_die(number: int) -> int:
    """Square a number; 3, 4 and 17 kill the process, as a decoder may."""
    if number in (3, 4, 17):
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def sleep_long(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.parametrize("items", [[], [7], list(range(40)), [5, 5, 5]])
def test_every_item_comes_back_once_with_its_result(tmp_path: Path, items: list[int]):
    found = list(LocalExecutor(2).run(square, items, tmp_path))
    assert sorted(found) == [(item, item**2) for item in sorted(items)]


def test_items_that_kill_their_process_cost_themselves_alone(tmp_path: Path):
    found = dict(LocalExecutor(2).run(square_or_die, range(20), tmp_path))
    deadly = {3, 4, 17}
    assert found == {n: None if n in deadly else n**2 for n in range(20)}


def test_there_is_a_process_a_core_unless_told(tmp_path: Path):
    assert LocalExecutor().num_workers == LocalExecutor(None).num_workers == joblib.cpu_count()
    assert LocalExecutor(3).num_workers == 3


def test_work_that_nobody_waits_for_ends_at_once(tmp_path: Path):
    results = LocalExecutor(2).run(sleep_long, [0.0, 100.0, 100.0, 100.0], tmp_path)
    _, pid = next(results)
    start_s = time.monotonic()
    results.close()  # as Ctrl-C does
    assert time.monotonic() - start_s < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
