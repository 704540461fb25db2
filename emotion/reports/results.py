"""The runs of a sweep, arranged: a protocol is a table, an interval a row, a model a column."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from emotion.errors import DamagedFile, UserError
from emotion.evaluation.metrics import bootstrap, judge
from emotion.evaluation.predictions import REMEDY, Predictions
from emotion.sweeps.plan import PLAN_FILE, Plan, read_plan
from emotion.tables import read_table
from emotion.training.cell import BESIDE_THE_POINT, CURVES_FILE, is_begun
from emotion.training.record import RECORD_FILE, FinishedRun, RunHead, read_record

LEVELS = ("stacks", "clips")
# Overrides that a table shows in another place, or that only arrange a sweep.
SHOWN_ELSEWHERE = ("model", "model.backbone", "interval", "seed", "data", "split", "hparams")


@dataclass(frozen=True)
class Curve:
    """A metric of one run over the epochs, which count from 1."""

    phase: str  # train, val
    metric: str  # accuracy, loss
    epochs: list[int]
    values: list[float]  # finite


def read_curves(folder: Path) -> list[Curve]:
    """Read the curves that the CSV logger wrote to a run's folder; none without such a logger."""
    path = folder / CURVES_FILE
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        for row in read_table(path):
            epoch = int(row["epoch"]) + 1
            for name, text in row.items():
                is_metric = name.partition("/")[0] in ("train", "val")
                if is_metric and text and math.isfinite(value := float(text)):
                    curves[name][epoch] = value
        if not curves:
            raise ValueError("no metrics")
        return [
            Curve(*name.split("/", 1), *map(list, zip(*sorted(points.items()), strict=True)))
            for name, points in curves.items()
        ]
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedFile(f"{path} is damaged ({error}): only its curves are not shown") from None


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep; `predictions` are calibrated, of the split that it is reported on."""

    folder: Path
    head: RunHead  # the whole record of a finished run
    status: Literal["finished", "failed", "unfinished", "damaged"]
    error: str = ""  # why it is not finished, or which files, without scores, are damaged
    predictions: Predictions | None = None  # of a finished run
    curves: Sequence[Curve] = ()  # of a finished run with a CSV logger

    @property
    def record(self) -> FinishedRun:
        """The record of a finished run."""
        assert isinstance(self.head, FinishedRun)
        return self.head


def read_run(folder: Path, planned: RunHead | None = None) -> SweepRun | UserError:
    """Read a run; return the error if its record is damaged and no sweep has planned it."""
    head = planned
    try:
        record = read_record(folder)
        if record is None:
            assert planned is not None
            state = "interrupted, or running now" if is_begun(folder) else "not started"
            return SweepRun(folder, planned, "unfinished", state)
        if planned and record.cell != planned.cell:
            raise DamagedFile(f"{folder / RECORD_FILE} is of another cell: {REMEDY}")
        # with the overrides of the sweep's last start, which may list other keys of the same cell
        head = record.model_copy(update={"overrides": planned.overrides}) if planned else record
        if not isinstance(record, FinishedRun):
            return SweepRun(folder, head, "failed", record.error)
        predictions = record.predictions(folder).of_split(record.reported_on)
        flaws, curves = [], []
        for name in dict.fromkeys((*record.files, CURVES_FILE)):
            try:
                if name in record.files:
                    record.check_files(folder, name)
                if name == CURVES_FILE:
                    curves = read_curves(folder)
            except DamagedFile as error:
                flaws.append(str(error))
        return SweepRun(folder, head, "finished", "; ".join(flaws), predictions, curves)
    except UserError as error:
        return SweepRun(folder, head, "damaged", str(error)) if head else error


def read_runs(sweep_dir: Path) -> tuple[list[SweepRun], list[UserError]]:
    """Read the runs of the folder of a sweep, of several sweeps, or of a single run.

    Returns:
        The runs that the last start of each sweep asked for, in that order; and the errors of
        damaged plans, and of damaged folders that are in no plan.

    Raises:
        UserError: there is no run, or some are damaged and none is finished.
    """
    plans: dict[Path, Plan] = {}
    found: list[SweepRun | UserError] = []
    for sweep in sorted(path.parent for path in sweep_dir.rglob(PLAN_FILE)):
        try:
            plans[sweep] = read_plan(sweep)
        except DamagedFile as error:
            found.append(error)
    found += [read_run(sweep / c.folder, c) for sweep, plan in plans.items() for c in plan.cells]
    folders = sorted(path.parent for path in sweep_dir.rglob(RECORD_FILE))
    found += [read_run(folder) for folder in folders if folder.parent not in plans]
    damaged = [run for run in found if isinstance(run, UserError)]
    runs = [run for run in found if isinstance(run, SweepRun)]
    errors = [*damaged, *(run.error for run in runs if run.status == "damaged")]
    if not runs or (errors and all(run.status != "finished" for run in runs)):
        if errors:
            raise UserError(f"{sweep_dir} holds no finished run that is whole: {errors[0]}")
        raise UserError(f"{sweep_dir} holds no {RECORD_FILE}: give the folder of a sweep or run")
    return runs, damaged


@dataclass(frozen=True)
class Protocol:
    """What results must share to be in one table."""

    data: str
    split: str
    settings: str  # of the split, apart from the fold
    labels: tuple[str, ...]

    @classmethod
    def of(cls, head: RunHead) -> "Protocol":
        """Return the protocol of a run."""
        settings = ", ".join(f"{key}={value}" for key, value in head.split.settings.items())
        return cls(head.data, head.split.name, settings, head.labels)

    def __str__(self) -> str:
        """Name data set and split."""
        return f"{self.data}, split {self.split}" + (f" ({self.settings})" if self.settings else "")


@dataclass(frozen=True)
class Model:
    """A column: a config of `conf/model` with one backbone, so that two backbones never mix."""

    name: str
    backbone: str | None
    title: str

    @classmethod
    def of(cls, head: RunHead) -> "Model":
        """Return the model of a run."""
        return cls(head.model, head.backbone, head.model_title)


@dataclass(frozen=True)
class Estimate:
    """One score of an entry, 0 to 1; `low` and `high` bound the mean's 95 % confidence interval."""

    mean: float  # over the seeds
    std: float | None  # sample standard deviation; None for a single seed
    low: float | None  # None if the seeds were evaluated on different clips
    high: float | None

    def __str__(self) -> str:
        """Format in percent: `70.00 ± 1.20 [65.1, 74.3]`."""
        text = f"{100 * self.mean:.2f}"
        if self.std is not None:
            text += f" ± {100 * self.std:.2f}"
        if self.low is not None:
            text += f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return text


class Level:
    """The calibrated predictions of the stacks or the clips of an entry, scored for each seed.

    Attributes:
        predictions: seed -> those of all its folds.
        scores: seed -> scores of all folds together.
        confidence: in the seeds' mean; None if the seeds were evaluated on different clips.
        confusion: (C, C) int64 counts, rows are the true class, summed over the seeds.
    """

    def __init__(self, predictions: dict[int, Predictions]) -> None:
        """Score the predictions."""
        self.predictions = predictions
        self.scores = {seed: judge(of_seed) for seed, of_seed in predictions.items()}
        same = len({frozenset(of_seed.samples) for of_seed in predictions.values()}) == 1
        self.confidence = bootstrap(list(predictions.values())) if same else None
        self.confusion = np.sum([scores.confusion for scores in self.scores.values()], axis=0)

    def estimate(self, score: str) -> Estimate:
        """Return one of `SCORES`."""
        values = [getattr(scores, score) for scores in self.scores.values()]
        std = statistics.stdev(values) if len(values) > 1 else None
        bounds = self.confidence.bounds[score] if self.confidence else (None, None)
        return Estimate(statistics.mean(values), std, *bounds)


@dataclass(frozen=True)
class Entry:
    """All runs of one model at one interval that differ only in seed and fold.

    The test predictions of a seed's folds are pooled and scored once. Scores need all runs to be
    finished.
    """

    protocol: Protocol
    variant: str  # the other settings, if they differ within the sweep
    interval: int
    model: Model
    runs: list[SweepRun]  # the last of each seed and fold

    @property
    def failed(self) -> list[SweepRun]:
        """The runs that are not finished."""
        return [run for run in self.runs if run.status != "finished"]

    @property
    def is_finished(self) -> bool:
        """Whether there are runs, all finished, and so scores."""
        return bool(self.runs) and not self.failed

    @property
    def records(self) -> list[FinishedRun]:
        """The records of a finished entry."""
        return [run.record for run in self.runs]

    @property
    def row(self) -> str:
        """The name of the entry's row in the table."""
        return f"interval {self.interval}" + (f", {self.variant}" if self.variant else "")

    def median(self, measure: str) -> float | None:
        """Return the median of a field of `Throughput` over the runs that measured it."""
        values = [getattr(record.throughput, measure) for record in self.records]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted({run.head.seed for run in self.runs})

    @property
    def folds(self) -> list[int]:
        """The folds, sorted; empty if the split has no folds."""
        return sorted({f for run in self.runs if (f := run.head.split.fold) is not None})

    @cached_property
    def levels(self) -> dict[str, "Level"]:
        """The scores at each of `LEVELS`; the folds of a seed must not overlap."""
        folds: dict[int, list[Predictions]] = {seed: [] for seed in self.seeds}
        for run in self.runs:
            folds[run.head.seed].append(run.predictions)
        stacks = {seed: Predictions.joined(parts) for seed, parts in folds.items()}
        clips = {seed: predictions.of_clips() for seed, predictions in stacks.items()}
        return {"stacks": Level(stacks), "clips": Level(clips)}

    def estimate(self, score: str = "accuracy", level: str = "stacks") -> Estimate:
        """Return one of `SCORES` at one of `LEVELS`."""
        return self.levels[level].estimate(score)

    def text(self, score: str = "accuracy", level: str = "stacks") -> str:
        """Format a score in percent, or the status of the runs; `-` without runs."""
        if self.is_finished:
            return str(self.estimate(score, level))
        if not self.runs:
            return "-"
        status, failed, all_runs = self.failed[0].status, len(self.failed), len(self.runs)
        return f"{failed} of {all_runs} {status}" if failed < all_runs else status


class Results:
    """The runs of a sweep, arranged into entries.

    Attributes:
        finished: the records of the finished runs.
        variants: what else differs between runs, as text; `[""]` if nothing does.
        tables: protocol -> (variant, interval) -> an entry for each of `models`, with or without
            runs.
        all_entries: an entry for each place in the tables, in their order.
        entries: those that have runs.
    """

    def __init__(self, runs: Sequence[SweepRun], damaged: Sequence[UserError] = ()) -> None:
        """Arrange what `read_runs` returns."""
        self.runs, self.damaged = runs, damaged
        self.finished = [run.record for run in runs if run.status == "finished"]
        variants = name_variants([run.head for run in runs])
        self.protocols = list(dict.fromkeys(Protocol.of(run.head) for run in runs))
        self.variants = list(dict.fromkeys(variants))
        self.models = list(dict.fromkeys(Model.of(run.head) for run in runs))
        # A cell that was run again replaces its earlier run of the same seed and fold.
        last: dict[tuple, dict[tuple, SweepRun]] = defaultdict(dict)
        for run, variant in zip(runs, variants, strict=True):
            head = run.head
            place = (Protocol.of(head), variant, head.interval, Model.of(head))
            last[place][head.seed, head.split.fold] = run
        self.tables: dict[Protocol, dict[tuple[str, int], list[Entry]]] = defaultdict(dict)
        rows = {place[:3] for place in last}
        for protocol, *row in sorted(rows, key=lambda row: (self.variants.index(row[1]), row[2])):
            places = [(protocol, *row, model) for model in self.models]
            entries = [Entry(*place, list(last[place].values())) for place in places]
            self.tables[protocol][tuple(row)] = entries
        rows = [row for protocol in self.protocols for row in self.tables[protocol].values()]
        self.all_entries = [entry for row in rows for entry in row]
        self.entries = [entry for entry in self.all_entries if entry.runs]

    def finished_entries(self, protocol: Protocol) -> list[Entry]:
        """Return the entries of a protocol that have scores."""
        return [e for e in self.entries if e.protocol == protocol and e.is_finished]

    def entry_title(self, entry: Entry) -> str:
        """Name an entry within its protocol."""
        return f"{self.title(entry.model)}, {entry.row}"

    def title(self, model: Model) -> str:
        """Return a model's title, with the name of its config if two models share the title."""
        shared = sum(other.title == model.title for other in self.models) > 1
        return f"{model.title} ({model.name})" if shared else model.title

    def num_images(self, interval: int) -> int | None:
        """Return the images of a stack at an interval; None if no run of it is finished."""
        return next((r.num_images for r in self.finished if r.interval == interval), None)


def name_variants(heads: Sequence[RunHead]) -> list[str]:
    """Name for each run the settings that vary in the sweep, so that they are not taken for seeds.

    Overrides that change no result or that the table shows in another place are left out.
    """
    typed = []
    for head in heads:
        pairs = (override.lstrip("+").partition("=") for override in head.overrides)
        typed.append({key: value for key, _, value in pairs if makes_variant(key, value)})
    differing = {
        key for own in typed for key in own if len({str(other.get(key)) for other in typed}) > 1
    }
    return [", ".join(f"{k}={v}" for k, v in own.items() if k in differing) for own in typed]


def makes_variant(key: str, value: str) -> bool:
    """Return whether an override can change a result and is shown nowhere else."""
    if key in SHOWN_ELSEWHERE or key.startswith("split.") or (key, value) == ("ckpt_path", "last"):
        return False
    return not any(key == of or key.startswith((f"{of}.", f"{of}/")) for of in BESIDE_THE_POINT)


def unique(values: Iterable) -> list:
    """Return the different values in their order; those that are None or empty are left out."""
    return list(dict.fromkeys(filter(None, values)))
