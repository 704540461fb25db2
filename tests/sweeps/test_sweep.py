"""Sweeps that stop, fail and go on, with real processes on cells of smoke size."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from emotion.cli import REPOSITORY
from emotion.progress import duration
from emotion.stacks.cache import Cache
from emotion.sweeps.sweep import Cell
from emotion.training.record import write_record
from train import train

pytestmark = pytest.mark.slow

SEEDS = "seed=0,1,2"
KEEPS_LAST = (  # as callbacks=default does, and experiment=smoke does not
    "callbacks.last={_target_:emotion.training.checkpoint.RunCheckpoint,"
    "dirpath:${hydra:runtime.output_dir},filename:last}"
)


@pytest.fixture
def sweep(demo_cache: Cache, tmp_path: Path):
    """Give a function that starts train.py on the small demo, in a process group of its own."""

    def start(*arguments: str, name: str = "s", logger: str = "csv") -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "train.py", "-m", "interval=15", "experiment=smoke",
             f"logger={logger}", f"sweep={name}", f"paths.output={tmp_path}",
             f"paths.cache={demo_cache.directory.parents[1]}", *arguments],
            cwd=REPOSITORY, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for a sweep; give its exit status and all that it said."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output + errors


def cells_of(folder: Path) -> dict[int, Path]:
    """Give the folder of each seed's cell."""
    return {
        json.loads(path.read_text())["seed"]: path.parent for path in folder.glob("*/metrics.json")
    }


def table_of(folder: Path) -> str:
    return (folder / "results.md").read_text()


def dies(how: str) -> str:
    return f"+callbacks.dies={{_target_:tests.deadly.Dies,seed:${{seed}},of_seed:1,how:{how}}}"


def test_killed_sweep_goes_on_and_ends_as_an_undisturbed_one(sweep, tmp_path: Path):
    gate = tmp_path / "gate"
    wait = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:${{seed}},of_seed:1,file:{gate}}}"
    status, said = ended(sweep(SEEDS, wait, name="undisturbed"))
    assert status == 0, said
    gate.touch()
    killed = sweep(SEEDS, wait)
    folder = tmp_path / "sweeps" / "s"
    end_s = time.monotonic() + 120
    while len(list(folder.glob("*_seed1_*/.hydra/config.yaml"))) == 0 or len(cells_of(folder)) < 1:
        assert time.monotonic() < end_s and killed.poll() is None, ended(killed)
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (done,) = cells_of(folder).values()
    written_ns = (done / "metrics.json").stat().st_mtime_ns
    gate.unlink()
    status, said = ended(sweep(SEEDS, wait))
    assert status == 0, said
    (half,) = (path.name for path in folder.glob("*_seed1_*"))
    assert f"finished, not run again: {done.name}\n" in said
    assert f"run again, cut off: {half}\n" in said
    assert (done / "metrics.json").stat().st_mtime_ns == written_ns
    undisturbed = tmp_path / "sweeps" / "undisturbed"
    assert table_of(folder) == table_of(undisturbed)
    assert (folder / "results.csv").read_text() == (undisturbed / "results.csv").read_text()
    assert not list(folder.glob("*/best-v1.ckpt"))  # nothing is left of the half run
    status, said = ended(sweep(SEEDS, wait))
    assert status == 0 and "3 cells, 3 of them finished" in said and "epoch   1 of" not in said


def wandb_ids(cell: Path) -> list[str]:
    """Give the id of the W&B run that each part of a cell's log belongs to, in order."""
    return [path.name.rpartition("-")[2] for path in sorted(cell.glob("wandb/offline-run-*"))]


def test_cell_cut_off_in_a_later_epoch_goes_on_if_asked_and_else_begins_anew(sweep, tmp_path: Path):
    def curves(cell: Path) -> str:
        return (cell / "curves" / "metrics.csv").read_text()

    settings = ["seed=0,1", "trainer.max_epochs=3", KEEPS_LAST]
    status, said = ended(sweep(*settings, name="undisturbed"))
    assert status == 0, said
    undisturbed = cells_of(tmp_path / "sweeps" / "undisturbed")

    killed = sweep(*settings, logger="default")
    second_epochs = (line for line in killed.stdout if line.startswith("epoch   2 of 3"))
    assert next(second_epochs) and next(second_epochs)  # of the first cell, and of the second
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    folder, anew = tmp_path / "sweeps" / "s", tmp_path / "sweeps" / "anew"
    (done,) = cells_of(folder).values()
    written_ns = (done / "metrics.json").stat().st_mtime_ns
    (half,) = (path.name for path in folder.glob("*_seed1_*"))
    (id_at_first,) = wandb_ids(folder / half)
    shutil.copytree(folder, anew, symlinks=True)

    status, said = ended(sweep(*settings, "ckpt_path=last", logger="default"))
    assert status == 0, said
    assert f"finished, not run again: {done.name}\n" in said
    assert f"cut off: {half}\n" in said and said.count("goes on after epoch") == 1
    assert "epoch   1 of 3" not in said and "epoch   3 of 3" in said
    assert (done / "metrics.json").stat().st_mtime_ns == written_ns
    assert wandb_ids(folder / half) == [id_at_first] * 2
    assert wandb_ids(done) != [id_at_first]

    status, said = ended(sweep(*settings, name="anew", logger="default"))
    assert status == 0, said
    assert "goes on after epoch" not in said and said.count("epoch   1 of 3") == 1
    (id_anew,) = wandb_ids(anew / half)
    assert id_anew != id_at_first

    for name in ("s", "anew"):
        cells = cells_of(tmp_path / "sweeps" / name)
        assert {seed: curves(cell) for seed, cell in cells.items()} == {
            seed: curves(cell) for seed, cell in undisturbed.items()
        }
        assert table_of(tmp_path / "sweeps" / name) == table_of(undisturbed[0].parent)


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_failing_cell_is_told_and_stops_no_other(sweep, tmp_path: Path, launcher: str):
    status, said = ended(sweep(SEEDS, dies("raise"), f"hydra/launcher={launcher}"))
    folder = tmp_path / "sweeps" / "s"
    assert status == 1 and "1 of 3 cells failed; the same command with sweep=s" in said
    bad = cells_of(folder)[1]
    told = said.index(f"cell {bad.name} failed: a broken cell")
    if launcher == "basic":
        assert told < said.rindex("best epoch")  # at once, not at the end
    assert "3 of 3 cells, 1 failed" in said and "a broken cell" in (bad / "error.txt").read_text()
    assert "1 of 3 failed" in table_of(folder)
    records = {seed: json.loads((p / "metrics.json").read_text()) for seed, p in
               cells_of(folder).items()}  # fmt: skip
    assert [records[seed]["status"] for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    if launcher == "basic":
        status, said = ended(sweep(SEEDS, dies("raise")))
        assert status == 1 and f"run again, failed before: {bad.name}\n" in said
        assert said.count("best epoch 1") == 0


def test_cell_that_dies_in_a_worker_costs_itself_alone(sweep, tmp_path: Path):
    how = "SIGSEGV"
    folder = tmp_path / "sweeps" / "s"
    for _ in ("first", "again, with the record of its failure there"):
        status, said = ended(sweep(SEEDS, dies(how), "hydra/launcher=joblib"))
        assert status == 1 and "1 of 3 cells failed" in said
        records = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/metrics.json")}
        assert len(records) == 3
        (bad,) = (record for record in records.values() if record["status"] == "failed")
        assert bad["seed"] == 1 and how in bad["error"]
        assert "1 of 3 failed" in table_of(folder)


def test_changed_stacks_broken_records_and_other_configs_run_again(sweep, tmp_path: Path):
    assert ended(sweep("seed=0,1"))[0] == 0
    folder = tmp_path / "sweeps" / "s"
    cells = cells_of(folder)
    old = json.loads((cells[0] / "metrics.json").read_text())
    (cells[0] / "metrics.json").write_text(json.dumps(old | {"manifest_sha256": "0" * 64}))
    (cells[1] / "metrics.json").write_text('{"status": "fin')  # as a full disk may leave it
    # seeds in another order, another epoch count in the third cell, processes and places changed
    status, said = ended(sweep("seed=1,0", "loader.num_workers=1", "logger=none"))
    assert status == 0, said
    assert f"run again, made from other stacks: {cells[0].name}\n" in said
    assert f"run again, cut off: {cells[1].name}\n" in said
    assert json.loads((cells[0] / "metrics.json").read_text())["accuracy"] == old["accuracy"]
    status, said = ended(sweep("seed=0", "trainer.max_epochs=2"))
    assert status == 0 and "1 cells, 0 of them finished" in said
    assert "failed" not in table_of(folder) and "±" not in table_of(folder)
    same = "hydra.sweep.subdir=" + cells[0].name
    status, said = ended(sweep("seed=0", "trainer.max_epochs=2", same))
    assert status == 1 and "holds a run with another config: name another sweep" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): a range is something to"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: it is at"),
        (["hparams=optuna", "hydra.sweeper.n_trials=many"], "hydra.sweeper.n_trials=many: it is a"),
        (["hydra/launcher=moon"], "hydra/launcher=moon: no such option"),
        (["hydra.sweep.subdir=x", "seed=0,1"], "gives two cells the folder x: leave it out"),
        (["seed=0,high"], "seed takes a whole number such as 0, not the text high"),
    ],
)
def test_mistake_ends_in_one_line_before_anything_runs(
    monkeypatch, tmp_path: Path, demo_cache: Cache, arguments: list[str], message: str
):
    paths = [f"paths.output={tmp_path}", f"paths.cache={demo_cache.directory.parents[1]}"]
    monkeypatch.setattr(
        "sys.argv", ["train.py", "-m", "experiment=smoke", "logger=none", *paths, *arguments]
    )
    with pytest.raises(SystemExit) as caught:
        train()
    assert str(caught.value.code).startswith("error: ") and message in str(caught.value.code)
    assert "\n" not in str(caught.value.code) and not list(tmp_path.rglob(".hydra"))


def test_ctrl_c_keeps_what_is_done(sweep, tmp_path: Path):
    gate = tmp_path / "gate"
    gate.touch()
    wait = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:${{seed}},of_seed:1,file:{gate}}}"
    stopped = sweep(SEEDS, wait)
    end_s = time.monotonic() + 120
    while not list((tmp_path / "sweeps" / "s").glob("*_seed1_*/curves")):
        assert time.monotonic() < end_s and stopped.poll() is None
        time.sleep(0.05)
    os.killpg(stopped.pid, signal.SIGINT)
    status, said = ended(stopped)
    assert status == 128 + signal.SIGINT and "what is done is kept" in said
    assert "Traceback" not in said and list(cells_of(tmp_path / "sweeps" / "s")) == [0]


def test_two_sweeps_at_once_in_one_folder_are_refused(sweep, tmp_path: Path):
    gate = tmp_path / "gate"
    gate.touch()
    wait = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:${{seed}},of_seed:0,file:{gate}}}"
    first = sweep("seed=0,1", wait)
    end_s = time.monotonic() + 120
    while not list((tmp_path / "sweeps" / "s").glob("*/.cell.lock")):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    status, said = ended(sweep("seed=0,1", wait))
    assert status == 1 and f"is in use by process {first.pid} on " in said
    gate.unlink()
    assert ended(first)[0] == 0


def test_joblib_shares_out_the_cores_and_runs_side_by_side(sweep, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "loader.num_workers=1"]
    status, said = ended(sweep("interval=10,15", *joblib))
    assert status == 0, said
    records = [
        json.loads(p.read_text()) for p in (tmp_path / "sweeps" / "s").glob("*/metrics.json")
    ]
    assert sorted(record["interval"] for record in records) == [10, 15]
    threads = [record["machine"]["torch_threads"] for record in records]
    assert threads == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2
    assert said.index("6 images") < said.index("best epoch") > said.index("9 images")


def test_cell_is_over_with_its_new_record_not_when_the_old_one_goes(tmp_path: Path):
    cell, record = Cell((), OmegaConf.create(), tmp_path), tmp_path / "metrics.json"
    write_record(tmp_path, {"status": "failed"})
    os.utime(record, ns=(0, 10**9))
    before = cell.marks
    assert not cell.is_over(before)
    record.unlink()
    assert not cell.is_over(before)
    write_record(tmp_path, {"status": "finished"})
    assert cell.is_over(before)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (40, "40 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (600, "10 min"),
        (5400, "1.5 h"),
        (90000, "25 h"),
    ],
)
def test_durations_have_one_unit(seconds: float, text: str):
    assert duration(seconds) == text
