"""What a killed, crashed or doubled run of preprocess.py leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion import watchdog
from emotion.cli import REPOSITORY
from emotion.clips.naming import Clip
from emotion.errors import UserError
from emotion.files import MACHINE
from emotion.stacks.build import CacheBuilder
from emotion.stacks.clip_record import ClipRecord
from emotion.stacks.cutter import Cutter
from tests.caches import BuildableCache, without_times

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clips(demo_cache: BuildableCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of twelve clips, named as the seed's."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(12):
        source = sorted(demo_cache.root.glob("*.mp4"))[number]
        shutil.copy(source, folder / f"Happy_{number:04d}.mp4")
    return folder


def start(clips: Path, cache: Path) -> subprocess.Popen:
    """Start preprocess.py in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "preprocess.py", "data=scrapping", f"data.root={clips}",
         f"paths.cache={cache}", f"paths.output={cache}/out", "num_workers=2"],
        cwd=REPOSITORY, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_stacks(cache: Path, number: int, patience_s: float = 240) -> None:
    """Wait until so many stacks are there."""
    end_s = time.monotonic() + patience_s
    while len(list(cache.rglob("stacks/*.tiff"))) < number:
        assert time.monotonic() < end_s
        time.sleep(0.01)


def contents(cache: Path) -> dict[str, bytes]:
    (root,) = cache.glob("scrapping-*")
    return without_times(root)


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give the files of a run that nothing has disturbed."""
    cache = tmp_path_factory.mktemp("undisturbed")
    run = start(clips, cache)
    assert run.wait(120) == 0, run.stderr.read()
    return contents(cache)


@pytest.mark.parametrize("number", [1, 5])
def test_killed_run_goes_on_and_ends_as_an_undisturbed_one(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes], number: int
):
    run = start(clips, tmp_path)
    wait_for_stacks(tmp_path, number)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    (stacks,) = tmp_path.rglob("stacks")
    # as a killed writer leaves it
    (stacks / f".half.{MACHINE}-{run.pid}.tiff").write_bytes(b"half a stack")
    records = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("clips/*.json")}
    assert len(records) < 12
    again = start(clips, tmp_path)
    assert again.wait(120) == 0, again.stderr.read()
    assert contents(tmp_path) == undisturbed
    assert all(path.stat().st_mtime_ns == written for path, written in records.items())


def test_two_runs_at_once_on_one_cache_do_not_harm_it(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes]
):
    runs = [start(clips, tmp_path), start(clips, tmp_path)]
    assert [run.wait(180) for run in runs] == [0, 0], [run.stderr.read() for run in runs]
    assert contents(tmp_path) == undisturbed


def test_ctrl_c_stops_soon_and_keeps_what_is_done(clips: Path, tmp_path: Path):
    run = start(clips, tmp_path)
    wait_for_stacks(tmp_path, 2)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the whole group
    assert run.wait(30) == 128 + signal.SIGINT
    assert len(run.stderr.read().splitlines()) == 1
    assert len(list(tmp_path.rglob("stacks/[!.]*.tiff"))) >= 2


class DeadlyCutter(Cutter):
    """A cutter whose clip Happy_0003 kills the process that cuts it, as a decoder may."""

    def cut(self, clip: Clip) -> ClipRecord:
        if clip.id == "Happy_0003":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().cut(clip)


@pytest.fixture
def builder_with(compose, clips: Path, tmp_path: Path) -> Callable[[type[Cutter]], CacheBuilder]:
    """Give a function that builds the clips' cache with a cutter of another class."""

    def make(kind: type[Cutter]) -> CacheBuilder:
        class Builder(CacheBuilder):
            cutter = property(lambda self: kind(self.cache))

        places = [f"data.root={clips}", f"paths.cache={tmp_path}"]
        return Builder.from_config(
            compose("preprocess", ["data=scrapping", *places, "num_workers=2"])
        )

    return make


def test_clip_that_kills_its_process_costs_itself_alone(builder_with):
    builder = builder_with(DeadlyCutter)
    with pytest.raises(UserError, match="Happy_0003"):  # after all others are done
        builder.build(strict=True)
    assert len({row.clip for row in builder.cache.manifest()}) == 11
    assert [drop.clip for drop in builder.cache.dropped()] == ["Happy_0003"]


def test_full_disk_stops_and_the_rerun_goes_on(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes]
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        run = start(clips, disk)
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 1
        (line,) = errors.splitlines()
        assert "No space left" in line and str(disk) in line
        assert not list(disk.glob("scrapping-*/**/.*"))  # nothing half-written
        assert not list(disk.rglob("manifest.csv"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = start(clips, disk)
        assert again.wait(120) == 0, again.stderr.read()
        assert contents(disk) == undisturbed
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class HangingCutter(Cutter):
    """A cutter that hangs in clip Happy_0003, as a decoder may."""

    def cut(self, clip: Clip) -> ClipRecord:
        watchdog.PATIENCE_S = 2.0
        if clip.id == "Happy_0003":
            with watchdog.watchdog.watch(clip.path, ""):
                time.sleep(600)
        return super().cut(clip)


def test_clip_that_hangs_costs_itself_alone(builder_with):
    builder = builder_with(HangingCutter)
    builder.build()
    assert len({row.clip for row in builder.cache.manifest()}) == 11
    (drop,) = builder.cache.dropped()
    assert drop.clip == "Happy_0003" and "no frame" in drop.reason


def test_dry_run_says_what_would_be_done_and_does_nothing(clips: Path, tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "preprocess.py", "data=scrapping", f"data.root={clips}", "dry_run=true",
         f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}/out"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "12 clips" in run.stdout and "12 train" in run.stdout
    assert not (tmp_path / "cache").exists()
