"""The tables of a report as text: Markdown, CSV rows, W&B's table, and the notes below them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import Any

from emotion.escape import for_markdown
from emotion.evaluation.metrics import SCORES, Confidence
from emotion.reports.results import LEVELS, Entry, Model, Protocol, Results, unique
from emotion.tables import counted, markdown_table
from emotion.training.record import predict_command

COLUMNS = (
    *("data", "split", "split_settings", "settings", "model", "title", "interval", "num_images"),
    *("folds", "status", "reported_on", "selected_on", "seed", "level", "score", "class"),
    *("value", "std", "low", "high", "unit", "num_units", "num"),
)

MEASURES = ("ms_per_stack", "train_stacks_per_s")  # of `Throughput`


def heading(results: Results, model: Model) -> str:
    """Return a model's title with its parameters in millions, those of the shortest interval."""
    counts = [record.parameters for record in results.finished if Model.of(record) == model]
    return results.title(model) + (f" ({max(counts) / 1e6:.2f} M)" if any(counts) else "")


def grid(
    results: Results, protocol: Protocol, score: str = "accuracy", level: str = "stacks"
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a table of one of `SCORES` at one of `LEVELS`."""
    settings = ["settings"] if results.variants != [""] else []
    models = [heading(results, model) for model in results.models]
    rows = []
    for (variant, interval), entries in results.tables[protocol].items():
        heads = [variant or "as configured"] if settings else []
        heads += [str(interval), str(results.num_images(interval) or "-")]
        rows.append([*heads, *(entry.text(score, level) for entry in entries)])
    return [*settings, "interval", "images", *models], rows


def table_names(results: Results, protocol: Protocol) -> Iterator[tuple[str, str, str]]:
    """Yield title, score and level of each table that adds information; accuracy first."""
    more_stacks = any(
        len(stacks) > len(entry.levels["clips"].predictions[seed])
        for entry in results.finished_entries(protocol)
        for seed, stacks in entry.levels["stacks"].predictions.items()
    )
    for level in LEVELS if more_stacks else LEVELS[:1]:  # with one stack per clip both are equal
        for score, name in SCORES.items():
            yield f"{name} of {level}, %", score, level


def markdown(results: Results) -> str:
    """Return tables and notes as Markdown: accuracy first, then the notes, then other scores."""
    first, others, num = [], [], len(results.models)
    for protocol in results.protocols:
        tables = []
        for title, score, level in table_names(results, protocol):
            headings, rows = grid(results, protocol, score, level)
            headings = list(map(for_markdown, headings))
            # scores are our own text
            rows = [[*map(for_markdown, row[:-num]), *row[-num:]] for row in rows]
            named = f"{for_markdown(str(protocol))}: " if len(results.protocols) > 1 else ""
            tables.append(f"{named}{title}\n\n{markdown_table(headings, rows)}")
        first.append(tables[0])
        others += tables[1:]
    noted = "\n".join(f"- {for_markdown(note)}" for note in notes(results))
    return "\n\n".join([*first, noted, *others]) + "\n"


def notes(results: Results) -> list[str]:
    """Return what a reader has to know of the numbers, and every run without numbers."""
    lines = []
    for protocol in results.protocols:
        entries = results.finished_entries(protocol)
        names: dict[str, list[str]] = defaultdict(list)
        for entry in entries:
            names[basis(entry)].append(f"{results.title(entry.model)} {entry.interval}")
        for text, of in names.items():
            which = f" ({', '.join(of)})" if len(names) > 1 else ""
            lines.append(f"{protocol}{which}: {text}")
        clips = [each for entry in entries for each in entry.levels["clips"].predictions.values()]
        if any("" in each.subjects for each in clips):
            lines.append(
                f"{protocol}: subjects are not known; where a person has several clips, train and "
                "test share people, and the accuracy for new people is lower"
            )
        notices = unique([record.notice for entry in entries for record in entry.records])
        lines += [f"{protocol.data}: {notice}" for notice in notices]
    networks = [record for record in results.finished if record.parameters]
    for weights in unique([record.pretrained for record in networks]):
        models = [Model.of(record) for record in results.finished if record.pretrained == weights]
        start = "weights from " if weights.loaded else "started from "
        lines.append(f"{', '.join(unique(map(results.title, models)))}: {start}{weights.source}")
    for entry in results.entries:
        for run in (run for run in entry.runs if run.error):
            status = "damaged" if run.status == "finished" else run.status
            fold = "" if run.head.split.fold is None else f", fold {run.head.split.fold}"
            title = results.entry_title(entry)
            lines.append(f"{status}: {title}, seed {run.head.seed}{fold}: {run.error}")
    return lines + [f"damaged: {error}" for error in results.damaged]


def command_of_best(results: Results) -> str | None:
    """Return the command that predicts with the run of the highest validation accuracy."""
    finished = [run for run in results.runs if run.status == "finished"]
    if not finished:
        return None
    return predict_command(max(finished, key=lambda run: run.record.val_accuracy).folder)


def basis(entry: Entry) -> str:
    """Describe the data that the numbers of a finished entry are based on."""
    stacks, clips = (next(iter(entry.levels[level].predictions.values())) for level in LEVELS)
    records = entry.records
    reported, selected = records[0].reported_on, records[0].selected_on
    text = f"scores in % on {len(stacks)} {reported} stacks of {len(clips)} clips"
    if subjects := set(stacks.subjects) - {""}:
        text += f" and {counted(len(subjects), 'subject')}"
    if entry.folds:
        numbers = ", ".join(map(str, entry.folds))
        text += f" (fold {numbers})" if len(entry.folds) == 1 else f" (folds {numbers}, pooled)"
    text += f", trained on {span(record.stacks['train'] for record in records)} stacks; "
    if reported == selected:
        text += "the best epoch was selected and reported on the same clips"
    else:
        number = span(record.stacks[selected] for record in records)
        text += f"the best epoch was selected on {number} {selected} stacks"
    if len(entry.seeds) > 1:
        text += f"; ±: standard deviation over seeds {', '.join(map(str, entry.seeds))}"
    if confidence := entry.levels["stacks"].confidence:
        units = counted(confidence.num_units, confidence.unit.removesuffix("s"))
        text += f"; [low, high]: 95 % confidence interval, bootstrap over {units}"
        if subjects and confidence.unit == "clips":
            text += ", because there are too few subjects to resample: others may differ by more"
    else:
        text += "; no confidence interval, because the seeds were evaluated on different clips"
    return text


def span(numbers: Iterable[int]) -> str:
    """Format numbers that may be equal: `8`, or `8 to 10`."""
    low, *_, high = sorted(numbers) * 2
    return str(low) if low == high else f"{low} to {high}"


def place(results: Results, entry: Entry) -> dict[str, Any]:
    """Return the columns that name an entry."""
    return {
        "data": entry.protocol.data,
        "split": entry.protocol.split,
        "split_settings": entry.protocol.settings,
        "settings": entry.variant,
        "model": entry.model.name,
        "title": heading(results, entry.model),
        "interval": entry.interval,
        "num_images": results.num_images(entry.interval),
        "folds": " ".join(map(str, entry.folds)),
        "status": "finished" if entry.is_finished else entry.text(),
    }


def summary_table(results: Results) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of numbers for a dashboard: a row for each entry, None if unknown."""
    rows = []
    for entry in results.entries:
        row = place(results, entry) | {"runs": len(entry.runs)}
        if entry.is_finished:
            for score in SCORES:
                names = (score, *(f"{score} {part}" for part in ("std", "low", "high")))
                row |= zip(names, astuple(entry.estimate(score)), strict=True)
            row["parameters"] = entry.records[0].parameters
            row |= {measure: entry.median(measure) for measure in MEASURES}
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return columns, [[row.get(column) for column in columns] for row in rows]


def csv_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Yield a row for every number, 0 to 1; an unfinished entry has one row without numbers."""
    for entry in results.entries:
        own = place(results, entry)
        if entry.is_finished:
            own |= {key: getattr(entry.records[0], key) for key in ("reported_on", "selected_on")}
            yield from (own | row for row in score_rows(entry))
        else:
            yield own


def score_rows(entry: Entry) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of a finished entry; an undefined score has no value."""
    for level in LEVELS:
        for seed, scores in entry.levels[level].scores.items():
            own = {"seed": seed, "level": level, "num": scores.num}
            for score in SCORES:
                interval = interval_of(scores.confidence, score)
                yield own | interval | {"score": score, "value": getattr(scores, score)}
            for score in ("precision", "recall", "f1"):
                for label, value in zip(entry.protocol.labels, getattr(scores, score), strict=True):
                    yield own | {"score": score, "class": label, "value": value}
        if len(entry.seeds) > 1:
            for score in SCORES:
                mean = entry.estimate(score, level)
                own = {"seed": "mean", "level": level, "value": mean.mean, "std": mean.std}
                yield own | interval_of(entry.levels[level].confidence, score) | {"score": score}


def interval_of(confidence: Confidence | None, score: str) -> dict[str, Any]:
    """Return the columns of a confidence interval, if there is one."""
    if confidence is None:
        return {}
    units = {"unit": confidence.unit, "num_units": confidence.num_units}
    return units | dict(zip(("low", "high"), confidence.bounds[score], strict=True))
