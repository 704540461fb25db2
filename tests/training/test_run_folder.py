"""The folder of a run: made for one run, and locked while it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emotion import REPOSITORY
from emotion.files import claimed
from emotion.training.cell import LOCK, remove_irregular
from emotion.training.run_folder import RunFolder, make_new

HOLDS = """
import pathlib, sys
from emotion.files import claimed
with claimed(pathlib.Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_of_one_second_get_two_folders(compose, tmp_path: Path):
    folders = []
    for _ in range(2):
        cfg = compose("train", [f"paths.output={tmp_path}"], return_hydra_config=True)
        callback = RunFolder()
        callback.on_run_start(cfg)
        folders.append(Path(cfg.hydra.run.dir))
        callback.on_run_end(cfg)
    assert len(set(folders)) == 2 and all(folder.is_dir() for folder in folders)
    assert make_new(tmp_path / "a").name == "a"
    assert [make_new(tmp_path / "a").name for _ in range(2)] == ["a_2", "a_3"]


def test_a_folder_in_which_another_process_runs_is_refused(compose, tmp_path: Path):
    folder = tmp_path / "run"
    cfg = compose("train", [f"hydra.run.dir={folder}"], return_hydra_config=True)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder / LOCK)], cwd=REPOSITORY,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SystemExit, match=f"^error: .*{folder}.*{other.pid}"):
            RunFolder().on_run_start(cfg)
    finally:
        other.communicate()
    RunFolder().on_run_start(cfg)


def test_the_job_of_a_sweep_shares_its_folder_with_its_command(compose, tmp_path, monkeypatch):
    cfg = compose("train", [f"hydra.run.dir={tmp_path}"], return_hydra_config=True)
    monkeypatch.setattr(os, "getppid", os.getpid)
    with claimed(tmp_path / LOCK, "the cell"):
        RunFolder().on_run_start(cfg)


@pytest.mark.timeout(60)
def test_links_pipes_and_empty_folders_give_way_to_a_runs_files(tmp_path: Path):
    run, elsewhere = tmp_path / "run", tmp_path / "notes.txt"
    (run / ".hydra").mkdir(parents=True)
    elsewhere.write_text("mine")
    (run / "train.log").symlink_to(elsewhere)
    (run / ".cell.lock").mkdir()
    os.mkfifo(run / ".hydra" / "config.yaml")
    (run / ".hydra" / "overrides.yaml").write_text("[]")
    remove_irregular(run)
    assert [path.relative_to(run).as_posix() for path in run.rglob("*")] == [
        ".hydra", ".hydra/overrides.yaml",
    ]  # fmt: skip
    assert elsewhere.read_text() == "mine"
