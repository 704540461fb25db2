"""Tables: CSV files, written atomically, and Markdown.

A text that a spreadsheet would evaluate, such as the clip name `=1+1`, is written with `'` before.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

from emotion.errors import DamagedFile, first_problem
from emotion.escape import for_spreadsheet, from_spreadsheet
from emotion.files import read_whole, unfinished

Row = TypeVar("Row")


def write_table(path: Path, columns: list[str], rows: Iterable[dict]) -> None:
    """Write rows, mappings from column to value, as a CSV file, atomically."""
    with unfinished(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: for_spreadsheet(v) if isinstance(v, str) else v for k, v in row.items()}
            )


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Read a CSV file: for each row, a mapping from column to value.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is no table in UTF-8, has other columns than these, or rows that are longer
            or shorter than its header.
    """
    rows = []
    try:
        reader = csv.reader(io.StringIO(read_whole(path).decode(), newline=""), strict=True)
        header = next(reader, [])
        if len(set(header)) < len(header) or (columns is not None and header != columns):
            raise ValueError(f"its columns are {','.join(header)}, not {','.join(columns or ())}")
        for values in reader:
            if len(values) != len(header):
                raise ValueError(
                    f"line {reader.line_num}: it must have {len(header)} values, got {len(values)}"
                )
            rows.append(dict(zip(header, map(from_spreadsheet, values), strict=True)))
    except (ValueError, csv.Error) as error:  # of UTF-8 too
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{path}: {error}") from None
    return rows


def write_rows(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Write dataclass instances as a CSV file with a column for each field, atomically."""
    write_table(path, [field.name for field in fields(kind)], map(asdict, rows))


def read_rows(path: Path, kind: type[Row], remedy: str) -> list[Row]:
    """Read a CSV file of `write_rows`; the fields of `kind` are texts and numbers.

    If it is missing or damaged, a DamagedFile names file, line, column and the remedy.
    """
    from pydantic import TypeAdapter, ValidationError

    columns = [field.name for field in fields(kind)]
    adapter = TypeAdapter(kind)
    rows = []
    try:
        for number, row in enumerate(read_table(path, columns), start=2):
            where = f"{path}, line {number}"
            rows.append(adapter.validate_python(row))
    except FileNotFoundError:
        raise DamagedFile(f"{path} is missing: {remedy}") from None
    except ValidationError as error:
        raise DamagedFile(f"{where}: {first_problem(error)}: {remedy}") from None
    except DamagedFile as error:
        raise DamagedFile(f"{error}: {remedy}") from None
    return rows


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, with numbers aligned to the right."""
    lines = [headings, ["---:"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counted(number: int, noun: str) -> str:
    """Format a number of things: `1 clip`, `2 clips`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
