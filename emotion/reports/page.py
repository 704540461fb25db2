"""results ──show──> one HTML file: tables, charts, facts and commands, with nothing to load.

`page.html` is the template. Colours, words and pictures all stand in the file, so that it opens
from a disk, a mail or a server, and there is no script in it.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from emotion.clips.naming import SPLITS
from emotion.evaluation.metrics import class_scores, defined
from emotion.reports.charts import (
    MARKERS,
    PALETTE,
    Point,
    class_chart,
    confusion_chart,
    cost_chart,
    learning_chart,
    model_color,
    row_marker,
)
from emotion.reports.results import Entry, Protocol, Results, counted, read_curves, span
from emotion.stacks.build_report import read_dropped

MAX_COLUMNS = 3  # of charts beside each other
MAX_NAMES = 100  # of dropped clips for each reason


@cache
def template() -> jinja2.Template:
    """Read the page's template; what is put into it is escaped, and what it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def render_page(results: Results, sweep_dir: Path) -> str:
    """Write the page of a sweep.

    Args:
        results: of its runs.
        sweep_dir: its folder.
    """
    return template().render(
        name=sweep_dir.absolute().name,
        num_runs=len(results.runs),
        num_finished=len(results.finished),
        notices=list(dict.fromkeys(run["notice"] for run in results.finished if run["notice"])),
        notes=results.notes(),
        sections=[protocol_section(results, protocol) for protocol in results.protocols],
        palette=PALETTE,
        origins=list_origins(results),
        commands=list_commands(results, sweep_dir),
    )


def protocol_section(results: Results, protocol: Protocol) -> dict[str, Any]:
    """Gather what is shown of a data set and split.

    Returns:
        `name`; `headline`; `tables`; `entries` in the table's order, those that are not finished
        included, and the `columns` they stand in; `costs`; `data`, class counts and what was
        dropped; and whether the seed's table is of the same data set.
    """
    entries = [entry for entry in results.entries if entry.protocol == protocol]
    finished = results.finished_entries(protocol)
    models = list(dict.fromkeys(entry.model for entry in entries))
    columns = min(MAX_COLUMNS, len(models) if len(models) > 1 else len(entries))
    shown = entries
    if columns == len(models):  # as in the table, with its gaps
        rows = results.rows(protocol).values()
        shown = [entry for row in rows for entry in row if entry.model in models]
    return {
        "name": str(protocol),
        "headline": headline(finished),
        "tables": [
            {"title": title, **table(results, protocol, score, level)}
            for title, score, level in results.table_names(protocol)
        ],
        "entries": [show_entry(entry, results.title(entry.model)) for entry in shown],
        "columns": columns,
        "has_curves": any(
            read_curves(Path(run["folder"])) for entry in finished for run in entry.runs
        ),
        "costs": costs(results, finished),
        "data": data_facts([run for entry in entries for run in entry.runs]),
    }


def headline(entries: Sequence[Entry]) -> str | None:
    """Say which entry is highest, and how many others it does not clearly beat."""
    if not entries:
        return None
    best = max(entries, key=lambda entry: entry.estimate().mean)
    equals = [entry for entry in entries if entry.estimate().mean == best.estimate().mean]
    if len(equals) > 1:
        return f"Highest accuracy: {100 * best.estimate().mean:.2f} %, of {len(equals)} entries."
    text = f"Highest accuracy: {best.title} at interval {best.interval}"
    text += f" ({best.variant})" if best.variant else ""
    text += f", {best.estimate()} %"
    low = best.estimate().low
    others = [entry for entry in entries if entry is not best]
    near = [entry for entry in others if low is not None and (entry.estimate().high or 0) >= low]
    if near:
        text += f". The confidence intervals of {len(near)} of the {len(others)} other "
        text += "entries reach into its own: the table does not say which of these is best"
    return text + "."


def table(results: Results, protocol: Protocol, score: str, level: str) -> dict[str, Any]:
    """Give a table's headings and rows, its entries taken apart for the style sheet.

    Returns:
        `headings`; `num_heads`, how many of them head a row; `rows` of `heads` and `entries`.
    """
    headings, texts = results.grid(protocol, score, level)
    num_heads = len(headings) - len(results.models)
    rows = []
    for shown, of_row in zip(texts, results.rows(protocol).values(), strict=True):
        rows.append(
            {
                "heads": shown[:num_heads],
                "entries": [
                    {"estimate": entry.estimate(score, level) if entry.is_finished else None}
                    | {"text": entry.text(score, level)}
                    for entry in of_row
                ],
            }
        )
    means = [e["estimate"].mean for row in rows for e in row["entries"] if e["estimate"]]
    highest = max(means, default=None)
    return {"headings": headings, "num_heads": num_heads, "rows": rows, "highest": highest}


def show_entry(entry: Entry, model_title: str) -> dict[str, Any]:
    """Gather what is shown of an entry: its name, what became of it, and its pictures."""
    title = f"{model_title}, interval {entry.interval}"
    title += f", {entry.variant}" if entry.variant else ""
    shown: dict[str, Any] = {"title": title, "text": entry.text(), "is_finished": entry.is_finished}
    if not entry.is_finished:
        return shown
    labels, confusion = entry.protocol.labels, entry.confusion["stacks"]
    counts = confusion.sum(axis=1)
    _, recall, f1 = class_scores(confusion)
    curves = [(of_run, run) for run in entry.runs if (of_run := read_curves(Path(run["folder"])))]
    return shown | {
        "confusion": confusion_chart(labels, confusion, title),
        "classes": class_chart(labels, counts.tolist(), defined(recall), defined(f1), title),
        "learning": curves
        and learning_chart(
            [of_run for of_run, _ in curves],
            [run["best_epoch"] for _, run in curves],
            len(labels),
            title,
        ),
    }


def costs(results: Results, entries: Sequence[Entry]) -> dict[str, Any]:
    """Gather what accuracy costs: charts, their legend and the numbers.

    Args:
        results: of the sweep; give colours to models and shapes to rows.
        entries: finished ones.
    """
    rows = list(dict.fromkeys((entry.variant, entry.interval) for entry in entries))
    models = list(dict.fromkeys(entry.model for entry in entries))
    charts = []
    for name, factor, get in (
        ("million parameters", 1e-6, lambda entry: entry.parameters),
        ("milliseconds a stack", 1, lambda entry: entry.ms_per_stack),
    ):
        points = []
        for entry in entries:
            if get(entry):
                mean = entry.estimate()
                title = f"{entry.title}, interval {entry.interval}"
                place = (models.index(entry.model), rows.index((entry.variant, entry.interval)))
                points.append(
                    Point(factor * get(entry), mean.mean, mean.low, mean.high, *place, title)
                )
        if points:
            charts.append({"name": name, "svg": cost_chart(points, name)})
    return {
        "charts": charts,
        "models": [(model_color(i), results.title(model)) for i, model in enumerate(models)],
        "rows": [
            (
                MARKERS[row_marker(shape)],
                f"interval {interval}" + (f", {variant}" if variant else ""),
            )
            for shape, (variant, interval) in enumerate(rows)
        ],
        "entries": [
            {
                "title": entry.title,
                "row": f"{entry.interval}" + (f", {entry.variant}" if entry.variant else ""),
                "accuracy": f"{100 * entry.estimate().mean:.2f}",
                "parameters": f"{entry.parameters:,}",
                "ms": figure(entry.ms_per_stack),
                "stacks": figure(entry.train_stacks_per_s),
                "minutes": figure(sum(run.get("seconds", 0) for run in entry.runs) / 60),
            }
            for entry in entries
        ],
        "machines": sorted(
            {name for entry in entries for run in entry.runs if (name := machine(run))}
        ),
    }


def figure(value: float | None) -> str:
    """Write a measured value with three digits, whole above 100; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machine(run: dict) -> str | None:
    """Name what a run was computed on; None where it does not say."""
    facts = run.get("machine")
    if not facts:
        return None
    return facts["gpu"] or f"{facts['cpu']}, {facts['torch_threads']} of {facts['cores']} cores"


def data_facts(runs: Sequence[dict]) -> dict[str, Any]:
    """Gather who and what was in the splits, and what made no stack.

    Args:
        runs: of one protocol; folds may differ in their parts.

    Returns:
        `labels`; `parts`, a row for each split; `dropped`, for each reason the counts and names.
    """
    parts = [of for run in runs if (of := run["split"].get("parts"))]
    labels = runs[0]["labels"]
    rows = []
    for split in SPLITS if parts else ():
        of_split = [of[split] for of in parts]
        counts = [
            {kind: span(of[kind].get(label, 0) for of in of_split) for kind in ("stacks", "clips")}
            for label in labels
        ]
        total = {kind: span(sum(of[kind].values()) for of in of_split) for kind in counts[0]}
        rows.append(
            {
                "split": split,
                "counts": [*counts, total],
                "num_subjects": span(len(of["subjects"]) for of in of_split),
                # who they are differs from fold to fold
                "subjects": of_split[0]["subjects"] if len(set(map(str, of_split))) == 1 else [],
            }
        )
    caches = {run["cache"]: run["dropped"] for run in runs if run.get("cache")}
    return {
        "labels": labels,
        "parts": rows,
        "knows_dropped": bool(caches),
        "dropped": [
            {**reason, "counts": dropped_counts(reason)}
            | {"names": names[reason["reason"]][:MAX_NAMES]}
            for directory, reasons in caches.items()
            for names in [dropped_names(Path(directory))]
            for reason in reasons
        ],
    }


def dropped_counts(reason: dict[str, Any]) -> str:
    """Say how much was dropped for a reason."""
    whole, parts = counted(reason["clips"], "clip"), counted(reason["segments"], "segment")
    if not reason["segments"]:
        return whole
    return f"{parts} of other clips" if not reason["clips"] else f"{whole}, {parts} of other clips"


def dropped_names(directory: Path) -> dict[str, list[str]]:
    """Name what made no stack in a cache, by reason; nothing where the cache is not there."""
    names = defaultdict(list)
    for drop in read_dropped(directory):
        name = drop.clip + (f", segment {drop.segment}" if drop.segment else "")
        names[drop.reason].append(name + (f" ({drop.detail})" if drop.detail else ""))
    return names


def list_origins(results: Results) -> list[tuple[str, str]]:
    """Say what the runs were made with, as far as they say so: code, versions, machines."""
    commits, versions, machines, urls = {}, {}, {}, {}
    for run in results.finished:
        if run.get("commit"):
            commits[run["commit"] + (" and changes since" if run.get("dirty") else "")] = None
        if run.get("versions"):
            versions[", ".join(f"{name} {of}" for name, of in run["versions"].items())] = None
        if name := machine(run):
            machines[name] = None
        if run.get("wandb") and run["wandb"]["url"]:
            urls[run["wandb"]["url"]] = None
    facts = (("git commit", commits), ("versions", versions), ("machine", machines), ("W&B", urls))
    return [(name, "; ".join(of)) for name, of in facts if of]


def list_commands(results: Results, sweep_dir: Path) -> dict[str, Any]:
    """Give the commands that repeat the sweep, its runs and this page.

    Returns:
        `checkout` (None where the commit is unknown), `sweep` (None for a single run), `runs` and
        `report`.
    """
    commits = {run.get("commit") for run in results.finished}
    commit = commits.pop() if len(commits) == 1 else None
    sweep = None
    multirun = sweep_dir / "multirun.yaml"
    if multirun.is_file():
        # as it was typed: what is interpolated there, each cell interpolates for itself
        typed = OmegaConf.to_container(OmegaConf.load(multirun), resolve=False)
        overrides = typed["hydra"]["overrides"]
        of_hydra = [word for word in overrides["hydra"] if not word.startswith("hydra.mode=")]
        sweep = command("-m", *overrides["task"], *of_hydra)
    return {
        "checkout": commit and f"git checkout {commit}",
        "sweep": sweep,
        "runs": [command(*run["overrides"]) for run in results.runs],
        "report": f"python -m emotion.reports {shlex.quote(str(sweep_dir))}",
    }


def command(*arguments: str) -> str:
    """Write a call of train.py as one types it: the quotes around `interval='5'` are Hydra's."""
    plain = [re.sub(r"'(\d+)'", r"\1", argument) for argument in arguments]
    return shlex.join(["python", "train.py", *plain])
