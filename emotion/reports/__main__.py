"""Report on a sweep, or on one run: `python -m emotion.reports SWEEP_DIR`."""

from emotion.stopping import stop_on_signals

if __name__ == "__main__":
    stop_on_signals("stopped; the same command writes the report again")

import argparse
from pathlib import Path

from emotion.cli import exit_on_error


def main() -> None:
    """Write the report of the sweep that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.reports",
        description="Write the tables, confusion matrices and HTML page of a sweep or a run.",
    )
    parser.add_argument("sweep_dir", type=Path, help="folder of a sweep or run")
    sweep_dir = parser.parse_args().sweep_dir
    from emotion.reports.report import write_report  # after --help, since it takes a second

    with exit_on_error():
        write_report(sweep_dir)


if __name__ == "__main__":
    main()
