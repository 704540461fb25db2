"""runs ──order──> entries and tables: every number that a report shows.

Reads the `metrics.json`, `predictions.csv` and curves of every run below a folder.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.metrics import Confidence, Scores, bootstrap, judge
from emotion.evaluation.predictions import Predictions
from emotion.tables import markdown_table, read_table
from emotion.training.cell import BESIDE_THE_POINT, is_begun
from emotion.training.record import as_plain, read_record

SCORES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1"}  # name -> heading
LEVELS = ("stacks", "clips")
# Overrides that a table shows in another place, or that say how a sweep was laid out.
SHOWN_ELSEWHERE = ("model", "interval", "seed", "data", "split", "hparams")


def read_runs(sweep_dir: Path) -> list[dict]:
    """Read what the runs of a sweep wrote.

    Args:
        sweep_dir: a sweep's folder, one that holds several, or that of a single run.

    Returns:
        The content of each `metrics.json`, and with it, as `folder`, where it lies. Of a sweep
        those that its last start asked for, in that order, all with the overrides of that start;
        one that has not run to its end has the status `unfinished`.

    Raises:
        UserError: there is none, or one that an older version wrote.
    """
    runs = []
    plans = sorted(sweep_dir.glob("**/sweep.json"))
    for plan in plans:
        for cell in json.loads(plan.read_text(encoding="utf-8")):
            folder = plan.parent / cell["folder"]
            state = "cut off, or running now" if is_begun(folder) else "not begun"
            record = cell | {"status": "unfinished", "error": state}
            if found := read_record(folder):
                record = as_plain(found)
            runs.append(record | {"overrides": cell["overrides"], "folder": str(folder)})
    of_sweeps = {plan.parent for plan in plans}
    for folder in sorted(path.parent for path in sweep_dir.glob("**/metrics.json")):
        if folder.parent not in of_sweeps and (record := read_record(folder)):
            runs.append(as_plain(record) | {"folder": str(folder)})
    if not runs:
        raise UserError(f"no metrics.json in {sweep_dir} or below: give the folder of a sweep")
    for run in runs:
        if "split" not in run:
            raise UserError(
                f"{run['folder']}: its metrics.json is of an older version and says nothing of the "
                "split: run it again, or move its folder out of the way"
            )
    return runs


@dataclass(frozen=True)
class Curve:
    """A metric of one run over the epochs.

    Attributes:
        phase: `train` or `val`.
        metric: `accuracy` or `loss`.
        epochs: counted from 1.
        values: one for each epoch, all finite.
    """

    phase: str
    metric: str
    epochs: list[int]
    values: list[float]


def read_curves(folder: Path) -> list[Curve]:
    """Read the curves that the CSV logger wrote to a run's folder; none without such a logger."""
    path = folder / "curves" / "metrics.csv"
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for row in read_table(path) if path.is_file() else []:
        for name, text in row.items():
            is_metric = name is not None and name.partition("/")[0] in ("train", "val")
            if is_metric and text and math.isfinite(value := float(text)):
                curves[name][int(row["epoch"]) + 1] = value
    return [
        Curve(*name.split("/", 1), *map(list, zip(*sorted(points.items()), strict=True)))
        for name, points in curves.items()
    ]


@dataclass(frozen=True)
class Protocol:
    """What results must share to stand in one table: a data set, its classes and a split.

    Attributes:
        data: the data set's name.
        split: the split's name.
        settings: of the split, but for the fold, as text.
        labels: the classes.
    """

    data: str
    split: str
    settings: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, run: dict) -> "Protocol":
        """Read it off a run."""
        elsewhere = ("_target_", "name", "fold", "parts")
        settings = [f"{k}={v}" for k, v in run["split"].items() if k not in elsewhere]
        return cls(run["data"], run["split"]["name"], ", ".join(settings), tuple(run["labels"]))

    def __str__(self) -> str:
        """Name data set and split."""
        return f"{self.data}, split {self.split}" + (f" ({self.settings})" if self.settings else "")


@dataclass(frozen=True)
class Estimate:
    """One score of an entry.

    Attributes:
        mean: over the seeds, 0 to 1.
        std: over the seeds (with n - 1 below the line); None for a single one.
        low: lower bound of the mean's 95 % confidence interval, over clips or subjects; None where
            the seeds were judged on different clips.
        high: upper bound.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Show it in percent."""
        text = f"{100 * self.mean:.2f}"
        if self.std is not None:
            text += f" ± {100 * self.std:.2f}"
        if self.low is not None:
            text += f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return text


@dataclass(frozen=True)
class Entry:
    """All runs of one model at one interval that differ in seed and fold alone.

    The folds of a seed are pooled: what each says of its own test clips is joined, and judged
    once. `scores`, `confidence` and `confusion` have an entry for each of `LEVELS`; they need all
    runs to be finished.

    Attributes:
        protocol: what they were trained and judged on.
        variant: which other settings, where the sweep has several; else "".
        interval: frames from one image to the next.
        model: its name.
        runs: of each seed and fold, the last one.
    """

    protocol: Protocol
    variant: str
    interval: int
    model: str
    runs: list[dict]

    @property
    def title(self) -> str:
        """The model's name for people."""
        return self.runs[0]["model_title"]

    @property
    def parameters(self) -> int:
        """Of the model; finished runs tell."""
        return self.runs[0]["parameters"]

    @property
    def ms_per_stack(self) -> float | None:
        """Milliseconds that the model takes for a stack, median of the runs that measured it."""
        return self._throughput("ms_per_stack")

    @property
    def train_stacks_per_s(self) -> float | None:
        """Stacks a second in training, median of the runs that measured it."""
        return self._throughput("train_stacks_per_s")

    def _throughput(self, key: str) -> float | None:
        """Give the median of a figure over the runs; None where none has it."""
        figures = [run.get("throughput", {}).get(key) for run in self.runs]
        known = [figure for figure in figures if figure is not None]
        return statistics.median(known) if known else None

    @property
    def failed(self) -> list[dict]:
        """The runs that broke off."""
        return [run for run in self.runs if run["status"] != "finished"]

    @property
    def is_finished(self) -> bool:
        """Whether there are scores."""
        return bool(self.runs) and not self.failed

    @property
    def seeds(self) -> list[int]:
        """The seeds, sorted."""
        return sorted({run["seed"] for run in self.runs})

    @property
    def folds(self) -> list[int]:
        """The folds, sorted; none where the split has no folds."""
        return sorted({run["split"]["fold"] for run in self.runs if "fold" in run["split"]})

    @cached_property
    def predictions(self) -> dict[str, dict[int, Predictions]]:
        """Level -> seed -> what is reported, of all folds together.

        Raises:
            UserError: a run has no `predictions.csv`, or folds overlap.
        """
        of_stacks = {}
        for seed in self.seeds:
            runs = [run for run in self.runs if run["seed"] == seed]
            parts = [
                Predictions.read(Path(run["folder"]) / "predictions.csv")
                .of_split(run["reported_on"])
                .calibrated(run["calibration"]["temperature"])
                for run in runs
            ]
            of_stacks[seed] = Predictions.joined(parts)
        of_clips = {seed: predictions.of_clips() for seed, predictions in of_stacks.items()}
        return {"stacks": of_stacks, "clips": of_clips}

    @cached_property
    def scores(self) -> dict[str, dict[int, Scores]]:
        """Level -> seed -> scores, of all folds together."""
        return {
            level: {seed: judge(predictions) for seed, predictions in of_seeds.items()}
            for level, of_seeds in self.predictions.items()
        }

    @cached_property
    def confidence(self) -> dict[str, Confidence | None]:
        """Level -> confidence in the seeds' mean; None where seeds were judged on other clips."""
        confidence = {}
        for level, of_seeds in self.predictions.items():
            judged = {
                tuple(sorted(zip(predictions.clips, predictions.segments, strict=True)))
                for predictions in of_seeds.values()
            }
            one_set = len(judged) == 1
            confidence[level] = bootstrap(list(of_seeds.values())) if one_set else None
        return confidence

    @cached_property
    def confusion(self) -> dict[str, np.ndarray]:
        """Level -> (C, C) int64 counts, rows true, all seeds added up."""
        return {
            level: np.sum([scores.confusion for scores in of_seeds.values()], axis=0)
            for level, of_seeds in self.scores.items()
        }

    def estimate(self, score: str = "accuracy", level: str = "stacks") -> Estimate:
        """Give one of `SCORES` at one of `LEVELS`."""
        values = [getattr(scores, score) for scores in self.scores[level].values()]
        confidence = self.confidence[level]
        low, high = confidence.bounds[score] if confidence else (None, None)
        std = statistics.stdev(values) if len(values) > 1 else None
        return Estimate(statistics.mean(values), std, low, high)

    def text(self, score: str = "accuracy", level: str = "stacks") -> str:
        """Show a score in percent, or what became of the runs."""
        if not self.runs:
            return "-"
        if self.failed:
            some = len(self.failed) < len(self.runs)
            status = self.failed[0]["status"]
            return f"{len(self.failed)} of {len(self.runs)} {status}" if some else status
        return str(self.estimate(score, level))

    def basis(self) -> str:
        """Say what the numbers of a finished entry rest on."""
        judged, of_clips = (next(iter(self.predictions[level].values())) for level in LEVELS)
        reported, selected = self.runs[0]["reported_on"], self.runs[0]["selected_on"]
        text = f"scores in % on {len(judged)} {reported} stacks of {len(of_clips)} clips"
        if subjects := {subject for subject in judged.subjects if subject}:
            text += f" and {counted(len(subjects), 'subject')}"
        if self.folds:
            numbers = ", ".join(map(str, self.folds))
            text += f" (fold {numbers})" if len(self.folds) == 1 else f" (folds {numbers}, pooled)"
        text += f", trained on {span(run['stacks']['train'] for run in self.runs)} stacks; "
        if reported == selected:
            text += "the best epoch was selected and reported on the same clips"
        else:
            text += f"the best epoch was selected on {span_of(self.runs, selected)} stacks"
        if len(self.seeds) > 1:
            text += f"; ±: standard deviation over seeds {', '.join(map(str, self.seeds))}"
        if confidence := self.confidence["stacks"]:
            units = counted(confidence.num_units, confidence.unit.removesuffix("s"))
            text += f"; [low, high]: 95 % confidence interval, bootstrap over {units}"
            if subjects and confidence.unit == "clips":
                text += ", for subjects are too few to draw from: other people may differ by more"
        else:
            text += "; no confidence interval, for the seeds were judged on different clips"
        return text


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 clip`, `2 clips`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def span(numbers: Iterable[int]) -> str:
    """Write numbers that may be the same: `8`, or `8 to 10`."""
    low, *_, high = sorted(numbers) * 2
    return str(low) if low == high else f"{low} to {high}"


def span_of(runs: Sequence[dict], split: str) -> str:
    """Write how many stacks of a split runs had: `4 val`, or `4 to 5 val`."""
    return f"{span(run['stacks'][split] for run in runs)} {split}"


class Results:
    """The runs of a sweep, ordered into tables (protocols), rows (intervals) and columns (models).

    Attributes:
        runs: all of them, in the sweep's order.
        finished: those that did not break off.
        protocols: data sets and splits, each of which makes a table.
        variants: what else differs between runs, in words; `[""]` if nothing does.
        intervals: sorted.
        models: their names, in the sweep's order.
        entries: all that have runs, ordered as the four above.
    """

    def __init__(self, runs: Sequence[dict]) -> None:
        """Order runs.

        Args:
            runs: as `read_runs` gives them.
        """
        self.runs = runs
        self.finished = [run for run in runs if run["status"] == "finished"]
        variants = name_variants(runs)
        self.protocols = list(dict.fromkeys(map(Protocol.of, runs)))
        self.variants = list(dict.fromkeys(variants))
        self.models = list(dict.fromkeys(run["model"] for run in runs))
        self.intervals = sorted({run["interval"] for run in runs})
        # A cell run again, under the same seed and fold, is that run and not one more.
        last: dict[tuple, dict[tuple, dict]] = defaultdict(dict)
        for run, variant in zip(runs, variants, strict=True):
            place = (Protocol.of(run), variant, run["interval"], run["model"])
            last[place][run["seed"], run["split"].get("fold")] = run
        self._entries = {place: Entry(*place, list(of.values())) for place, of in last.items()}

    @property
    def entries(self) -> list[Entry]:
        """All entries that have runs."""
        return [
            entry
            for protocol in self.protocols
            for row in self.rows(protocol).values()
            for entry in row
            if entry.runs
        ]

    def finished_entries(self, protocol: Protocol) -> list[Entry]:
        """List the entries of a protocol that have scores."""
        return [e for e in self.entries if e.protocol == protocol and e.is_finished]

    def rows(self, protocol: Protocol) -> dict[tuple[str, int], list[Entry]]:
        """Lay out a protocol's table.

        Returns:
            For each variant and interval that it was run with an entry for each of `models`, which
            has no runs where the sweep had none.
        """
        there = {(variant, interval) for p, variant, interval, _ in self._entries if p == protocol}
        heads = [(v, i) for v in self.variants for i in self.intervals if (v, i) in there]
        places = {head: [(protocol, *head, model) for model in self.models] for head in heads}
        return {
            head: [self._entries.get(place) or Entry(*place, []) for place in row]
            for head, row in places.items()
        }

    def title(self, model: str) -> str:
        """Give a model's name for people."""
        return next(r["model_title"] for r in self.runs if r["model"] == model)

    def heading(self, model: str) -> str:
        """Name a model with its parameters, in millions, at the shortest interval."""
        counts = [r["parameters"] for r in self.finished if r["model"] == model]
        return self.title(model) + (f" ({max(counts) / 1e6:.2f} M)" if counts else "")

    def num_images(self, interval: int) -> int | None:
        """Give the number of images of a stack at an interval; None if no run got so far."""
        return next((r["num_images"] for r in self.finished if r["interval"] == interval), None)

    def grid(
        self, protocol: Protocol, score: str = "accuracy", level: str = "stacks"
    ) -> tuple[list[str], list[list[str]]]:
        """Give a table's column headings and its rows of texts.

        Args:
            protocol: one of `protocols`.
            score: one of `SCORES`.
            level: one of `LEVELS`.
        """
        settings = ["settings"] if self.variants != [""] else []
        headings = [
            *settings,
            "interval",
            "images",
            *(self.heading(model) for model in self.models),
        ]
        rows = []
        for (variant, interval), entries in self.rows(protocol).items():
            shown = [variant or "as configured"] if settings else []
            shown += [str(interval), str(self.num_images(interval) or "-")]
            rows.append([*shown, *(entry.text(score, level) for entry in entries)])
        return headings, rows

    def notes(self) -> list[str]:
        """Say what a reader has to know of the numbers."""
        notes = []
        for protocol in self.protocols:
            entries = self.finished_entries(protocol)
            names: dict[str, list[str]] = defaultdict(list)
            for entry in entries:
                names[entry.basis()].append(f"{entry.model} {entry.interval}")
            for basis, of in names.items():
                which = f" ({', '.join(of)})" if len(names) > 1 else ""
                notes.append(f"{protocol}{which}: {basis}")
            notices = dict.fromkeys(run["notice"] for entry in entries for run in entry.runs)
            notes += [f"{protocol.data}: {notice}" for notice in notices if notice]
        sources = dict.fromkeys(
            (run["pretrained"]["loaded"], run["pretrained"]["source"]) for run in self.finished
        )
        for loaded, source in sources:
            models = dict.fromkeys(
                run["model"] for run in self.finished if run["pretrained"]["source"] == source
            )
            start = "weights from " if loaded else "started from "
            notes.append(f"{', '.join(models)}: {start}{source}")
        for entry in self.entries:
            for run in entry.failed:
                fold = f", fold {run['split']['fold']}" if "fold" in run["split"] else ""
                notes.append(
                    f"{run['status']}: {run['model']}, interval {run['interval']}, "
                    f"seed {run['seed']}{fold}: {run['error']}"
                )
        return notes

    def table_names(self, protocol: Protocol) -> Iterator[tuple[str, str, str]]:
        """Name the tables that have something to add: title, score and level; accuracy first."""
        more_stacks = any(
            len(of_stacks) > len(entry.predictions["clips"][seed])
            for entry in self.finished_entries(protocol)
            for seed, of_stacks in entry.predictions["stacks"].items()
        )
        for level in LEVELS if more_stacks else LEVELS[:1]:  # a stack a clip: the same numbers
            for score, name in SCORES.items():
                yield f"{name} of {level}, %", score, level

    def markdown(self) -> str:
        """Give tables and notes as Markdown: accuracy first, then the notes, then other scores."""
        first, others = [], []
        for protocol in self.protocols:
            tables = [
                f"{title}\n\n{markdown_table(*self.grid(protocol, score, level))}"
                for title, score, level in self.table_names(protocol)
            ]
            named = f"{protocol}: " if len(self.protocols) > 1 else ""
            first.append(named + tables[0])
            others += [named + table for table in tables[1:]]
        notes = "\n".join(f"- {note}" for note in self.notes())
        return "\n\n".join([*first, notes, *others]) + "\n"

    def summary_table(self) -> tuple[list[str], list[list[Any]]]:
        """Give a row for each entry, numbers as numbers: what a dashboard sorts and plots.

        Returns:
            The columns, and for each entry its values; None where there is none.
        """
        columns = [
            *("data", "split", "settings", "model", "interval", "images", "status", "runs"),
            *(f"{score}{part}" for score in SCORES for part in ("", " std", " low", " high")),
            *("parameters", "ms_per_stack", "train_stacks_per_s"),
        ]
        rows = []
        for entry in self.entries:
            place = [entry.protocol.data, entry.protocol.split, entry.variant, entry.title]
            place += [entry.interval, self.num_images(entry.interval)]
            if not entry.is_finished:
                empty = [None] * (len(columns) - len(place) - 2)
                rows.append([*place, entry.text(), len(entry.runs), *empty])
                continue
            numbers = [
                number
                for score in SCORES
                for number in astuple(entry.estimate(score))  # mean, std, low, high
            ]
            costs = [entry.parameters, entry.ms_per_stack, entry.train_stacks_per_s]
            rows.append([*place, "finished", len(entry.runs), *numbers, *costs])
        return columns, rows

    def long_rows(self) -> list[dict[str, Any]]:
        """Give every number in a row of its own.

        Returns:
            Rows of the same keys: what was run; the seed, or `mean` where there are several; the
            level, score and class; value, deviation and confidence bounds, 0 to 1, and what these
            are over. A failed entry has one row without numbers.
        """
        rows = []
        for entry in self.entries:
            title = self.heading(entry.model)
            place = {
                "data": entry.protocol.data,
                "split": entry.protocol.split,
                "split_settings": entry.protocol.settings,
                "settings": entry.variant,
                "model": entry.model,
                "title": title,
                "interval": entry.interval,
                "num_images": self.num_images(entry.interval),
                "folds": " ".join(map(str, entry.folds)),
            }
            if not entry.is_finished:
                rows.append(place | {"status": entry.text()})
                continue
            place |= {"status": "finished", "reported_on": entry.runs[0]["reported_on"]}
            place |= {"selected_on": entry.runs[0]["selected_on"]}
            for level in LEVELS:
                for seed, scores in entry.scores[level].items():
                    rows += long_scores(
                        place | {"seed": seed, "level": level, "num": scores.num},
                        scores,
                        entry.protocol.labels,
                    )
                if len(entry.seeds) > 1:
                    rows += long_means(place | {"seed": "mean", "level": level}, entry, level)
        columns = dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])
        return [{column: row.get(column, "") for column in columns} for row in rows]


COLUMNS = (
    *("data", "split", "split_settings", "settings", "model", "title", "interval", "num_images"),
    *("folds", "status", "reported_on", "selected_on", "seed", "level", "score", "class"),
    *("value", "std", "low", "high", "unit", "num_units", "num"),
)


def long_scores(
    place: dict[str, Any], scores: Scores, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Give a row for each number of one seed's scores; a score that is undefined has no value."""
    confidence = scores.confidence
    for score in SCORES:
        low, high = confidence.bounds[score]
        yield place | {
            "score": score,
            "value": getattr(scores, score),
            "low": low,
            "high": high,
            "unit": confidence.unit,
            "num_units": confidence.num_units,
        }
    for score in ("precision", "recall", "f1"):
        for label, value in zip(labels, getattr(scores, score), strict=True):
            yield place | {"score": score, "class": label, "value": "" if value is None else value}


def long_means(place: dict[str, Any], entry: Entry, level: str) -> Iterator[dict[str, Any]]:
    """Give a row for each score's mean over seeds."""
    confidence = entry.confidence[level]
    units = {"unit": confidence.unit, "num_units": confidence.num_units} if confidence else {}
    for score in SCORES:
        mean = entry.estimate(score, level)
        bounds = {"low": mean.low, "high": mean.high} if confidence else {}
        yield place | units | bounds | {"score": score, "value": mean.mean, "std": mean.std}


def name_variants(runs: Sequence[dict]) -> list[str]:
    """Name what else was swept, so that it is not taken for another seed.

    Args:
        runs: each with its Hydra `overrides`.

    Returns:
        For each run those overrides that not all runs have in common, but for the ones that change
        no result or that the table shows in another place.
    """
    typed = []
    for run in runs:
        pairs = (override.lstrip("+").partition("=") for override in run["overrides"])
        typed.append({key: value for key, _, value in pairs if makes_variant(key, value)})
    differing = {
        key for of in typed for key in of if len({str(other.get(key)) for other in typed}) > 1
    }
    return [
        ", ".join(f"{key}={value}" for key, value in of.items() if key in differing) for of in typed
    ]


def makes_variant(key: str, value: str) -> bool:
    """Tell whether an override changes a result and is shown nowhere else."""
    if key in SHOWN_ELSEWHERE or key.startswith("split.") or (key, value) == ("ckpt_path", "last"):
        return False
    return not any(key == of or key.startswith((f"{of}.", f"{of}/")) for of in BESIDE_THE_POINT)
