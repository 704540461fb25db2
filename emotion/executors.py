"""Where clips are cut: in processes of this machine, or on the machines of a Dask cluster.

Decoders crash. An executor reports the item that kills its process, and finishes all others.
"""

import hashlib
import importlib.metadata
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process
from pathlib import Path
from typing import TypeVar

from emotion.errors import UserError, is_machine_fault
from emotion.stopping import end_with

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # items that are handed out ahead, for each process
# Packages that can change a crop; pillow that of a still.
PIXEL_PACKAGES = ("av", "mediapipe", "numpy", "opencv-contrib-python", "pillow")
START_WORKER = (
    "start scheduler and workers in a checkout of the project, in its environment: "
    "PYTHONPATH=. .venv/bin/dask worker ADDRESS --nthreads 1"
)


@dataclass(frozen=True)
class LocalExecutor:
    """Runs in processes of this machine."""

    num_workers: int | None = None  # None for one per core

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item], folder: Path
    ) -> Iterator[tuple[Item, Result | None]]:
        """Yield each item, in any order, and what the function returned; None if it crashed.

        The function, which works in the folder, can be pickled and is safe to repeat. When a
        process dies, joblib gives up all items under way without naming the one at fault. These are
        run again one at a time, so that only the one that kills its process is lost.
        """
        import joblib
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        num_workers = self.num_workers or joblib.cpu_count()
        ahead = AHEAD * num_workers
        left = dict(enumerate(items))
        try:
            while left:
                parallel = joblib.Parallel(
                    num_workers,
                    return_as="generator_unordered",
                    batch_size=1,
                    pre_dispatch=ahead,
                    initializer=begin_work,
                )
                calls = [joblib.delayed(run_keyed)(function, *item) for item in left.items()]
                try:
                    for key, result in parallel(calls):
                        yield left.pop(key), result
                except TerminatedWorkerError:
                    for key in list(left)[:ahead]:
                        item = left.pop(key)
                        yield item, run_alone(function, item)
        finally:
            # Idle workers would keep their memory during training; on Ctrl-C, busy ones must end.
            get_reusable_executor().shutdown(wait=True, kill_workers=bool(left))


@dataclass(frozen=True)
class DaskExecutor:
    """Runs on the workers of a Dask cluster.

    joblib's Dask backend (1.5.3) waits forever for a task that Dask has given up because it killed
    its workers, and on a cluster with one thread it runs everything in the calling process.
    """

    address: str  # of the scheduler, `tcp://host:8786`
    timeout_s: float = 30.0  # to wait for the scheduler, and for a first worker

    def run(
        self, function: Callable[[Item], Result], items: Sequence[Item], folder: Path
    ) -> Iterator[tuple[Item, Result | None]]:
        """Run a function on every item, see `LocalExecutor.run`.

        A UserError names a worker that does not share the folder or runs other code.
        """
        from distributed import Client, KilledWorker, as_completed  # 0.2 s
        from distributed.comm import get_address_host_port

        try:
            # first, because a Client that does not connect may block when it is collected
            place = get_address_host_port(self.address, strict=True)
            socket.create_connection(place, self.timeout_s).close()
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
                raise UserError(f"{self.address} has no Dask worker; {START_WORKER}") from None
            folder.mkdir(parents=True, exist_ok=True)
            ours = fingerprint(folder)
            for worker, theirs in client.run(fingerprint, folder, on_error="return").items():
                if theirs != ours:
                    raise UserError(f"Dask worker {worker} {unfit_worker(theirs, ours)}")
            futures = {client.submit(run_item, function, item, pure=False): item for item in items}
            for future in as_completed(list(futures), loop=client.loop):
                item = futures.pop(future)
                if (error := future.exception()) is None:
                    yield item, future.result()
                elif isinstance(error, KilledWorker):
                    yield item, run_alone(function, item)
                elif is_machine_fault(error):
                    raise error
                else:
                    raise UserError(
                        f"the Dask cluster can't run our code ({' '.join(str(error).split())}): "
                        f"{START_WORKER}"
                    )


Executor = LocalExecutor | DaskExecutor


def begin_work() -> None:
    """Prepare a worker process: one core, Ctrl-C left to its parent, and ended with its parent."""
    import cv2

    cv2.setNumThreads(1)  # the cores are shared among the processes already
    if (parent := parent_process()) is not None:
        end_with(parent.pid)
        if threading.current_thread() is threading.main_thread():  # not in a thread of Dask
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_item(function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function in a worker, or in this process if it is the only one."""
    begin_work()
    return function(item)


def run_keyed(function: Callable[[Item], Result], key: int, item: Item) -> tuple[int, Result]:
    """Call a function; return its result with the key of the item."""
    return key, run_item(function, item)


def run_alone(function: Callable[[Item], Result], item: Item) -> Result | None:
    """Call a function in a new process of this machine; return None if it kills that process."""
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with suppress(TerminatedWorkerError), ProcessPoolExecutor(max_workers=1) as executor:
        return executor.submit(run_item, function, item).result()
    return None


@cache
def pixel_versions() -> dict[str, str]:
    """Return package -> installed version, of the packages that can change a crop."""
    return {package: importlib.metadata.version(package) for package in PIXEL_PACKAGES}


def fingerprint(folder: Path) -> dict[str, str]:
    """Return what decides the bytes that this process writes, and whether it sees a folder."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    return {
        "folder": str(folder.is_dir()),
        "code": hashlib.sha256(code).hexdigest(),
        "tifffile": importlib.metadata.version("tifffile"),  # it writes the stacks
        **pixel_versions(),
    }


def unfit_worker(theirs: dict[str, str] | Exception, ours: dict[str, str]) -> str:
    """Return how a worker differs from this process, and what to do."""
    if isinstance(theirs, Exception):
        return f"can't run our code ({theirs}): {START_WORKER}"
    if theirs["folder"] != ours["folder"]:
        return "does not see the cache: paths.cache must be on a disk that all machines share"
    differing = [key for key in ours if ours[key] != theirs[key]]
    return f"has another version of {', '.join(differing)}: it must run the same commit"
