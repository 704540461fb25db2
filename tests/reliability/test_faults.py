"""Full and read-only disks, and two starts at once, before every command."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.reliability.commands import Commands, Outcome
from tests.reliability.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("faults")]

# What each command makes; it is removed before, so that there is something to write.
MAKES = {
    "preprocess": "cache",
    "train": "outputs/runs/new",
    "resume": "outputs/runs/cut/train.log",
    "sweep": "outputs/sweeps",
    "report": "outputs/reports",
    "export": "outputs/runs/one/model.onnx",
    "predict": "outputs/predict",
}
FREE_KB = (0, 16, 400, 1500, 3000)  # left on the disk


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Make a world on a disk of its own, of 100 MB."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "world").mkdir()
    if not mount("-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder / "world")):
        pytest.skip("mounting a small disk needs root")
    world = None
    try:
        world = World(folder)
        yield world
    finally:
        if world:
            world.close()
        subprocess.run(["umount", "--lazy", str(folder / "world")], check=True)


@pytest.fixture(scope="module")
def expected(world: World) -> dict[str, object]:
    """Give what each command makes when nothing is wrong."""
    results = {}
    for name, made in MAKES.items():
        world.restore(without=made)
        outcome = world.run(world.commands[name])
        assert outcome.status == 0, outcome.output
        results[name] = world.commands[name].result(world.folder)
    return results


def assert_one_line(outcome: Outcome) -> None:
    assert outcome.status == 1, outcome.output
    assert "Traceback" not in outcome.output, outcome.output
    assert "Logging error" not in outcome.output, outcome.output
    assert sum(line.startswith("error:") for line in outcome.output.splitlines()) == 1


@pytest.mark.parametrize("free_kb", FREE_KB)
@pytest.mark.parametrize("name", MAKES)
def test_full_disk_stops_a_command_that_then_continues(
    world: World, expected: dict[str, object], name: str, free_kb: int
) -> None:
    world.restore(without=MAKES[name])
    disk = os.statvfs(world.folder)
    filler = world.folder / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - free_kb * 1024)
    outcome = world.run(world.commands[name])
    if outcome.status != 0:  # else there was room enough
        assert_one_line(outcome)
    assert outcome.status != 0 or free_kb > 0
    filler.unlink()
    if outcome.status != 0:
        outcome = world.run(world.commands[name])
        assert outcome.status == 0, outcome.output
    assert world.commands[name].result(world.folder) == expected[name]


@pytest.mark.parametrize("name", MAKES)
def test_read_only_disk_stops_a_command(world: World, name: str) -> None:
    world.restore(without=MAKES[name])
    assert mount("-o", "remount,ro", str(world.folder))
    try:
        assert_one_line(world.run(world.commands[name]))
    finally:
        assert mount("-o", "remount,rw", str(world.folder))


@pytest.mark.parametrize("name", MAKES)
def test_two_starts_at_once_give_one_result(
    world: World, expected: dict[str, object], name: str
) -> None:
    world.restore(without=MAKES[name])
    other = Commands()
    try:
        command = world.commands[name]
        with ThreadPoolExecutor() as threads:
            starts = [
                threads.submit(runner.run, command.script, *command.arguments)
                for runner in (world.runner, other)
            ]
            outcomes = [start.result() for start in starts]
    finally:
        other.close()
    for outcome in outcomes:  # one of them may be refused, in a line
        if outcome.status != 0:
            assert_one_line(outcome)
    assert any(outcome.status == 0 for outcome in outcomes)
    assert command.result(world.folder) == expected[name]


def test_two_runs_of_one_second_have_two_folders(world: World) -> None:
    world.restore()
    runs = world.folder / "outputs" / "runs"
    before = set(runs.iterdir())
    train = world.commands["train"]
    arguments = [a for a in train.arguments if not a.startswith("hydra.run.dir=")]
    other = Commands()
    try:
        with ThreadPoolExecutor() as threads:
            starts = [threads.submit(r.run, "train.py", *arguments) for r in (world.runner, other)]
            assert [start.result().status for start in starts] == [0, 0]
    finally:
        other.close()
    made = set(runs.iterdir()) - before
    assert len(made) == 2
    assert all((folder / "metrics.json").is_file() for folder in made)
