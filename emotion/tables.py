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
    """Write a CSV file atomically.

    Args:
        path: the file.
        columns: their names, in order.
        rows: for each row, a mapping from column to value.
    """
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
    """Read a CSV file of `write_rows`.

    Args:
        path: the file.
        kind: the dataclass of a row; its fields are texts and numbers.
        remedy: what to do if the file is missing or damaged, for the error.

    Raises:
        UserError: the file is missing, or a column or a value is not as `kind` requires; names the
            file, the line and the column.
    """
    from pydantic import TypeAdapter, ValidationError

    columns = [field.name for field in fields(kind)]
    adapter = TypeAdapter(kind)
    line = 1
    rows = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if (header := next(reader, [])) != columns:
                raise UserError(
                    f"{path}: its columns must be {','.join(columns)}, got {','.join(header)}: "
                    f"{remedy}"
                )
            for values in reader:
                line = reader.line_num
                if len(values) != len(columns):
                    raise UserError(
                        f"{path}, line {line}: it must have {len(columns)} values, got "
                        f"{len(values)}: {remedy}"
                    )
                rows.append(adapter.validate_python(dict(zip(columns, values, strict=True))))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {remedy}") from None
    except ValidationError as error:
        raise UserError(f"{path}, line {line}: {first_problem(error)}: {remedy}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}, after line {line}: {error}: {remedy}") from None
    return rows


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, with numbers aligned to the right."""
    lines = [headings, ["---:"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
