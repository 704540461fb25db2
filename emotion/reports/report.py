"""Write the files of a report: tables, the picture of all confusion matrices, and the page."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from emotion.escape import for_terminal
from emotion.files import unfinished
from emotion.reports.charts import draw_confusions
from emotion.reports.page import render_page
from emotion.reports.person_curves import person_curves
from emotion.reports.results import Results, read_runs
from emotion.reports.tables import (
    COLUMNS,
    command_of_best,
    csv_rows,
    grid,
    markdown,
    notes,
    summary_table,
)
from emotion.tables import write_table

FOLDERS = ("sweeps", "runs")  # of an output folder; `reports` is beside them


def write_report(sweep_dir: Path) -> Results:
    """Write the report of the folder of a sweep or run, and print its main table.

    `results.md`, `results.csv` and `confusion.png` go into that folder; the page to `page_path`.
    """
    results = Results(*read_runs(sweep_dir))
    page = page_path(sweep_dir)
    curves = person_curves(results, sweep_dir)
    for path, text in (
        (sweep_dir / "results.md", markdown(results)),
        (page, render_page(results, sweep_dir, curves)),
    ):
        with unfinished(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    write_table(sweep_dir / "results.csv", COLUMNS, csv_rows(results))
    with unfinished(sweep_dir / "confusion.png") as temporary:
        draw_confusions(results, temporary)
    console = Console()
    for protocol in results.protocols:
        headings, rows = grid(results, protocol)
        table = Table(*(Column(shown(heading), justify="right") for heading in headings))
        title = "accuracy of stacks, %" + (f" ({protocol})" if len(results.protocols) > 1 else "")
        table.title = shown(title)
        for row in rows:
            table.add_row(*map(shown, row))
        console.print(table)
    for note in notes(results):
        console.print(shown(f"- {note}"))
    files = f"tables and confusion matrices: {sweep_dir}/{{results.md,results.csv,confusion.png}}"
    console.print(shown(f"{files}\nreport: {page}"), soft_wrap=True)
    if command := command_of_best(results):
        text = f"predict with the run of the highest validation accuracy: {command}"
        console.print(shown(text), soft_wrap=True)
    return results


def shown(text: str) -> Text:
    """Return a text that the terminal shows as it is."""
    return Text(for_terminal(text))


def page_path(sweep_dir: Path) -> Path:
    """Return `outputs/reports/NAME/index.html` for `outputs/sweeps/NAME` or `outputs/runs/NAME`.

    For any other folder, the page is in the folder itself.
    """
    folder = sweep_dir.absolute()
    if folder.parent.name in FOLDERS:
        folder = folder.parent.parent / "reports" / folder.name
    return folder / "index.html"


def log_to_wandb(results: Results, sweep_dir: Path) -> None:
    """Log the table and the confusion matrices to W&B if a run of the sweep used it."""
    runs = [record.wandb for record in results.finished if record.wandb]
    if runs:
        from emotion.training.loggers import log_sweep  # loads W&B

        log_sweep(sweep_dir, runs[0], *summary_table(results), sweep_dir / "confusion.png")
