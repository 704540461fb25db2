"""Where clips are cut: in processes of this machine, or on the machines of a Dask cluster.

Decoders crash. An executor tells which of the things that it was given kills a process, and
finishes all others.
"""

import hashlib
import importlib.metadata
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import joblib
from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from emotion.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

UNDER_WAY = 2  # things that are handed out ahead, for each process
# may change a crop; pillow that of a still
PIXEL_PACKAGES = ("av", "mediapipe", "numpy", "opencv-contrib-python", "pillow")


class Executor(Protocol):
    """Runs a function on many things at once."""

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item], folder: Path
    ) -> Iterator[tuple[Item, Result | None]]:
        """Run a function on every item; it must do no harm to run it twice.

        Args:
            function: takes an item; can be pickled.
            items: what to run it on.
            folder: where it works.

        Yields:
            An item and what the function returned, or None where it killed its process; in no
            order.

        Raises:
            UserError: the processes can't be had.
        """


class LocalExecutor:
    """Runs on processes of this machine, through joblib."""

    def __init__(self, num_workers: int | None = None) -> None:
        """Keep the number of processes; None for one a core."""
        self.num_workers = num_workers or joblib.cpu_count()

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item], folder: Path
    ) -> Iterator[tuple[Item, Result | None]]:
        """See `Executor.run`.

        When a process dies, joblib gives up all that was under way without saying whose fault it
        was; those items are run again one at a time, so that the one that kills its process costs
        itself alone.
        """
        left = dict(enumerate(items))
        try:
            while left:
                try:
                    for key, result in self._in_parallel(function, left):
                        yield left.pop(key), result
                except TerminatedWorkerError:
                    for key in list(left)[: UNDER_WAY * self.num_workers]:
                        item = left.pop(key)
                        yield item, run_alone(function, item)
        finally:
            # Idle workers would keep their memory while we train; on Ctrl-C, busy ones must end.
            get_reusable_executor().shutdown(wait=True, kill_workers=bool(left))

    def _in_parallel(
        self, function: Callable[[Item], Result], items: dict[int, Item]
    ) -> Iterator[tuple[int, Result]]:
        parallel = joblib.Parallel(
            self.num_workers,
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch=UNDER_WAY * self.num_workers,
        )
        calls = list(items.items())
        return parallel(joblib.delayed(run_keyed)(function, *call) for call in calls)


class DaskExecutor:
    """Runs on the workers of a Dask cluster.

    It speaks to Dask itself: joblib's Dask backend (1.5.3) waits for ever for a task that Dask has
    given up, as it does one that kills its workers, and where the cluster has one thread it runs
    everything in the calling process.
    """

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        """Keep the scheduler's address; connect to nothing.

        Args:
            address: of the scheduler, `tcp://host:8786`.
            timeout_s: how long to wait for it, and for a first worker.
        """
        self.address = address
        self.timeout_s = timeout_s

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item], folder: Path
    ) -> Iterator[tuple[Item, Result | None]]:
        """See `Executor.run`; all workers must see the folder and run the same code.

        What a worker had in hand when it was lost, Dask gives to another one.

        Raises:
            UserError: no scheduler or worker answers, or one is not fit; names it.
        """
        from distributed import Client, KilledWorker, as_completed  # 0.2 s, for who asks for it

        try:
            client = Client(self.address, timeout=self.timeout_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"executor.address={self.address}: no Dask scheduler answers "
                f"({' '.join(str(error).split())}); start one with: dask scheduler"
            ) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=self.timeout_s)
            except TimeoutError:
                raise UserError(
                    f"the Dask scheduler at {self.address} has no worker; {START_WORKER}"
                ) from None
            folder.mkdir(parents=True, exist_ok=True)
            ours = fingerprint(folder)
            for worker, theirs in client.run(fingerprint, folder, on_error="return").items():
                if theirs != ours:
                    raise UserError(f"Dask worker {worker} {unfit_worker(theirs, ours)}")
            futures = {client.submit(function, item, pure=False): item for item in items}
            for future in as_completed(list(futures), loop=client.loop):
                item = futures.pop(future)
                if (error := future.exception()) is None:
                    yield item, future.result()
                elif isinstance(error, KilledWorker):
                    yield item, run_alone(function, item)
                else:
                    raise UserError(
                        f"the Dask cluster can't run our code ({' '.join(str(error).split())}): "
                        f"{START_WORKER}"
                    )


START_WORKER = (
    "start scheduler and workers in a checkout of the project, in its environment: "
    "PYTHONPATH=. .venv/bin/dask worker ADDRESS --nthreads 1"
)


def begin_work() -> None:
    """Settle a process that an executor has started: one core, and Ctrl-C left to its parent."""
    cv2.setNumThreads(1)  # the cores are shared out among processes already
    if parent_process() is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent sees to it


def run_keyed(function: Callable[[Item], Result], key: int, item: Item) -> tuple[int, Result]:
    """Call a function; give its result with the key by which the caller knows the item."""
    return key, function(item)


def run_alone(function: Callable[[Item], Result], item: Item) -> Result | None:
    """Call a function in a process of this machine that may die of it; None if it does."""
    try:
        with ProcessPoolExecutor(max_workers=1) as executor:
            return executor.submit(function, item).result()
    except TerminatedWorkerError:
        return None


def fingerprint(folder: Path) -> dict[str, str]:
    """Tell what decides the bytes that this process would write, and whether it sees a folder."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    packages = (*PIXEL_PACKAGES, "tifffile")  # which writes them
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {"folder": str(folder.is_dir()), "code": code.hexdigest(), **versions}


def unfit_worker(theirs: dict[str, str] | Exception, ours: dict[str, str]) -> str:
    """Say why a worker can't work with us, and the remedy."""
    if isinstance(theirs, Exception):
        return f"can't run our code ({theirs}): {START_WORKER}"
    if theirs["folder"] != ours["folder"]:
        return "does not see the cache: paths.cache must lie on a disk that all machines share"
    differing = [key for key in ours if ours[key] != theirs[key]]
    return f"has another version of {', '.join(differing)}: it must run the same commit"
