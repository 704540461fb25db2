"""Tables: CSV files, written atomically, and Markdown."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

from emotion.errors import UserError, first_problem
from emotion.files import unfinished

Row = TypeVar("Row")


def write_table(path: Path, columns: list[str], rows: Iterable[dict]) -> None:
    """Write rows, mappings from column to value, as a CSV file, atomically."""
    with unfinished(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file: for each row, a mapping from column to value."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Write dataclass instances as a CSV file with a column for each field, atomically."""
    write_table(path, [field.name for field in fields(kind)], map(asdict, rows))


def read_rows(path: Path, kind: type[Row], remedy: str) -> list[Row]:
    """Read a CSV file of `write_rows`; the fields of `kind` are texts and numbers.

    If the file is missing or damaged, a UserError names file, line, column and the remedy.
    """
    from pydantic import TypeAdapter, ValidationError

    columns = [field.name for field in fields(kind)]
    adapter = TypeAdapter(kind)
    line, rows = 1, []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if (header := next(reader, [])) != columns:
                raise ValueError(f"its columns must be {','.join(columns)}, got {','.join(header)}")
            for values in reader:
                line = reader.line_num
                if len(values) != len(columns):
                    raise ValueError(f"it must have {len(columns)} values, got {len(values)}")
                rows.append(adapter.validate_python(dict(zip(columns, values, strict=True))))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {remedy}") from None
    except (ValueError, csv.Error) as error:  # of pydantic and UTF-8 too
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{path}, line {line}: {problem}: {remedy}") from None
    return rows


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, with numbers aligned to the right."""
    lines = [headings, ["---:"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
