"""Several processes train together: no stack counts twice, and none of them is left over."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from emotion import REPOSITORY
from emotion.training.ranks import MAIN_PID, main_process_announced
from tests.processes import wait_until_gone

SETTINGS = [
    "experiment=smoke", "interval=15", "logger=csv", "trainer=ddp", "trainer.accelerator=cpu",
    "model.backbone=mobilenetv3_small_050", "loader.image_px=64", "trainer.max_epochs=2",
]  # fmt: skip


def environment() -> dict[str, str]:
    ours = {"EMOTION_DATA": "demo", "DATASET_DOWNLOAD_ID": "", "OMP_NUM_THREADS": "1"}
    return {k: v for k, v in os.environ.items() if k != "LOCAL_RANK"} | ours


@pytest.fixture
def command(demo_cache, tmp_path):
    paths = [f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={tmp_path}"]
    return [sys.executable, str(REPOSITORY / "train.py"), *SETTINGS, *paths]


WATCHED = """
import time
from emotion.training.ranks import end_with_main_process
end_with_main_process()
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.timeout(60)
def test_a_process_whose_main_process_is_dead_ends(monkeypatch):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True)  # fmt: skip
    watched = subprocess.Popen(
        [sys.executable, "-c", WATCHED], env=environment() | {MAIN_PID: dead.stdout.strip()},
        cwd=REPOSITORY, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert watched.wait(30) == -signal.SIGKILL
    finally:
        watched.kill()


@pytest.mark.timeout(60)
def test_a_process_lives_while_its_main_process_does():
    watched = subprocess.Popen(
        [sys.executable, "-c", WATCHED], env=environment() | {MAIN_PID: str(os.getpid())},
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watched.stdout.readline() == "ready\n"
        time.sleep(1.5)  # three times as long as it takes to look
        assert watched.poll() is None
    finally:
        watched.kill()
        watched.wait()


def test_the_main_process_is_announced_only_to_what_starts_meanwhile(monkeypatch):
    monkeypatch.setenv(MAIN_PID, "7")  # of a sweep, which has started this process
    with main_process_announced():
        assert os.environ[MAIN_PID] == str(os.getpid())
    assert os.environ[MAIN_PID] == "7"
    monkeypatch.delenv(MAIN_PID)
    with pytest.raises(KeyboardInterrupt), main_process_announced():
        raise KeyboardInterrupt
    assert MAIN_PID not in os.environ


def test_a_cell_runs_as_a_command_in_its_folder(tmp_path):
    overrides = ["--cfg", "hydra", "experiment=smoke"]  # prints what it would run
    done = subprocess.run(
        [sys.executable, "-c", "from emotion.training.ranks import run_alone; import sys, pathlib\n"
         "run_alone(sys.argv[2:], pathlib.Path(sys.argv[1]))", tmp_path / "a = b", *overrides],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["hydra"]["run"]["dir"] == f"{tmp_path}/a = b"


def test_a_program_that_has_trained_can_start_commands(finished_run):
    """A variable left behind would end every command that a child of it starts."""
    assert MAIN_PID not in os.environ


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_train_and_validate_every_stack_once(command, tmp_path):
    folder = tmp_path / "run"
    done = subprocess.run(
        [*command, f"hydra.run.dir={folder}"], env=environment(), capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((folder / "metrics.json").read_text())
    assert record["status"] == "finished" and done.stdout.count("best epoch") == 1
    with open(folder / "curves" / "metrics.csv") as file:
        curves = [row for row in csv.DictReader(file) if row["val/accuracy"]]
    with open(folder / "predictions.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    assert Counter(row["clip"] for row in rows).most_common(1)[0][1] == 1 and len(rows) == 10
    # an accuracy over ten stacks, each counted once, is a multiple of a tenth
    for row in curves:
        assert float(row["val/accuracy"]) * 10 == pytest.approx(
            round(float(row["val/accuracy"]) * 10), abs=1e-5
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cells_of_a_sweep_train_in_two_processes_and_a_failure_stops_no_other(command, tmp_path):
    done = subprocess.run(
        [*command[:2], "-m", *command[2:], "sweep=ddp", "loader.batch_size=3,4", "logger=wandb"],
        env=environment() | {"WANDB_MODE": "offline"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    records = [
        json.loads(p.read_text()) for p in (tmp_path / "sweeps" / "ddp").glob("*/metrics.json")
    ]
    assert sorted(record["status"] for record in records) == ["failed", "finished"], done.stderr
    (place,) = (record["wandb"] for record in records if record["status"] == "finished")
    assert place["group"] == "ddp"
    runs = list((tmp_path / "sweeps" / "ddp" / "wandb").glob("offline-run-*"))
    assert [run.name.endswith(place["id"]) for run in sorted(runs)] == [False, True]
    assert done.returncode != 0
    assert "loader.batch_size" in done.stderr  # 3 is no multiple of two processes


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("delay_s", [0.0, 4.0])  # while the other imports, and while it trains
def test_a_killed_main_process_leaves_none_behind(command, tmp_path, delay_s):
    main = subprocess.Popen(
        [*command, "trainer.max_epochs=1000", f"hydra.run.dir={tmp_path}/run"],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    children = Path(f"/proc/{main.pid}/task/{main.pid}/children")
    ranks: list[int] = []
    try:
        while not ranks and main.poll() is None:
            time.sleep(0.05)
            ranks = [pid for pid in map(int, children.read_text().split()) if is_rank(pid)]
        assert ranks
        time.sleep(delay_s)
    finally:
        main.kill()
        main.wait()
    assert not wait_until_gone(ranks)


def is_rank(pid: int) -> bool:
    """Return whether a process is one that Lightning has started for `trainer=ddp`."""
    try:
        return b"train_ddp_process_" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
