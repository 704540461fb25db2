"""Tables: CSV files, written whole or not at all, and Markdown."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from emotion.files import unfinished


def write_table(path: Path, columns: list[str], rows: Iterable[dict]) -> None:
    """Write a CSV file, whole or not at all.

    Args:
        path: the file.
        columns: their names, in order.
        rows: a mapping from column to value each.
    """
    with unfinished(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file: a mapping from column to value for every row."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, numbers to the right."""
    lines = [headings, ["---:"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
