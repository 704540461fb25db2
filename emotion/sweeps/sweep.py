"""Sweeps: which cells have to run, through any launcher, and what became of them.

Stands outside the way of the data, between Hydra's launchers and the folders of the cells. A cell
tells nobody but its `metrics.json` that it is done, so it does not matter in which process or on
which machine it runs.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple
from unittest import mock

import submitit
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict
from rich.console import Console
from submitit.core.utils import FailedJobError, pickle_load

from emotion import REPOSITORY
from emotion.errors import UserError
from emotion.files import claimed, holder, unfinished
from emotion.progress import duration
from emotion.stacks.build import CacheBuilder
from emotion.sweeps.estimate import cell_seconds
from emotion.training.cell import LOCK, cell_id, describe_cell, why_run
from emotion.training.record import (
    RECORD_FILE,
    FailedRun,
    FinishedRun,
    RunHead,
    RunRecord,
    as_plain,
    read_record,
    write_record,
)

LONG_S = 2 * 3600.0  # a sweep that takes longer is told of at once
SMALLER_RECIPE = "experiment=small"
POLL_S = 1.0
VISIBLE_S = 10.0  # until a shared file system shows what another machine has written


class Marks(NamedTuple):
    """When a cell's config and its record were written, in ns; None where there is none."""

    config_ns: int | None
    record_ns: int | None


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a sweep.

    Attributes:
        overrides: its arguments, as Hydra splits them.
        cfg: its composed config, with the section `hydra`.
        folder: where it writes.
    """

    overrides: tuple[str, ...]
    cfg: DictConfig
    folder: Path

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name

    @property
    def head(self) -> RunHead:
        """The head of its record."""
        return describe_cell(self.cfg, self.cfg.hydra.overrides.task)

    @property
    def why_run(self) -> str | None:
        """Why it has to run; None if it is finished."""
        return why_run(self.cfg, self.folder)

    @property
    def marks(self) -> Marks:
        """What its folder shows now."""
        return Marks(
            modified_ns(self.folder / ".hydra" / "config.yaml"),
            modified_ns(self.folder / RECORD_FILE),
        )

    def has_begun(self, before: Marks) -> bool:
        """Tell whether it has been started since."""
        return self.marks.config_ns != before.config_ns

    def is_over(self, before: Marks) -> bool:
        """Tell whether it has come to an end since; an old record that is gone is no end."""
        return self.marks.record_ns not in (None, before.record_ns)


def modified_ns(path: Path) -> int | None:
    """Say when a file was written; None if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


class Sweep:
    """The cells of one folder, and the launcher that runs them."""

    def __init__(
        self,
        launcher: Launcher,
        compose: Callable[[Sequence[str]], DictConfig],
        sweep_dir: Path,
    ) -> None:
        """Keep what runs cells.

        Args:
            launcher: Hydra's, set up.
            compose: makes a job's config from its overrides.
            sweep_dir: the folder that holds the cells' folders.

        Raises:
            UserError: the launcher needs a program that is not here.
        """
        if is_slurm(launcher) and not shutil.which("sbatch"):
            raise UserError(
                "hydra/launcher=submitit_slurm: there is no sbatch here; start it where Slurm is "
                "(docs/slurm.md), or take hydra/launcher=joblib"
            )
        self.launcher = launcher
        self.compose = compose
        self.sweep_dir = sweep_dir
        self.console = Console(soft_wrap=True, highlight=False)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep other sweeps out of the folder, and let jobs elsewhere find the code."""
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (
            claimed(self.sweep_dir / ".sweep.lock", f"sweep {self.sweep_dir}"),
            mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(paths)}),
        ):
            yield

    def cells(self, jobs: Sequence[Sequence[str]]) -> list[Cell]:
        """Compose the cells of a sweep; one that is asked for twice is one.

        Args:
            jobs: the overrides of each.

        Raises:
            UserError: two cells would share a folder, or another config lies in one.
        """
        cells: dict[Path, Cell] = {}
        for number, job in enumerate(jobs):
            cfg = self.compose(job)
            with open_dict(cfg):
                cfg.hydra.job.num = number  # for who puts it into hydra.sweep.subdir
            cell = Cell(tuple(job), cfg, self.sweep_dir / str(cfg.hydra.sweep.subdir))
            other = cells.setdefault(cell.folder, cell)
            if cell_id(other.cfg) != cell_id(cell.cfg):
                raise UserError(
                    f"hydra.sweep.subdir gives two cells the folder {cell.name}: leave it out, "
                    "and every cell has one of its own"
                )
            if cell.why_run == "another config":
                raise UserError(
                    f"{cell.folder} holds a run with another config: name another sweep, "
                    "or remove that folder"
                )
        return list(cells.values())

    def plan(self, cells: Sequence[Cell]) -> None:
        """Write down which cells make up the sweep; say which are finished, and which run again."""
        plan = [as_plain(cell.head) | {"folder": cell.name} for cell in cells]
        with unfinished(self.sweep_dir / "sweep.json") as temporary:
            temporary.write_text(json.dumps(plan, indent=2), encoding="utf-8")
        names: dict[str | None, list[str]] = defaultdict(list)
        for cell in cells:
            names[cell.why_run].append(cell.name)
        finished = names.pop(None, [])
        self.console.print(
            f"sweep {self.sweep_dir}: {len(cells)} cells, {len(finished)} of them finished; "
            f"the same command with sweep={self.sweep_dir.name} goes on where it stops"
        )
        if finished:
            self.console.print(f"finished, not run again: {', '.join(finished)}")
        for why, again in names.items():
            if why != "new":
                self.console.print(f"run again, {why}: {', '.join(again)}")

    def prepare_data(self, cells: Sequence[Cell]) -> None:
        """Make the stacks that are missing once, before cells do it side by side.

        Raises:
            UserError: no cell has data. If only some have none, they will say so themselves.
        """
        builders = [CacheBuilder.from_config(cell.cfg) for cell in cells]
        caches = {builder.cache.directory: builder for builder in builders}
        errors = []
        for cache in caches.values():
            try:
                cache.ensure()
            except UserError as error:
                errors.append(error)
        if errors and len(errors) == len(caches):
            raise errors[0]

    def run(self, cells: Sequence[Cell]) -> list[RunRecord | None]:
        """Run the cells that are not finished, and say how far they are.

        Args:
            cells: of this sweep; their data is prepared.

        Returns:
            The record of each cell, as `finish` gives it.

        Raises:
            UserError: the launcher can't start anything.
        """
        todo = [cell for cell in cells if cell.why_run]
        if todo:
            with Watch(todo, self.estimate(todo), self.console).watching():
                self.finish(todo)
        return [read_record(cell.folder) for cell in cells]

    def finish(self, cells: Sequence[Cell]) -> list[RunRecord | None]:
        """See to it that cells end, whatever becomes of single ones.

        Waits for those that another process is at, a job that a killed sweep has left say.

        Returns:
            The record of each; None if it could write none.

        Raises:
            UserError: the launcher can't start anything.
        """
        todo = {cell.folder: cell for cell in cells if cell.why_run}
        for folder in todo:
            if process := holder(folder / LOCK):
                self.console.print(f"{folder.name} is being run by {process}: waits for it")
        while todo:
            free = [cell for folder, cell in todo.items() if not holder(folder / LOCK)]
            if left := [cell for cell in free if cell.why_run]:
                self.launch(left)
            elif not free:
                time.sleep(POLL_S)
            for cell in free:
                del todo[cell.folder]
        return [read_record(cell.folder) for cell in cells]

    def estimate(self, cells: Sequence[Cell]) -> list[float] | None:
        """Estimate each cell's seconds, and say at once if all together take hours here.

        Returns:
            As `cell_seconds`; None too where cells run on other machines.
        """
        seconds = None
        if not is_slurm(self.launcher):
            seconds = cell_seconds([cell.cfg for cell in cells], LONG_S)
        if seconds is None:
            return None
        line = f"about {duration(sum(seconds))} for {len(cells)} cells on this machine"
        if sum(seconds) > LONG_S:
            smaller = [
                [o for o in cell.overrides if not o.startswith("experiment=")] + [SMALLER_RECIPE]
                for cell in cells
            ]
            small_s = cell_seconds([self.compose(overrides) for overrides in smaller], 0)
            if small_s and sum(small_s) < sum(seconds):
                line += f"; {SMALLER_RECIPE} makes it about {duration(sum(small_s))}"
        self.console.print(line)
        return seconds

    def launch(self, cells: Sequence[Cell]) -> None:
        """Launch cells together; where a pool broke, those in flight once more, one by one.

        A worker that dies takes its pool with it, and with the pool the cells that run beside it.
        """
        together, suspects = list(cells), []
        while together:
            before = {cell: cell.marks for cell in together}
            death = self._launch_once(together)
            if not death:
                break
            left = [cell for cell in together if not cell.is_over(before[cell])]
            in_flight = [cell for cell in left if cell.has_begun(before[cell])] or left
            together = [cell for cell in left if cell not in in_flight]
            names = ", ".join(cell.name for cell in in_flight)
            self.console.print(f"a worker died ({death}); once more, one by one: {names}")
            suspects += in_flight
        for cell in suspects:
            if death := self._launch_once([cell]):
                self._fail(cell, f"its process died: {death}")

    def _launch_once(self, cells: Sequence[Cell]) -> str:
        """Launch cells, wait until all are over, and note those that failed without a word.

        Returns:
            What a worker died of, if that broke the pool; "" otherwise.
        """
        before = [cell.marks for cell in cells]
        jobs = [[*cell.overrides, f"hydra.sweep.subdir='{cell.name}'"] for cell in cells]
        try:
            if is_submitit(self.launcher):
                results = self._submit(jobs)
            else:
                results = self.launcher.launch(jobs, initial_job_idx=0)
        except BrokenProcessPool as error:
            codes = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
            return codes[1] if codes else "killed"
        for cell, marks, result in zip(cells, before, results, strict=True):
            if isinstance(result, JobReturn):
                result = result._return_value if result.status == JobStatus.FAILED else None
            if result and not cell.is_over(marks):
                self._fail(cell, str(result))
        return ""

    def _fail(self, cell: Cell, error: str) -> None:
        """Note for a cell that it failed, since it could not do so itself."""
        self.console.print(f"cell {cell.name} failed: {error}")
        write_record(cell.folder, FailedRun(**dict(cell.head), error=error))

    def _submit(self, jobs: Sequence[Sequence[str]]) -> list[JobReturn | str]:
        """Submit jobs by submitit and wait until all are over.

        Hydra's launcher would give up at the first job that died, and wait for ever where no
        `sacct` tells it of that.

        Returns:
            What each job returned, or what it died of.

        Raises:
            UserError: the cluster did not take the jobs.
        """
        try:
            with mock.patch.object(submitit.Job, "results", lambda job: [job]):
                submitted = self.launcher.launch(jobs, initial_job_idx=0)
        except FailedJobError as error:
            raise UserError(f"sbatch takes no job: {error}") from None
        wait = wait_for_slurm if is_slurm(self.launcher) else wait_for_processes
        try:
            wait(submitted)
        except KeyboardInterrupt:
            if is_slurm(self.launcher):
                self.console.print(f"jobs go on; this stops them: scancel {array(submitted)}")
            raise
        return [result_of(job) for job in submitted]


def is_submitit(launcher: Launcher) -> bool:
    """Tell whether a launcher hands its jobs to submitit."""
    return hasattr(launcher, "_EXECUTOR")


def is_slurm(launcher: Launcher) -> bool:
    """Tell whether a launcher hands its jobs to Slurm, which runs them on other machines."""
    return getattr(launcher, "_EXECUTOR", "") == "slurm"


def wait_for_processes(jobs: Sequence[submitit.Job]) -> None:
    """Wait until the local processes of jobs have ended."""
    while not all(job.done() for job in jobs):
        time.sleep(POLL_S)


def wait_for_slurm(jobs: Sequence[submitit.Job]) -> None:
    """Wait until Slurm's queue has none of some jobs any more; needs no accounting (`sacct`)."""
    while True:
        queue = subprocess.run(
            ["squeue", "--noheader", "--format=%i", f"--jobs={array(jobs)}"],
            capture_output=True,
            text=True,
        )
        # Slurm forgets a job some minutes after its end; other errors, as of the network, pass
        if not queue.stdout.strip() and (queue.returncode == 0 or "Invalid job id" in queue.stderr):
            break
        time.sleep(POLL_S)
    end_s = time.monotonic() + VISIBLE_S
    while time.monotonic() < end_s and not all(job.paths.result_pickle.exists() for job in jobs):
        time.sleep(POLL_S)


def array(jobs: Sequence[submitit.Job]) -> str:
    """Give the numbers of the job arrays that jobs belong to, as Slurm's commands take them."""
    return ",".join(sorted({job.job_id.partition("_")[0] for job in jobs}))


def result_of(job: submitit.Job) -> JobReturn | str:
    """Read what a job returned, or say what it died of."""
    if not job.paths.result_pickle.exists():
        return f"its job {job.job_id} died; see {job.paths.stderr}"
    outcome, result = pickle_load(job.paths.result_pickle)
    return result if outcome == "success" else f"its job {job.job_id} failed: {result}"


class Watch:
    """Says after each cell how many are done, and when all will be.

    Looks at the cells' records, and so sees those that run in other processes or elsewhere.
    """

    def __init__(
        self, cells: Sequence[Cell], seconds: Sequence[float] | None, console: Console
    ) -> None:
        """Prepare to watch.

        Args:
            cells: those about to run.
            seconds: how long each will take; only their ratios count. None for all the same.
            console: where to say it.
        """
        self.waiting = dict(zip(cells, seconds or [1.0] * len(cells), strict=True))
        self.marks = {cell: cell.marks for cell in cells}
        self.total = sum(self.waiting.values())
        self.num_cells = len(cells)
        self.failed: list[str] = []
        self.console = console
        self.over = Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again, and a last time at the end."""
        self.start_s = time.monotonic()
        thread = Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()

    def _watch(self) -> None:
        while not self.over.wait(POLL_S):
            self.look()
        self.look()

    def look(self) -> None:
        """Say so if cells have ended since the last look."""
        ended = [cell for cell in self.waiting if cell.is_over(self.marks[cell])]
        if not ended:
            return
        for cell in ended:
            del self.waiting[cell]
            if not isinstance(read_record(cell.folder), FinishedRun):
                self.failed.append(cell.name)
        names = ", ".join(cell.name for cell in ended)
        line = f"over: {names}; {self.num_cells - len(self.waiting)} of {self.num_cells} cells"
        if self.failed:
            line += f", {len(self.failed)} failed"
        if self.waiting:
            left_s = self.seconds_left()
            until = datetime.now() + timedelta(seconds=left_s)
            line += f", about {duration(left_s)} left, until {until:%H:%M}"
        self.console.print(line)

    def seconds_left(self) -> float:
        """Go by the pace so far; cells that run beside another count as half done."""
        begun = [s for cell, s in self.waiting.items() if cell.has_begun(self.marks[cell])]
        left = sum(self.waiting.values()) - sum(sorted(begun)[:-1]) / 2
        return (time.monotonic() - self.start_s) * left / (self.total - left)
