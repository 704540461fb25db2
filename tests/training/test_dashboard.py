"""make dashboard: the runs of a sweep and their curves on the screen of a terminal."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.util import get_core_path

from emotion import REPOSITORY
from emotion.training.record import read_record

pytest.importorskip("pty", reason="this system has no pseudo-terminals")
from tests.terminal import Terminal

DASHBOARD = (
    "make",
    "-f",
    REPOSITORY / "Makefile",
    "-o",
    "install",
    f"VENV={sys.prefix}",
    "dashboard",
)
BRAILLE = re.compile("[\u2801-\u28ff]")  # dots of curves


@pytest.fixture(scope="module")
def outputs(demo_cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder where a sweep of two seeds has written `outputs`."""
    folder = tmp_path_factory.mktemp("dashboard")
    subprocess.run(
        [sys.executable, REPOSITORY / "train.py", "-m", "experiment=smoke", "interval=15",
         "model.backbone=mobilenetv3_small_050", "seed=0,1", "trainer.max_epochs=4",
         "logger=default", "sweep=two", f"paths.output={folder}/outputs",
         f"paths.cache={demo_cache.directory.parents[1]}"],
        check=True, capture_output=True, timeout=300,
        env=os.environ | {"WANDB_MODE": "offline", "EMOTION_DATA": "demo"},
    )  # fmt: skip
    return folder / "outputs"


@pytest.fixture
def terminal(outputs: Path, tmp_path: Path) -> Iterator[Terminal]:
    """Open the dashboard of the last sweep."""
    try:
        get_core_path()
    except Exception as error:  # W&B's own, of no public module
        pytest.skip(f"wandb leet cannot run here: {error}")
    environment = os.environ | {"WANDB_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)}
    terminal = Terminal(DASHBOARD, environment, columns=220, lines=50, cwd=outputs.parent)
    yield terminal
    terminal.close()


def chart(terminal: Terminal, title: str) -> list[tuple[str, list[str]]]:
    """Return the lines within a chart's frame: the text, and the color of each character."""
    shown = terminal.screen.display
    top = next(number for number, line in enumerate(shown) if f"│{title} " in line)
    left = shown[top].index(f"│{title} ") + 1
    right = shown[top].index("│", left)
    ends = (n for n, line in enumerate(shown) if n > top and line[left - 1] == "╰")
    bottom = next(ends, top)  # not drawn yet
    return [
        (shown[n][left:right], [terminal.screen.buffer[n][x].fg for x in range(left, right)])
        for n in range(top + 1, bottom)
    ]


def colors_of_curves(terminal: Terminal, title: str) -> set[str]:
    """Return the colors of a chart's dots; none if the chart is not shown."""
    if f"│{title} " not in terminal.text:
        return set()
    return {
        color
        for text, colors in chart(terminal, title)
        for character, color in zip(text, colors, strict=True)
        if BRAILLE.match(character)
    }


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_both_runs_of_a_sweep_and_their_losses_are_on_the_screen(outputs, terminal):
    folders = [path.parent for path in (outputs / "sweeps" / "two").glob("*/metrics.json")]
    ids = {folder.name: read_record(folder).wandb.id for folder in folders}
    assert len(ids) == 2
    terminal.wait_for(lambda text: all(run_id in text for run_id in ids.values()))
    terminal.wait_for(lambda _: len(colors_of_curves(terminal, "val/loss")) == 1)  # the last run
    terminal.type("s")  # to the next one
    terminal.type(" ")
    terminal.wait_for(lambda _: len(colors_of_curves(terminal, "val/loss")) == 2)
    assert len(colors_of_curves(terminal, "train/loss")) == 2
    assert "Metrics [1-9 of 9]" in terminal.text
    # the axis of the chart has the losses of curves/metrics.csv
    losses = []
    for folder in folders:
        with open(folder / "curves" / "metrics.csv") as file:
            losses += [
                float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]
            ]
    marks = [
        float(mark[1])
        for text, _ in chart(terminal, "train/loss")
        if (mark := re.match(r" *(\d+\.?\d*) *[│└]", text))
    ]
    margin = max(losses) - min(losses)
    assert len(marks) > 1
    assert min(losses) - margin < min(marks) < max(marks) < max(losses) + margin
    terminal.type("q")
    while terminal.read(0.1):
        pass
    assert terminal.process.wait(10) == 0


def test_a_folder_without_runs_is_refused_in_one_line(tmp_path):
    for arguments in ([], [f"RUNS={tmp_path}"]):
        done = subprocess.run(
            [*DASHBOARD, *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        error, _, after = done.stderr.partition("\n")
        assert error.startswith("error: ") and "RUNS=DIR" in error
        assert done.returncode != 0 and "Traceback" not in after
