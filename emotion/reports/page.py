"""The HTML page of a sweep: one file with tables, charts, facts and commands, and no script.

`page.html` is the template. The page loads nothing, so that it opens from a disk, a mail or a
server.
"""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup
from omegaconf import OmegaConf

from emotion.clips.naming import SPLITS
from emotion.errors import UserError
from emotion.evaluation.metrics import class_scores, defined
from emotion.reports import charts
from emotion.reports.results import Entry, Protocol, Results, read_curves, unique
from emotion.reports.tables import counted, grid, notes, span, table_names
from emotion.stacks.build_report import count_dropped, describe_lost
from emotion.stacks.manifest import read_dropped, read_manifest
from emotion.training.record import DroppedCount, FinishedRun

MAX_COLUMNS = 3  # of cards beside each other


@dataclass(frozen=True)
class Card:
    """The charts of an entry; `confusion` and the others are None if it has no scores."""

    title: str
    text: str
    confusion: Markup | None = None
    classes: Markup | None = None
    learning: Markup | None = None


@dataclass(frozen=True)
class SplitCounts:
    """A row of the table of splits."""

    split: str
    counts: list[tuple[str, str]]  # stacks and clips of each class and of all
    num_subjects: str
    subjects: tuple[str, ...]  # those known, if all folds have the same


@dataclass(frozen=True)
class Section:
    """What the page shows of one protocol."""

    protocol: Protocol
    headline: str | None
    cards: list[Card]  # in the order of the table
    columns: int  # cards beside each other
    finished: list[Entry]
    costs: list[tuple[str, Markup]]  # name and chart
    rows: list[tuple[str, str]]  # of the table: marker in the charts of costs, and name
    machines: list[str]  # that measured the costs
    splits: list[SplitCounts]
    lost: list[str]  # clips and segments that made no stack


def render_page(results: Results, sweep_dir: Path) -> str:
    """Return the page of the sweep in a folder, from a template that fails on missing values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"grid": grid, "table_names": table_names, "zip": zip}
    environment.globals |= {"model_color": charts.model_color, "palette": charts.PALETTE}
    environment.filters["figure"] = figure
    return environment.get_template("page.html").render(
        name=sweep_dir.absolute().name,
        results=results,
        notices=unique([record.notice for record in results.finished]),
        notes=notes(results),
        sections=[section(results, protocol) for protocol in results.protocols],
        origins=origins(results.finished),
        commits=unique([record.provenance.commit for record in results.finished]),
        sweep=sweep_command(sweep_dir),
        runs=[command(*run.head.overrides) for run in results.runs],
        report=f"python -m emotion.reports {shlex.quote(str(sweep_dir))}",
    )


def section(results: Results, protocol: Protocol) -> Section:
    """Gather what is shown of a protocol."""
    shown = [entry for entry in results.all_entries() if entry.protocol == protocol]
    entries = [entry for entry in shown if entry.runs]
    finished = results.finished_entries(protocol)
    models = unique([entry.model for entry in entries])
    columns = min(MAX_COLUMNS, len(models) if len(models) > 1 else len(entries))
    if columns == len(models):  # as in the table, with its gaps
        entries = [entry for entry in shown if entry.model in models]
    places = unique([(entry.variant, entry.interval) for entry in finished])
    records = [record for entry in finished for record in entry.records]
    caches = {record.cache: record for record in records}
    return Section(
        protocol=protocol,
        headline=headline(finished),
        cards=[card(results, entry) for entry in entries],
        columns=columns,
        finished=finished,
        costs=cost_charts(results, finished, places),
        rows=[
            (charts.MARKERS[charts.row_marker(i)], place_title(variant, interval))
            for i, (variant, interval) in enumerate(places)
        ],
        machines=sorted(unique(map(machine, records))),
        splits=split_counts(records),
        lost=[line for record in caches.values() for line in lost_lines(record)],
    )


def place_title(variant: str, interval: int) -> str:
    """Name a row of the table."""
    return f"interval {interval}" + (f", {variant}" if variant else "")


def headline(entries: Sequence[Entry]) -> str | None:
    """Name the entry with the highest accuracy, and count those that it does not clearly beat."""
    if not entries:
        return None
    best = max(entries, key=lambda entry: entry.estimate().mean)
    equals = [entry for entry in entries if entry.estimate().mean == best.estimate().mean]
    if len(equals) > 1:
        return f"Highest accuracy: {100 * best.estimate().mean:.2f} %, of {len(equals)} entries."
    text = f"Highest accuracy: {best.model.title} at interval {best.interval}"
    text += f" ({best.variant})" if best.variant else ""
    text += f", {best.estimate()} %"
    low = best.estimate().low
    near = [entry for entry in entries if low is not None and (entry.estimate().high or 0) >= low]
    if len(near) > 1:  # the best one too
        text += f". The confidence intervals of {len(near) - 1} of the {len(entries) - 1} other "
        text += "entries overlap with it: the table does not show which of these is best"
    return text + "."


def card(results: Results, entry: Entry) -> Card:
    """Draw the charts of an entry."""
    title = f"{results.title(entry.model)}, {place_title(entry.variant, entry.interval)}"
    if not entry.is_finished:
        return Card(title, entry.text())
    unique_title = f"{entry.protocol}, {title}" if len(results.protocols) > 1 else title
    labels, confusion = entry.protocol.labels, entry.confusion["stacks"]
    matrix = charts.confusion_chart(labels, confusion, unique_title)
    _, recall, f1 = map(defined, class_scores(confusion))
    classes = charts.class_chart(labels, confusion.sum(axis=1).tolist(), recall, f1, unique_title)
    runs = [(own, run.record.best_epoch) for run in entry.runs if (own := read_curves(run.folder))]
    learning = None
    if runs:
        learning = charts.learning_chart(*zip(*runs, strict=True), len(labels), unique_title)
    return Card(title, entry.text(), matrix, classes, learning)


def cost_charts(
    results: Results, entries: Sequence[Entry], places: Sequence[tuple[str, int]]
) -> list[tuple[str, Markup]]:
    """Draw accuracy of finished entries against each cost; `places` gives the markers."""
    costs = {
        "million parameters": [entry.records[0].parameters / 1e6 for entry in entries],
        "milliseconds per stack": [entry.ms_per_stack for entry in entries],
    }
    drawn = []
    for name, values in costs.items():
        points = [
            charts.Point(
                value,
                (estimate := entry.estimate()).mean,
                estimate.low,
                estimate.high,
                results.models.index(entry.model),
                places.index((entry.variant, entry.interval)),
                f"{results.title(entry.model)}, interval {entry.interval}",
            )
            for entry, value in zip(entries, values, strict=True)
            if value
        ]
        if points:
            title = f"Accuracy against {name}, {entries[0].protocol}"
            drawn.append((name, charts.cost_chart(points, name, title)))
    return drawn


def split_counts(records: Sequence[FinishedRun]) -> list[SplitCounts]:
    """Count who and what is in each split; folds may differ, and give `8 to 10`."""
    rows = []
    for split in SPLITS if records else ():
        parts = [record.parts[split] for record in records]
        counts = [
            [
                *(span(own.get(label, 0) for own in level) for label in records[0].labels),
                span(sum(own.values()) for own in level),
            ]
            for level in ([part.stacks for part in parts], [part.clips for part in parts])
        ]
        subjects = parts[0].subjects if len({part.subjects for part in parts}) == 1 else ()
        num_subjects = span(len(part.subjects) for part in parts)
        rows.append(SplitCounts(split, list(zip(*counts, strict=True)), num_subjects, subjects))
    return rows


def lost_lines(record: FinishedRun) -> list[str]:
    """Describe what made no stack as `preprocess.py` does, from the cache, which names the clips.

    If the cache is gone or was rebuilt since, the numbers are those of the record.
    """
    directory = Path(record.cache)
    with suppress(UserError):
        rows = read_manifest(directory / "manifest.csv")
        groups = count_dropped(read_dropped(directory / "dropped.csv"), rows)
        found = [DroppedCount.model_validate(group, from_attributes=True) for group in groups]
        if found == list(record.dropped):
            return describe_lost(groups)
    return [
        f"no stack from {text}: {drop.reason}"
        for drop in record.dropped
        for number, text in (
            (drop.clips, counted(drop.clips, "clip")),
            (drop.segments, f"{counted(drop.segments, 'segment')} of clips that have other stacks"),
        )
        if number
    ]


def figure(value: float | None) -> str:
    """Format a measured value with three digits, without decimals above 100; `–` for None."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machine(record: FinishedRun) -> str:
    """Name what a run was computed on."""
    facts = record.provenance.machine
    return facts.gpu or f"{facts.cpu}, {facts.torch_threads} of {facts.cores} cores"


def origins(records: Sequence[FinishedRun]) -> dict[str, list[str]]:
    """Return the code, versions, machines and W&B runs of some runs, as far as they are known."""
    made = [record.provenance for record in records]
    facts = {
        "git commit": [
            each.commit and each.commit + " with uncommitted changes" * bool(each.dirty)
            for each in made
        ],
        "versions": [", ".join(f"{k} {v}" for k, v in each.versions.items()) for each in made],
        "machine": [machine(record) for record in records],
        "W&B": [record.wandb and record.wandb.url for record in records],
    }
    return {name: found for name, values in facts.items() if (found := unique(values))}


def sweep_command(sweep_dir: Path) -> str | None:
    """Return the command that repeats a sweep; None for a single run."""
    multirun = sweep_dir / "multirun.yaml"
    if not multirun.is_file():
        return None
    # as it was typed: each cell interpolates for itself
    typed = OmegaConf.to_container(OmegaConf.load(multirun), resolve=False)
    overrides = typed["hydra"]["overrides"]
    hydra = [word for word in overrides["hydra"] if not word.startswith("hydra.mode=")]
    return command("-m", *overrides["task"], *hydra)


def command(*arguments: str) -> str:
    """Format a call of train.py; the quotes around `interval='5'` are Hydra's."""
    plain = [re.sub(r"'(\d+)'", r"\1", argument) for argument in arguments]
    return shlex.join(["python", "train.py", *plain])
