import csv
import logging

import pytest
from markdown_it import MarkdownIt

from emotion.escape import (
    LogFormatter,
    for_markdown,
    for_spreadsheet,
    for_terminal,
    from_spreadsheet,
)

HOSTILE = ("=1+1", "'quoted", "'=1", "''", "-2", "@sum", "\tx", "\ry", "", "plain", "a=b", "'")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_is_text_for_a_spreadsheet_and_is_read_as_it_was(text):
    cell = for_spreadsheet(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert from_spreadsheet(cell) == text


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x07", "\x9b31m", "a\rb", "bad \udcff byte", "\u202e"]
)
def test_no_control_character_reaches_the_terminal(text):
    shown = for_terminal(text)
    assert shown.isprintable()
    assert shown.encode()


def test_line_breaks_and_letters_reach_the_terminal():
    assert for_terminal("ä → 中\nb") == "ä → 中\nb"


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "a|b", "[x](http://y)", "**b**", "`c`"]
)
def test_markdown_shows_a_foreign_text_as_it_is(text):
    (paragraph,) = (t for t in MarkdownIt().parse(for_markdown(text)) if t.type == "inline")
    assert {child.type for child in paragraph.children} <= {"text", "text_special"}
    assert "".join(child.content for child in paragraph.children) == text


def test_the_formatter_escapes_the_arguments_too():
    record = logging.makeLogRecord({"msg": "clip %s", "args": ("\x1b[31m",)})
    assert LogFormatter("%(message)s").format(record) == "clip \\x1b[31m"


def test_csv_keeps_the_escaped_text(tmp_path):
    from emotion.tables import read_table, write_table

    texts = [text for text in HOSTILE if "\r" not in text]  # the csv module ends a row there
    rows = [{"name": text, "number": -1.5} for text in texts]
    write_table(tmp_path / "t.csv", ["name", "number"], rows)
    assert [row["name"] for row in read_table(tmp_path / "t.csv")] == texts
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert {row["number"] for row in csv.DictReader(file)} == {"-1.5"}
