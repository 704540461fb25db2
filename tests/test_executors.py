"""Executors: all that was handed out comes back, and what kills its process costs itself alone."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import joblib
import psutil
import pytest
from distributed import Client

from emotion.cli import REPOSITORY
from emotion.errors import UserError
from emotion.executors import DaskExecutor, LocalExecutor, fingerprint, unfit_worker
from emotion.stacks.sampling import num_images
from tests.caches import BuildableCache, without_times

# Functions without a name travel as they are: no process has to import this module.
square = lambda number: number**2  # noqa: E731
sleep_and_tell = lambda seconds: time.sleep(seconds) or os.getpid()  # noqa: E731
# 3, 4 and 17 kill the process, as a decoder may.
square_or_die = lambda number: (  # noqa: E731
    os.kill(os.getpid(), signal.SIGKILL) if number in (3, 4, 17) else number**2
)


@pytest.mark.parametrize("items", [[], [7], list(range(40)), [5, 5, 5]])
def test_every_item_comes_back_once_with_its_result(tmp_path: Path, items: list[int]):
    found = list(LocalExecutor(2).run(square, items, tmp_path))
    assert sorted(found) == [(item, item**2) for item in sorted(items)]


def test_items_that_kill_their_process_cost_themselves_alone(tmp_path: Path):
    found = dict(LocalExecutor(2).run(square_or_die, range(20), tmp_path))
    deadly = {3, 4, 17}
    assert found == {n: None if n in deadly else n**2 for n in range(20)}


@pytest.mark.slow
def test_there_is_a_process_a_core_unless_told(tmp_path: Path):
    pids = {
        workers: {pid for _, pid in LocalExecutor(workers).run(sleep_and_tell, [0.2] * 8, tmp_path)}
        for workers in (None, 1)
    }
    assert len(pids[1]) == 1 and len(pids[None]) <= joblib.cpu_count()
    assert len(pids[None]) > 1 or joblib.cpu_count() == 1


@pytest.mark.filterwarnings("ignore:3 tasks which were still being processed")
def test_work_that_nobody_waits_for_ends_at_once(tmp_path: Path):
    results = LocalExecutor(2).run(sleep_and_tell, [0.0, 100.0, 100.0, 100.0], tmp_path)
    _, pid = next(results)
    results.close()  # as Ctrl-C does; it must not wait for the others
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


KILLED = """
import sys, time
from pathlib import Path
from emotion.executors import LocalExecutor
sleep = lambda seconds: print(seconds, flush=True) or time.sleep(seconds)
for _ in LocalExecutor(2).run(sleep, [0.0, 100.0, 101.0], Path()):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("busy", [True, False])  # or still importing
def test_workers_end_when_their_parent_is_killed(busy: bool):
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = [parent.stdout.readline() for _ in range(3)] if busy else []
        children = []
        while len(children) < 2 + 1:  # and the resource tracker
            children = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()
        parent.wait()
    assert len(lines) == 3 * busy
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


# A Dask cluster, of the command-line tools


class Cluster:
    """A scheduler and its workers, each started by its command-line tool."""

    def __init__(self, folder: Path, with_code: bool = True) -> None:
        """Start a scheduler; it fails a task whose first worker dies."""
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        self.file = folder / "scheduler.json"
        self.start(
            with_code, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(self.file),
        )  # fmt: skip
        end_s = time.monotonic() + 240
        while not self.file.exists():
            assert time.monotonic() < end_s
            time.sleep(0.05)
        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            self.address = client.scheduler.address

    def start(self, with_code: bool, *command: str) -> subprocess.Popen:
        """Start a tool in a process group of its own, with our code to import or without."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY) if with_code else "",
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        }
        dask = Path(sys.executable).with_name("dask")
        process = subprocess.Popen(
            [dask, *command], cwd=self.folder, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.started.append(process)
        return process

    def work(self, with_code: bool = True) -> subprocess.Popen:
        """Start a worker, and the nanny that starts it anew if it dies."""
        return self.start(
            with_code, "worker", self.address, "--nthreads", "1", "--no-dashboard",
            "--local-directory", str(self.folder),
        )  # fmt: skip

    def wait_for_workers(self, number: int) -> None:
        """Wait until there are so many, no more and no fewer."""
        with Client(self.address, set_as_default=False) as client:
            end_s = time.monotonic() + 240
            while len(client.scheduler_info(n_workers=-1)["workers"]) != number:
                assert time.monotonic() < end_s
                time.sleep(0.05)

    def kill(self, process: subprocess.Popen) -> None:
        """Kill a tool and all that it has started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Kill whatever is left."""
        for process in self.started:
            if process.poll() is None:
                self.kill(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a cluster of two workers."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            cluster.work()
        cluster.wait_for_workers(2)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a scheduler that can't import our code, without workers."""
    cluster = Cluster(tmp_path_factory.mktemp("bare"), with_code=False)
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def clips(demo_cache: BuildableCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of twelve clips and a broken one."""
    folder = tmp_path_factory.mktemp("clips")
    for number, path in enumerate(sorted(demo_cache.root.glob("*.mp4"))[:12]):
        shutil.copy(path, folder / f"Happy_{number:04d}.mp4")
    (folder / "Happy_0099.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def build(compose: Callable, clips: Path) -> Callable[..., dict[str, bytes]]:
    """Give a function that cuts the clips into a folder; returns all files of the cache."""

    def cut(folder: Path, *overrides: str) -> dict[str, bytes]:
        cfg = compose(
            "preprocess",
            ["data=scrapping", f"data.root={clips}", f"paths.cache={folder}", *overrides],
        )
        BuildableCache.from_config(cfg).build()
        return without_times(folder)

    return cut


@pytest.fixture(scope="module")
def cut_here(build: Callable, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give the files of a run on this machine's processes."""
    files = build(tmp_path_factory.mktemp("local"), "num_workers=2")
    assert sum(name.endswith(".tiff") for name in files) == 12
    return files


@pytest.mark.slow
def test_cluster_gives_the_same_bytes(
    cluster: Cluster, build: Callable, cut_here: dict[str, bytes], tmp_path: Path
):
    files = build(tmp_path, "executor=dask", f"executor.address={cluster.address}")
    assert files == cut_here


@pytest.mark.slow
def test_run_completes_with_the_same_bytes_though_a_worker_is_killed(
    cluster: Cluster, build: Callable, cut_here: dict[str, bytes], tmp_path: Path
):
    victim, killed_after = cluster.started[1], []

    def kill_in_mid_run() -> None:
        while (done := len(list(tmp_path.rglob("stacks/[!.]*.tiff")))) < 2:
            time.sleep(0.005)
        cluster.kill(victim)
        killed_after.append(done)

    killer = threading.Thread(target=kill_in_mid_run)
    killer.start()
    files = build(tmp_path, "executor=dask", f"executor.address={cluster.address}")
    killer.join()
    assert files == cut_here
    assert killed_after[0] < 10
    cluster.work()
    cluster.wait_for_workers(2)


@pytest.mark.slow
def test_what_kills_a_worker_costs_itself_alone_there_too(cluster: Cluster, tmp_path: Path):
    found = dict(DaskExecutor(cluster.address).run(square_or_die, range(20), tmp_path))
    assert found == {n: None if n in (3, 4, 17) else n**2 for n in range(20)}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux alone has /proc")
@pytest.mark.slow
def test_a_worker_that_does_not_see_the_cache_is_refused(cluster: Cluster, tmp_path: Path):
    folder = os.open(tmp_path, os.O_RDONLY)
    mine = fcntl.fcntl(folder, fcntl.F_DUPFD, 900)  # /proc/self is another folder to each process
    try:
        results = DaskExecutor(cluster.address).run(square, [1], Path(f"/proc/self/fd/{mine}"))
        with pytest.raises(UserError, match=r"paths\.cache"):
            list(results)
    finally:
        os.close(mine)
        os.close(folder)


def test_without_a_scheduler_one_line_says_so(tmp_path: Path):
    executor = DaskExecutor("tcp://127.0.0.1:1", timeout_s=0.5)
    with pytest.raises(UserError, match=r"executor\.address") as refusal:
        list(executor.run(square, [1], tmp_path))
    assert "executor.address=tcp://127.0.0.1:1" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1", "tcp://"])
def test_address_that_is_none_is_named(tmp_path: Path, address: str):
    with pytest.raises(UserError, match=f"executor.address={address}"):
        list(DaskExecutor(address, timeout_s=0.5).run(square, [1], tmp_path))


@pytest.mark.slow
def test_without_a_worker_one_line_says_how_to_start_one(bare_cluster: Cluster, tmp_path: Path):
    with pytest.raises(UserError, match="dask worker") as refusal:
        list(DaskExecutor(bare_cluster.address, timeout_s=0.5).run(square, [1], tmp_path))
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_worker_without_our_code_is_refused(bare_cluster: Cluster, tmp_path: Path):
    worker = bare_cluster.work(with_code=False)
    with pytest.raises(UserError, match="PYTHONPATH") as refusal:
        list(DaskExecutor(bare_cluster.address).run(square, [1], tmp_path))
    assert "\n" not in str(refusal.value)
    bare_cluster.kill(worker)
    bare_cluster.wait_for_workers(0)


@pytest.mark.slow
def test_scheduler_without_our_code_is_refused(bare_cluster: Cluster, tmp_path: Path):
    bare_cluster.work()
    ours = partial(num_images, 90)
    with pytest.raises(UserError, match="PYTHONPATH") as refusal:
        list(DaskExecutor(bare_cluster.address).run(ours, [5, 10, 15], tmp_path))
    assert "\n" not in str(refusal.value)


def test_worker_of_another_commit_or_with_other_packages_is_refused(tmp_path: Path):
    ours = fingerprint(tmp_path)
    assert ours == fingerprint(tmp_path)
    assert set(ours) > {"folder", "code", "av", "mediapipe", "numpy"}
    theirs = {**ours, "av": "1.0", "code": "0"}
    assert all(name in unfit_worker(theirs, ours) for name in ("code", "av"))
    assert "numpy" not in unfit_worker(theirs, ours)


def test_fingerprint_changes_with_a_file_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("executors.py", "stacks/stack.py", "clips/demo/portrait.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr("emotion.executors.__file__", str(tmp_path / "executors.py"))
    found = {fingerprint(tmp_path)["code"]}
    for name in ("executors.py", "stacks/stack.py", "clips/demo/portrait.py"):
        (tmp_path / name).write_text("x = 2\n")
        found.add(fingerprint(tmp_path)["code"])
    assert len(found) == 4
