"""The journal answers and learns with a trained model."""

import subprocess
import sys
from pathlib import Path

import pytest

from emotion import REPOSITORY
from emotion.journal.journal import Journal
from tests.journal.waiting import all_entries, analyzed
from tests.reliability.world import data, write_clips


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_trained_model_answers_and_learns(tmp_path: Path):
    write_clips(tmp_path)
    run = tmp_path / "run"
    settings = ["logger=none", "model=face", "loss.mixup=0.0", "interval=15"]
    subprocess.run(
        [sys.executable, "train.py", *data(tmp_path), *settings, f"hydra.run.dir={run}"],
        cwd=REPOSITORY, check=True,
    )  # fmt: skip
    with Journal.open(tmp_path / "journal", str(run)) as journal:
        ann = journal.add_person("Ann")
        for path in sorted((tmp_path / "clips").glob("*_0002.mp4")):
            with path.open("rb") as file:
                journal.receive(ann.id, file, path.name)
        analyzed(journal)
        entries = all_entries(journal)
        assert [entry.state for entry in entries] == ["done"] * 5
        assert all(entry.label and entry.runner_up and entry.reasons for entry in entries)
        journal.correct(entries[0].id, "Sad")
        analyzed(journal)
        summary = journal.profile_summary(ann.id)
        assert (summary.model, summary.corrected, summary.history) == (str(run), {"Sad": 1}, 4)
