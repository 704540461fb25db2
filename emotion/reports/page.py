"""The HTML page of a sweep: one file that loads nothing and runs no script, from `page.html`."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from emotion.clips.naming import SPLITS
from emotion.errors import UserError
from emotion.evaluation.learning_curve import KINDS
from emotion.evaluation.metrics import class_scores, defined
from emotion.reports import charts
from emotion.reports.person_curves import PersonCurve, accuracy_table, curve_key
from emotion.reports.personal import KIND_COLORS, curve_chart, curve_grid
from emotion.reports.results import Entry, Protocol, Results, unique
from emotion.reports.tables import command_of_best, grid, notes, span, table_names
from emotion.stacks.build_report import describe_lost
from emotion.sweeps.plan import read_plan
from emotion.training.record import FinishedRun

MAX_COLUMNS = 3  # of cards beside each other


@dataclass(frozen=True)
class Card:
    """The charts of an entry; `confusion` and the others are None if it has no scores."""

    title: str
    text: str
    confusion: Markup | None = None
    classes: Markup | None = None
    learning: Markup | None = None
    person: Markup | None = None  # by known clips of the person
    person_grid: tuple[list[str], list[list[str]]] | None = None


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
    costs: dict[str, Markup]  # name -> chart
    rows: list[tuple[str, str]]  # of the table: marker in the charts of costs, and name
    machines: list[str]  # that measured the costs
    splits: list[SplitCounts]
    lost: list[str]  # clips and segments that made no stack
    person_headings: list[str]  # of the accuracies by known clips
    person_rows: list[list[str]]  # title and these accuracies, of entries with a curve
    person_kinds: list[str]  # of histories, keys of `KINDS`
    person_notes: list[str]  # why other entries have none


def template(name: str) -> jinja2.Template:
    """Return a template of this folder, which fails on missing values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"grid": grid, "table_names": table_names, "zip": zip}
    environment.globals |= {"model_color": charts.model_color, "palette": charts.PALETTE}
    environment.globals |= {"kind_names": KINDS, "kind_colors": KIND_COLORS}
    environment.filters["figure"] = figure
    return environment.get_template(name)


def render_page(results: Results, sweep_dir: Path, curves: Mapping[str, PersonCurve]) -> str:
    """Return the page of the sweep in a folder; `curves` is from `person_curves`."""
    return template("page.html").render(
        name=sweep_dir.absolute().name,
        results=results,
        notices=unique([record.notice for record in results.finished]),
        notes=notes(results),
        sections=[section(results, protocol, curves) for protocol in results.protocols],
        origins=origins(results.finished),
        commits=unique([record.provenance.commit for record in results.finished]),
        sweep=sweep_command(sweep_dir),
        runs=[run.head.command for run in results.runs],
        predict=command_of_best(results),
        report=f"python -m emotion.reports {shlex.quote(str(sweep_dir))}",
    )


def section(results: Results, protocol: Protocol, curves: Mapping[str, PersonCurve]) -> Section:
    """Gather what is shown of a protocol."""
    shown = [entry for entry in results.all_entries if entry.protocol == protocol]
    entries = [entry for entry in shown if entry.runs]
    finished = results.finished_entries(protocol)
    models = unique([entry.model for entry in entries])
    columns = min(MAX_COLUMNS, len(models) if len(models) > 1 else len(entries))
    if columns == len(models):  # as in the table, with its gaps
        entries = [entry for entry in shown if entry.model in models]
    rows = unique([entry.row for entry in finished])
    records = [record for entry in finished for record in entry.records]
    caches = {record.cache: record for record in records}
    known = [(results.entry_title(e), curves[key]) for e in entries if (key := curve_key(e))]
    points = {title: curve.points for title, curve in known if curve.points}
    headings, person_rows = accuracy_table(points)
    return Section(
        protocol=protocol,
        headline=headline(results, finished),
        cards=[card(results, entry, curves) for entry in entries],
        columns=columns,
        finished=finished,
        costs=cost_charts(results, finished, rows),
        rows=[(charts.SIGNS[i % len(charts.SIGNS)], row) for i, row in enumerate(rows)],
        machines=sorted(unique(map(machine, records))),
        splits=split_counts(records),
        lost=[line for record in caches.values() for line in describe_lost(record.dropped)],
        person_headings=headings,
        person_rows=person_rows,
        person_kinds=unique([point.kind for each in points.values() for point in each]),
        person_notes=[f"{title}: {curve.reason}" for title, curve in known if curve.reason],
    )


def headline(results: Results, entries: Sequence[Entry]) -> str | None:
    """Name the entry with the highest accuracy, and count those that it does not clearly beat."""
    if not entries:
        return None
    best = max((entry.estimate() for entry in entries), key=lambda estimate: estimate.mean)
    names = [results.entry_title(each) for each in entries if each.estimate().mean == best.mean]
    chance = f" Chance is {100 / len(entries[0].protocol.labels):.1f} %."
    if len(names) > 1:
        of = f"{len(names)} of {len(entries)} entries have the highest accuracy"
        return f"{of}, {100 * best.mean:.2f} %: {'; '.join(names)}.{chance}"
    text = f"Highest accuracy: {names[0]}, {best} %.{chance}"
    highs = [entry.estimate().high or 0 for entry in entries]
    near = 0 if best.low is None else sum(high >= best.low for high in highs) - 1  # but itself
    if near:
        text += f" The confidence intervals of {near} of the {len(entries) - 1} other entries "
        text += "overlap with it: the table does not show which of these is best."
    return text


def card(results: Results, entry: Entry, curves: Mapping[str, PersonCurve]) -> Card:
    """Draw the charts of an entry."""
    title = results.entry_title(entry)
    if not entry.is_finished:
        return Card(title, entry.text())
    unique_title = f"{entry.protocol}, {title}" if len(results.protocols) > 1 else title
    labels, confusion = entry.protocol.labels, entry.levels["stacks"].confusion
    matrix = charts.confusion_chart(labels, confusion, unique_title)
    _, recall, f1 = map(defined, class_scores(confusion))
    classes = charts.class_chart(labels, confusion.sum(axis=1).tolist(), recall, f1, unique_title)
    runs = [(run.curves, run.record.best_epoch) for run in entry.runs if run.curves]
    learning = None
    if runs:
        learning = charts.learning_chart(*zip(*runs, strict=True), len(labels), unique_title)
    key = curve_key(entry)
    points = curves[key].points if key else ()
    person = (curve_chart(points, unique_title), curve_grid(points)) if points else (None, None)
    return Card(title, entry.text(), matrix, classes, learning, *person)


def cost_charts(
    results: Results, entries: Sequence[Entry], rows: Sequence[str]
) -> dict[str, Markup]:
    """Draw accuracy of finished entries against each cost; the index in `rows` is the marker."""
    costs = {
        "million parameters": [entry.records[0].parameters / 1e6 for entry in entries],
        "milliseconds per stack": [entry.median("ms_per_stack") for entry in entries],
    }
    drawn = {}
    for name, values in costs.items():
        points = [
            charts.Point(
                value,
                entry.estimate(),
                results.models.index(entry.model),
                rows.index(entry.row),
                results.entry_title(entry),
            )
            for entry, value in zip(entries, values, strict=True)
            if value
        ]
        if points:
            title = f"Accuracy against {name}, {entries[0].protocol}"
            drawn[name] = charts.cost_chart(points, name, title)
    return drawn


def split_counts(records: Sequence[FinishedRun]) -> list[SplitCounts]:
    """Count who and what is in each split; folds may differ, and give `8 to 10`."""
    rows = []
    for split in SPLITS if records else ():
        parts = [record.parts[split] for record in records]
        stacks, clips = (
            [
                *(span(own.get(label, 0) for own in level) for label in records[0].labels),
                span(sum(own.values()) for own in level),
            ]
            for level in ([part.stacks for part in parts], [part.clips for part in parts])
        )
        subjects = parts[0].subjects if len({part.subjects for part in parts}) == 1 else ()
        num_subjects = span(len(part.subjects) for part in parts)
        rows.append(
            SplitCounts(split, list(zip(stacks, clips, strict=True)), num_subjects, subjects)
        )
    return rows


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
        "machine": map(machine, records),
        "W&B": [record.wandb and record.wandb.url for record in records],
    }
    return {name: found for name, values in facts.items() if (found := unique(values))}


def sweep_command(sweep_dir: Path) -> str | None:
    """Return the command that repeats a sweep; None for a run, or if the notes name its damage."""
    try:
        return read_plan(sweep_dir).command
    except UserError:
        return None
