"""Report on a sweep, or on one run: `python -m emotion.reports SWEEP_DIR`."""

import argparse
import sys
from pathlib import Path

from emotion.errors import UserError


def main() -> None:
    """Write the report of the sweep that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.reports",
        description="Write the tables, confusion matrices and HTML page of a sweep or a run.",
    )
    parser.add_argument("sweep_dir", type=Path, help="folder of a sweep or run")
    sweep_dir = parser.parse_args().sweep_dir
    from emotion.reports.report import write_report  # after --help, since it takes a second

    try:
        write_report(sweep_dir)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
