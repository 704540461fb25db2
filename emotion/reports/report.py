"""Write the files of a report: tables, the picture of all confusion matrices, and the page."""

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from emotion.files import unfinished
from emotion.reports.charts import confusion_figure
from emotion.reports.page import render_page
from emotion.reports.results import Results, read_runs
from emotion.reports.tables import COLUMNS, csv_rows, grid, markdown, notes, summary_table
from emotion.tables import write_table

FOLDERS = ("sweeps", "runs")  # of an output folder; `reports` is beside them


def write_report(sweep_dir: Path) -> Results:
    """Write the report of the folder of a sweep or run, and print its main table.

    `results.md`, `results.csv` and `confusion.png` go into that folder; the page to `page_path`.
    """
    results = Results(*read_runs(sweep_dir))
    (sweep_dir / "results.md").write_text(markdown(results), encoding="utf-8")
    write_table(sweep_dir / "results.csv", COLUMNS, csv_rows(results))
    confusion_figure(results).savefig(sweep_dir / "confusion.png", dpi=110, bbox_inches="tight")
    page = page_path(sweep_dir)
    with unfinished(page) as temporary:
        temporary.write_text(render_page(results, sweep_dir), encoding="utf-8")
    console = Console()
    for protocol in results.protocols:
        headings, rows = grid(results, protocol)
        table = Table(*(Column(heading, justify="right") for heading in headings))
        table.title = "accuracy, %" + (f" ({protocol})" if len(results.protocols) > 1 else "")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for note in notes(results):
        console.print(f"- {note}", highlight=False, markup=False)
    files = f"tables and confusion matrices: {sweep_dir}/{{results.md,results.csv,confusion.png}}"
    console.print(f"{files}\nreport: {page}", soft_wrap=True, highlight=False, markup=False)
    return results


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
