"""kill -9 at any moment: an entry is whole or not there; full disks leave nothing half-written."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emotion import REPOSITORY
from emotion.files import file_digest
from emotion.journal.folder import Folder
from emotion.journal.journal import Journal
from tests.journal.waiting import all_entries, analyzed, finished

pytestmark = pytest.mark.slow
NUM_KILLS = 3  # of each work
LATEST_S = 1.5  # after the journal was opened


def killed(work: str, folder: Path, *arguments: Path) -> list[list[str]]:
    """Kill a process with SIGKILL at a random moment of its work; return the words it printed."""
    command = [sys.executable, "-m", "tests.journal.victim", work, str(folder), *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    time.sleep(random.uniform(0, LATEST_S))
    assert process.poll() is None
    process.kill()
    lines = process.communicate()[0].splitlines(keepends=True)
    return [line.split() for line in lines if line.endswith("\n")]


def check(journal: Journal) -> dict[str, str | None]:
    """Compare files and rows; return id -> correction of all entries."""
    folder: Folder = journal.folder
    assert journal.problems == []
    entries = all_entries(journal)
    assert {path.name for path in folder.clips.iterdir()} == {each.clip_name for each in entries}
    for entry in entries:
        assert file_digest(folder.clip(entry)) == entry.sha256
        assert not entry.has_picture or folder.cover(entry).is_file()
    days = [entry.day for entry in entries]
    covers = [entry.day for entry in entries if entry.is_cover]
    assert sorted(covers) == sorted(set(days))
    analyzed(journal)  # analyses that were cut off run again
    assert all(entry.state == "done" for entry in all_entries(journal))
    assert not list(folder.pending.iterdir()) and not list(folder.results.iterdir())
    return {entry.id: entry.correction for entry in entries}


def test_uploads_corrections_and_deletions(clips: Path, tmp_path: Path):
    folder, paths = tmp_path / "journal", sorted(clips.iterdir())
    with Journal.open(folder) as journal:
        journal.add_person("Ann")
    expected: dict[str, str | None] = {}
    for _ in range(NUM_KILLS):
        uncertain = {}
        for event, entry_id, *label in killed("upload", folder, *paths):
            if event == "deleted":
                uncertain.pop(entry_id)
                expected.pop(entry_id, None)
            elif event == "deleting":
                uncertain[entry_id] = expected[entry_id]
            else:
                expected[entry_id] = label[0] if label else None
        with Journal.open(folder) as journal:
            there = check(journal)
        for entry_id, correction in expected.items():
            if entry_id in there:
                # the last correction may have been kept before it was printed
                assert there[entry_id] == correction or correction is None
            else:
                assert entry_id in uncertain
        assert len(there.keys() - expected.keys()) <= 1  # kept, but not yet printed
        expected = there


@pytest.fixture(scope="module")
def filled(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Give the folder of a journal with four entries, and its export."""
    folder = tmp_path_factory.mktemp("filled")
    with Journal.open(folder / "journal") as journal:
        ann = journal.add_person("Ann")
        for clip in sorted(clips.iterdir()):
            with clip.open("rb") as file:
                journal.receive(ann.id, file)
        analyzed(journal)
        job = finished(journal, journal.start_export())
        job.path.rename(folder / "export.zip")
    yield folder / "journal", folder / "export.zip"


@pytest.mark.parametrize("work", ["export", "film"])
def test_exports_and_films(filled: tuple[Path, Path], work: str):
    for _ in range(NUM_KILLS):
        killed(work, filled[0])
        with Journal.open(filled[0]) as journal:
            assert len(check(journal)) == 4


def test_imports(filled: tuple[Path, Path], tmp_path: Path):
    for _ in range(NUM_KILLS):
        lines = killed("read", tmp_path / "journal", filled[1])
        with Journal.open(tmp_path / "journal") as journal:
            num = len(check(journal))
            assert num in (0, 4)
            if lines[-1:] == [["imported"]]:
                assert num == 4
            if num:
                job = finished(journal, journal.start_export())
                assert job.path.read_bytes() == filled[1].read_bytes()


def test_old_clips(clips: Path, tmp_path: Path):
    with Journal.open(tmp_path / "journal") as journal:
        journal.add_person("Ann")
    for _ in range(NUM_KILLS):
        killed("old", tmp_path / "journal", clips)
        with Journal.open(tmp_path / "journal") as journal:
            check(journal)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Give a function that mounts a disk of some KiB, or enlarges it."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size_kib: int) -> Path:
        change = ["-o", f"remount,size={size_kib}k"] if disk.is_mount() else []
        command = ["mount", *(change or ["-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs"]), disk]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_refuses_and_leaves_nothing(small_disk: Callable, clips: Path):
    disk = small_disk(1200)
    clip = clips / "Happy_1.mp4"
    with Journal.open(disk / "journal") as journal:
        ann = journal.add_person("Ann")
        for number in range(100):
            (clips.parent / "changed").write_bytes(clip.read_bytes() + bytes(number))
            try:
                with (clips.parent / "changed").open("rb") as file:
                    journal.receive(ann.id, file)
            except OSError as error:
                assert "No space left" in str(error) and error.filename
                break
        else:
            pytest.fail("the disk was never full")
        kept = all_entries(journal)
        assert 0 < len(kept) == number
        assert not [path for path in journal.folder.pending.iterdir() if path.suffix == ".mp4"]
        job = finished(journal, journal.start_export())
        assert job.state == "failed"
        assert "free" in job.message or "No space left" in job.message
        assert not list(journal.folder.results.glob("*/*"))
        small_disk(64 << 10)
        journal.edit(kept[0].id, note="there is room again")
    with Journal.open(disk / "journal") as journal:
        assert check(journal).keys() == {entry.id for entry in kept}


def test_a_folder_that_cannot_be_written_is_named(small_disk: Callable):
    disk = small_disk(4096)
    with Journal.open(disk / "journal"):
        pass
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OSError, match="Read-only") as caught:
        Journal.open(disk / "journal")
    assert str(disk) in str(caught.value)
    command = [sys.executable, "-m", "emotion.journal", "--folder", disk / "journal"]
    run = subprocess.run(
        [*command, "--no-browser"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    (line,) = run.stderr.splitlines()
    assert run.returncode == 1 and "Read-only" in line and str(disk) in line
