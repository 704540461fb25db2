"""Answers of clips with foreign names: files and the terminal get them escaped."""

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from emotion import Answer, to_dataframe
from emotion.errors import UserError, is_machine_fault
from emotion.evaluation.reasons import Reason
from emotion.inference.answer import answers_table, json_lines, write_csv

FOREIGN = os.fsdecode(b"clips/\x1b[31m[bold]caf\xe9.mp4")  # the last byte is not UTF-8
ANSWERS = [
    Answer(FOREIGN, label="=Happy", probabilities={"=Happy": 1.0}, num_frames=90, fps=30.0),
    Answer("b.mp4", reasons=["[/]"], failed=True),
]


def test_json_has_the_name_exactly(tmp_path: Path):
    with json_lines(tmp_path / "a.jsonl") as write:
        for answer in ANSWERS:
            write(answer)
            last = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()[-1]
            assert json.loads(last)["clip"] == answer.clip


def test_the_table_in_csv_is_printable(tmp_path: Path):
    write_csv(tmp_path / "a.csv", ANSWERS, ["=Happy"])
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["clip"] == r"clips/\x1b[31m[bold]caf\udce9.mp4" and first["label"] == "'=Happy"
    assert second["clip"] == "b.mp4" and second["reason"] == "[/]"


def test_the_terminal_shows_names_as_they_are():
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(answers_table(ANSWERS, [answer.clip for answer in ANSWERS], ["=Happy"]))
    shown = console.file.getvalue()
    assert r"\x1b[31m[bold]caf\udce9.mp4" in shown and "[/]" in shown and "\x1b[31m" not in shown


def test_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="/dev/full") as caught:  # noqa: SIM117
        with json_lines(Path("/dev/full")) as write:
            write(ANSWERS[0])
    assert is_machine_fault(caught.value)


def test_a_table_of_answers_has_a_row_per_clip(monkeypatch: pytest.MonkeyPatch):
    sure = Answer("a.mp4", "Sad", {"Sad": 0.75, "Happy": 0.25}, runner_up="Happy", num_frames=90)
    sure = replace(sure, why=[Reason("mouth corners down", 1.0), Reason("brows up", 0.5)])
    table = to_dataframe([sure, Answer("b.mp4", reasons=["no face", "2 faces"], failed=True)])
    assert list(table["clip"]) == ["a.mp4", "b.mp4"] and list(table["failed"]) == [False, True]
    assert table["p_Sad"][0] == 0.75 and table[["p_Sad", "p_Happy"]].isna().loc[1].all()
    assert table["why"][0] == "mouth corners down, brows up"
    assert table["reason"][1] == "no face; 2 faces"
    assert len(to_dataframe([])) == 0 and "label" in to_dataframe([])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        to_dataframe([sure])
