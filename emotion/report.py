"""runs ──show──> results table and confusion grid of a sweep.

Reads the `metrics.json` of every run below a folder: python -m emotion.report SWEEP_DIR
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from hydra.experimental.callback import Callback
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from emotion.cell import read_record
from emotion.errors import UserError
from emotion.manifest import write_table


def read_runs(sweep_dir: Path) -> list[dict]:
    """Read what the runs of a sweep wrote.

    Args:
        sweep_dir: a sweep's folder, or that of a single run.

    Returns:
        The content of each `metrics.json`. Of a sweep, those of the cells that its last start
        asked for, in that order; a cell that has not run to its end has the status `unfinished`.

    Raises:
        UserError: there is none.
    """
    plan = sweep_dir / "sweep.json"
    if plan.exists():
        unfinished = {"status": "unfinished", "error": "it has not run to its end"}
        cells = json.loads(plan.read_text(encoding="utf-8"))
        return [read_record(sweep_dir / cell["folder"]) or cell | unfinished for cell in cells]
    folders = sorted(path.parent for path in sweep_dir.glob("**/metrics.json"))
    if not folders:
        raise UserError(f"no metrics.json in {sweep_dir} or below: give the folder of a sweep")
    return [record for folder in folders if (record := read_record(folder))]


class Results:
    """The runs of a sweep, ordered into rows (intervals) and columns (models)."""

    def __init__(self, runs: Sequence[dict]) -> None:
        """Order runs.

        Args:
            runs: as `read_runs` gives them.
        """
        self.runs = runs
        self.finished = [run for run in runs if run["status"] == "finished"]
        self.models = list(dict.fromkeys(run["model"] for run in runs))
        self.intervals = sorted({run["interval"] for run in runs})

    def cell(self, interval: int, model: str) -> list[dict]:
        """Give the runs of a cell, one for each seed."""
        return [r for r in self.runs if (r["interval"], r["model"]) == (interval, model)]

    def heading(self, model: str) -> str:
        """Name a model with its parameters, in millions, at the shortest interval."""
        titles = {r["model_title"] for r in self.runs if r["model"] == model}
        counts = [r["parameters"] for r in self.finished if r["model"] == model]
        return titles.pop() + (f" ({max(counts) / 1e6:.2f} M)" if counts else "")

    def row_heading(self, interval: int) -> tuple[str, str]:
        """Give an interval and its number of images."""
        images = [r["num_images"] for r in self.finished if r["interval"] == interval]
        return str(interval), str(images[0]) if images else "-"

    def cell_text(self, interval: int, model: str) -> str:
        """Show a cell's accuracy in percent: one run's, or mean and deviation over seeds."""
        runs = self.cell(interval, model)
        if not runs:
            return "-"
        if broken := [run["status"] for run in runs if run["status"] != "finished"]:
            return broken[0]
        accuracies = [100 * run["accuracy"] for run in runs]
        text = f"{statistics.mean(accuracies):.2f}"
        if len(runs) > 1:
            text += f" ± {statistics.stdev(accuracies):.2f}"
        return text

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """Give the table's column headings and its rows of texts."""
        headings = ["interval", "images", *(self.heading(model) for model in self.models)]
        rows = [
            [*self.row_heading(interval), *(self.cell_text(interval, m) for m in self.models)]
            for interval in self.intervals
        ]
        return headings, rows

    def notes(self) -> list[str]:
        """Say what a reader has to know of the numbers."""
        notes = []
        for data in dict.fromkeys(run["data"] for run in self.finished):
            runs = [run for run in self.finished if run["data"] == data]
            run = runs[0]
            reported = run["reported_on"]
            note = (
                f"{data}: accuracy in % on {run['stacks'][reported]} {reported} stacks of "
                f"{run['clips'][reported]} clips, trained on {run['stacks']['train']} stacks; "
            )
            if reported == run["selected_on"]:
                note += "the best epoch was selected, and is reported, on the same clips"
            else:
                note += f"the best epoch was selected on {run['stacks']['val']} val stacks"
            if run["notice"]:
                note += f"; {run['notice']}"
            notes.append(note)
        sources = dict.fromkeys(
            (run["pretrained"]["loaded"], run["pretrained"]["source"]) for run in self.finished
        )
        for loaded, source in sources:
            models = dict.fromkeys(
                run["model"] for run in self.finished if run["pretrained"]["source"] == source
            )
            start = "weights from " if loaded else "started from "
            notes.append(f"{', '.join(models)}: {start}{source}")
        for run in self.runs:
            if run["status"] != "finished":
                cell = f"{run['model']}, interval {run['interval']}"
                notes.append(f"{run['status']}: {cell}: {run['error']}")
        return notes

    def markdown(self) -> str:
        """Give table and notes as Markdown."""
        headings, rows = self.grid()
        lines = [headings, ["---:"] * len(headings), *rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return table + "\n\n" + "\n".join(f"- {note}" for note in self.notes()) + "\n"

    def terminal_table(self) -> Table:
        """Give the table for the terminal."""
        headings, rows = self.grid()
        table = Table(title="accuracy, %")
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*row)
        return table

    def confusion_grid(self) -> Figure:
        """Draw every cell's confusion matrix, rows and columns as in the table; seeds add up."""
        cells = [(interval, model) for interval in self.intervals for model in self.models]
        columns = len(self.models) if len(self.models) > 1 else len(cells)  # one model: one row
        rows = len(cells) // columns
        figure = Figure(figsize=(0.6 + 3.1 * columns, 0.6 + 3.1 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, (interval, model) in zip(axes.flat, cells, strict=True):
            self._draw_cell(axis, interval, model)
        for axis in axes[:, 0]:
            axis.set_ylabel("true")
        for axis in axes[-1]:
            axis.set_xlabel("predicted")
        return figure

    def _draw_cell(self, axis: Any, interval: int, model: str) -> None:
        """Draw one confusion matrix: counts, shaded by their share of the true class."""
        runs = [r for r in self.cell(interval, model) if r["status"] == "finished"]
        title = next(r["model_title"] for r in self.runs if r["model"] == model)
        if not runs:
            axis.set_title(f"{title}, interval {interval}", fontsize=9)
            axis.text(0.5, 0.5, self.cell_text(interval, model), ha="center", va="center")
            axis.set_xticks([])
            axis.set_yticks([])
            return
        accuracy = statistics.mean(run["accuracy"] for run in runs)
        axis.set_title(f"{title}, interval {interval}: {accuracy:.1%}", fontsize=9)
        labels = runs[0]["labels"]
        size = range(len(labels))
        counts = [[sum(run["confusion"][i][j] for run in runs) for j in size] for i in size]
        shares = [[count / max(1, sum(line)) for count in line] for line in counts]
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i in size:
            for j in size:
                colour = "white" if shares[i][j] > 0.5 else "black"
                axis.text(j, i, counts[i][j], ha="center", va="center", color=colour, fontsize=8)
        axis.set_xticks(size, labels, fontsize=7, rotation=30)
        axis.set_yticks(size, labels, fontsize=7)


def write_report(sweep_dir: Path) -> Results:
    """Write a sweep's table (Markdown, CSV) and confusion grid (PNG); print the table.

    Args:
        sweep_dir: the sweep's folder; the files go there.

    Returns:
        The results.

    Raises:
        UserError: there are no runs in it.
    """
    results = Results(read_runs(sweep_dir))
    (sweep_dir / "results.md").write_text(results.markdown(), encoding="utf-8")
    headings, rows = results.grid()
    write_table(
        sweep_dir / "results.csv", headings, (dict(zip(headings, r, strict=True)) for r in rows)
    )
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        results.confusion_grid().savefig(sweep_dir / "confusion.png", dpi=110)
    console = Console()
    console.print(results.terminal_table())
    for note in results.notes():
        console.print(f"- {note}", highlight=False)
    console.print(
        f"table and confusion matrices: {sweep_dir}/{{results.md,results.csv,confusion.png}}",
        soft_wrap=True,
        highlight=False,
    )
    return results


class SweepReport(Callback):
    """Hydra callback: reports a sweep at its end; failed cells make its exit status 1."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write and print the report."""
        results = write_report(Path(config.hydra.sweep.dir))
        failed = len(results.runs) - len(results.finished)
        if failed:
            sys.exit(
                f"error: {failed} of {len(results.runs)} cells failed; the same command with "
                f"sweep={Path(config.hydra.sweep.dir).name} runs them again"
            )


def main() -> None:
    """Report on the sweep named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m emotion.report", description=__doc__)
    parser.add_argument("sweep_dir", type=Path, help="folder of a sweep or run")
    try:
        write_report(parser.parse_args().sweep_dir)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
