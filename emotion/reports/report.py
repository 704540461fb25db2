"""results ──show──> a sweep's table, confusion grid and page, at its end or when asked for.

python -m emotion.reports.report SWEEP_DIR
"""

import argparse
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from emotion.errors import UserError
from emotion.files import unfinished
from emotion.reports.charts import confusion_figure
from emotion.reports.page import render_page
from emotion.reports.results import Results, read_runs
from emotion.tables import write_table
from emotion.training.loggers import log_sweep
from emotion.training.record import WandbRun

FOLDERS = ("sweeps", "runs")  # of an output folder; beside them lies `reports`


def write_report(sweep_dir: Path) -> Results:
    """Write a sweep's tables (Markdown, CSV), confusion grid (PNG) and page; print the main table.

    Args:
        sweep_dir: the sweep's folder; all files but the page go there.

    Returns:
        The results.

    Raises:
        UserError: there are no runs in it, or one without its predictions.
    """
    results = Results(read_runs(sweep_dir))
    (sweep_dir / "results.md").write_text(results.markdown(), encoding="utf-8")
    rows = results.long_rows()
    write_table(sweep_dir / "results.csv", list(rows[0]), rows)
    confusion_figure(results).savefig(sweep_dir / "confusion.png", dpi=110)
    page = page_path(sweep_dir)
    with unfinished(page) as temporary:
        temporary.write_text(render_page(results, sweep_dir), encoding="utf-8")
    console = Console()
    for table in terminal_tables(results):
        console.print(table)
    for note in results.notes():
        console.print(f"- {note}", highlight=False, markup=False)
    for line in (
        f"tables and confusion matrices: {sweep_dir}/{{results.md,results.csv,confusion.png}}",
        f"report: {page}",
    ):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return results


def page_path(sweep_dir: Path) -> Path:
    """Say where a sweep's page goes.

    Args:
        sweep_dir: the sweep's folder.

    Returns:
        `outputs/reports/NAME/index.html` for `outputs/sweeps/NAME` (or `runs/NAME`), else
        `index.html` in the folder itself.
    """
    folder = sweep_dir.absolute()
    if folder.parent.name in FOLDERS:
        folder = folder.parent.parent / "reports" / folder.name
    return folder / "index.html"


def terminal_tables(results: Results) -> list[Table]:
    """Give the tables of accuracy for the terminal."""
    tables = []
    for protocol in results.protocols:
        headings, rows = results.grid(protocol)
        several = len(results.protocols) > 1
        table = Table(title="accuracy, %" + (f" ({protocol})" if several else ""))
        for heading in headings:
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


class SweepReport(Callback):
    """Hydra callback: reports a sweep at its end; failed cells make its exit status 1."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write and print the report; tell W&B too, if the runs did."""
        sweep_dir = Path(config.hydra.sweep.dir)
        try:
            results = write_report(sweep_dir)
            told = [run["wandb"] for run in results.finished if run.get("wandb")]
            if told:
                log_sweep(
                    sweep_dir,
                    WandbRun(**told[0]),
                    *results.summary_table(),
                    sweep_dir / "confusion.png",
                )
        except Exception as error:  # Hydra would make a warning of it, and status 0
            if not isinstance(error, UserError):
                traceback.print_exc()
            sys.exit(
                f"error: no report on {sweep_dir}: {error}; its runs are kept, and "
                f"python -m emotion.reports.report {sweep_dir} makes one"
            )
        failed = len(results.runs) - len(results.finished)
        if failed:
            sys.exit(
                f"error: {failed} of {len(results.runs)} cells failed; the same command with "
                f"sweep={sweep_dir.name} runs them again"
            )


def main() -> None:
    """Report on the sweep named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m emotion.reports.report", description=__doc__)
    parser.add_argument("sweep_dir", type=Path, help="folder of a sweep or run")
    try:
        write_report(parser.parse_args().sweep_dir)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
