"""Sweeps that fail, stop and continue: quickly with cheap cells, slowly with real processes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emotion import REPOSITORY
from emotion.errors import UserError
from tests.sweeps.conftest import wait_for

NO_REPORT = "~hydra.callbacks.report"  # cheap cells have no predictions to report on


def cell_folders(sweep_dir: Path) -> dict[int, Path]:
    """Return the folder of each seed's cell that has a record."""
    from emotion.training.record import read_record

    folders = [path.parent for path in sweep_dir.glob("*/metrics.json")]
    return {read_record(folder).seed: folder for folder in folders}


def status_of(folder: Path) -> str:
    from emotion.training.record import read_record

    return read_record(folder).status


def test_failed_cell_stops_no_other_and_the_same_command_runs_it_again(cells, sweep, tmp_path):
    arguments = ("seed=0,1,2", NO_REPORT)
    cells.fails[1] = RuntimeError("broken")
    assert sweep(*arguments).startswith("error: 1 of 3 cells")
    folders = cell_folders(tmp_path / "sweeps" / "s")
    assert [status_of(folders[seed]) for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    assert cells.ran == [0, 1, 2] and "broken" in (folders[1] / "error.txt").read_text()
    written_ns = (folders[0] / "metrics.json").stat().st_mtime_ns

    cells.fails.clear()
    assert sweep("seed=2,0,1", NO_REPORT) == ""  # in another order
    assert cells.ran == [0, 1, 2, 1] and not (folders[1] / "error.txt").exists()
    assert status_of(folders[1]) == "finished"
    assert (folders[0] / "metrics.json").stat().st_mtime_ns == written_ns
    assert sweep(*arguments) == "" and len(cells.ran) == 4


def test_cells_are_planned_and_repeated_ones_run_once(cells, sweep, tmp_path):
    from emotion.sweeps.plan import read_plan

    interpolated = "+callbacks.w={_target_:tests.deadly.Waits,seed:${seed},of_seed:1,file:gate}"
    assert sweep("interval=10,15", "seed=0,0", interpolated, NO_REPORT) == ""
    plan = read_plan(tmp_path / "sweeps" / "s").cells
    assert [cell.interval for cell in plan] == [10, 15] and len(cells.ran) == 2
    assert all(cell.to_run and (tmp_path / "sweeps/s" / cell.folder).is_dir() for cell in plan)
    assert plan[0].work == 64 * 64  # pixels, one epoch


def test_damaged_plan_is_named(tmp_path):
    from emotion.sweeps.plan import read_plan

    (tmp_path / "sweep.json").write_text('[{"cell": ')
    with pytest.raises(UserError, match=r"sweep\.json"):
        read_plan(tmp_path)


@pytest.mark.parametrize("folder", ["../..", "/etc", "a/../../b"])
def test_planned_folder_is_inside_the_sweep(folder: str):
    from emotion.sweeps.plan import PlannedCell

    with pytest.raises(ValueError, match="folder"):
        PlannedCell.model_validate({"folder": folder})


def test_progress_counts_cells_and_failures(cells, sweep, capfd):
    cells.fails[1] = RuntimeError("broken")
    sweep("seed=0,1,2", NO_REPORT)
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("over: ")]
    counts = ["1 of 3 cells", "2 of 3 cells, 1 failed", "3 of 3 cells, 1 failed"]
    assert all(count in line for count, line in zip(counts, lines, strict=True))


def test_single_run_prints_no_progress(compose, capfd):
    from emotion.sweeps.callback import SweepProgress

    SweepProgress().on_job_end(compose("train", return_hydra_config=True))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["optimizer.lr=interval(0,1)"], "hparams=optuna"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs"),
        (["hydra/launcher=moon"], "hydra/launcher=moon"),
        (["hydra.sweep.subdir=x", "seed=0,1"], "hydra.sweep.subdir=x"),
        (["seed=0,high"], "seed"),
        (["model=effv2s,timm", "model.backbone=resnet10t"], "model=timm model.backbone=A,B"),
        (["data=folders", "data.root=/nowhere"], "/nowhere"),
    ],
)
def test_mistake_ends_in_one_line_before_anything_runs(cells, sweep, tmp_path, arguments, key):
    message = sweep(NO_REPORT, *arguments)
    assert message.startswith("error: ") and key in message and "\n" not in message
    assert not cells.ran and not list(tmp_path.rglob(".hydra"))


def test_folder_with_files_of_the_user_is_refused_and_left_alone(cells, sweep, tmp_path):
    folder = tmp_path / "sweeps" / "s" / "mydir"
    thesis, notes = folder / "thesis.tex", folder / "curves" / "notes.txt"
    notes.parent.mkdir(parents=True)
    (folder / "best.ckpt").write_text("weights")
    for path in (notes, thesis):
        path.write_text("three years of work")
        message = sweep("seed=0", "hydra.sweep.subdir=mydir", NO_REPORT)
        assert message.startswith("error: ") and str(folder) in message
    assert {p.name for p in folder.rglob("*")} == {"thesis.tex", "curves", "notes.txt", "best.ckpt"}
    assert not cells.ran and thesis.read_text() == notes.read_text() == "three years of work"


def test_clearing_removes_files_of_runs_alone(tmp_path):
    from emotion.training.cell import clear

    (tmp_path / "wandb" / "run").mkdir(parents=True)
    ours = ("best.ckpt", ".best.machine-12.ckpt", "metrics.json", "wandb/run/log.txt")
    for name in ("train.log", *ours, "model.onnx", "mine.onnx"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"mine\.onnx"):
        clear(tmp_path)
    assert all((tmp_path / name).exists() for name in (*ours, "model.onnx"))
    (tmp_path / "mine.onnx").unlink()
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


def test_cell_of_another_config_is_not_overwritten(cells, sweep, tmp_path):
    assert sweep("seed=0", "hydra.sweep.subdir=mine", NO_REPORT) == ""
    record = (tmp_path / "sweeps/s/mine/metrics.json").read_text()
    message = sweep("seed=1", "hydra.sweep.subdir=mine", NO_REPORT)
    assert message.startswith("error: ") and "mine" in message and cells.ran == [0]
    assert (tmp_path / "sweeps/s/mine/metrics.json").read_text() == record


def test_signal_in_a_cell_stops_the_sweep_and_is_no_failure(cells, sweep, tmp_path):
    cells.fails[1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sweep("seed=0,1,2", NO_REPORT)
    assert cells.ran == [0, 1] and list(cell_folders(tmp_path / "sweeps" / "s")) == [0]


def test_full_disk_stops_the_sweep_and_is_no_failure_of_its_cell(cells, sweep, tmp_path):
    cells.fails[1] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "best.ckpt")
    message = sweep("seed=0,1,2", NO_REPORT)
    assert message.startswith("error: ") and "best.ckpt" in message
    assert cells.ran == [0, 1] and list(cell_folders(tmp_path / "sweeps" / "s")) == [0]
    cells.fails.clear()
    assert sweep("seed=0,1,2", NO_REPORT) == "" and cells.ran == [0, 1, 1, 2]


def test_damaged_cell_runs_again_and_a_damaged_plan_is_made_again(cells, sweep, tmp_path):
    assert sweep("seed=0,1", NO_REPORT) == ""
    folder = tmp_path / "sweeps" / "s"
    cell = cell_folders(folder)[1]
    (cell / "metrics.json").write_text("{}")
    (cell / "train.log").unlink()
    os.mkfifo(cell / "train.log")
    (folder / "sweep.json").write_text("[]")
    assert sweep("seed=0,1", NO_REPORT) == ""
    assert cells.ran == [0, 1, 1] and sorted(cell_folders(folder)) == [0, 1]


def test_job_waits_for_a_cell_that_another_process_runs(cells, sweep, tmp_path):
    locked, released = tmp_path / "locked", tmp_path / "released"
    code = f"""if True:
        import pathlib, time
        from emotion.files import claimed
        with claimed(pathlib.Path({str(tmp_path / "sweeps/s/mine/.cell.lock")!r}), "cell"):
            pathlib.Path({str(locked)!r}).touch()
            time.sleep(3)
            pathlib.Path({str(released)!r}).touch()"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) as other:
        wait_for(tmp_path, "locked", other)
        assert sweep("seed=0", "hydra.sweep.subdir=mine", NO_REPORT) == ""
        assert released.exists() and cells.ran == [0]


def test_estimate_weighs_cells_by_work_and_network(caplog):
    from emotion.sweeps.estimate import SweepEstimate
    from emotion.sweeps.plan import PlannedCell
    from emotion.training.throughput import relative_cost

    def cell(backbone: str, work: float) -> PlannedCell:
        return PlannedCell(
            cell="0", model="m", backbone=backbone, model_title="M", interval=5, seed=0, data="d",
            labels=("a", "b"), split={"name": "data"}, folder="f", to_run=True, work=work,
        )  # fmt: skip

    small, large = "mobilenetv3_small_050", "mobilenetv3_large_100"
    assert 2 < relative_cost(large) / relative_cost(small) < 9
    estimate = SweepEstimate([cell(small, 1.0), cell(small, 3.0)], 2, 1 / 12)
    with caplog.at_level("INFO"):
        estimate.announce(3600.0)  # 1 h and 3 h, two at a time
        assert "about 2.0 h for 2 cells" not in caplog.text  # not above two hours
        estimate.announce(10 * 3600.0)
    assert "about 20 h for 2 cells" in caplog.text
    assert "experiment=small makes it about 1.7 h" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_stopped_and_killed_sweep_continues(start_sweep, tmp_path, launcher):
    sweep_dir, gate = tmp_path / "sweeps" / "s", tmp_path / "gate"
    waits = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:${{seed}},of_seed:1,file:{gate}}}"
    arguments = ("seed=0,1", f"hydra/launcher={launcher}", waits, "logger=csv")
    gate.touch()
    for number, status in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -9)):
        process = start_sweep(*arguments)
        wait_for(sweep_dir, "*_seed0_*/metrics.json", process)
        wait_for(tmp_path, "gate.reached", process)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=300)
        (tmp_path / "gate.reached").unlink()
        assert process.returncode == status and "Traceback" not in output, output
        assert list(cell_folders(sweep_dir)) == [0]
    written_ns = (cell_folders(sweep_dir)[0] / "metrics.json").stat().st_mtime_ns
    gate.unlink()
    process = start_sweep(*arguments)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    folders = cell_folders(sweep_dir)
    assert [status_of(folders[seed]) for seed in (0, 1)] == ["finished", "finished"]
    assert (folders[0] / "metrics.json").stat().st_mtime_ns == written_ns
    assert (sweep_dir / "results.md").is_file() and not list(sweep_dir.glob("*/best-v1.ckpt"))


@pytest.mark.slow
def test_joblib_runs_cells_at_the_same_time_past_one_that_fails(start_sweep, tmp_path, monkeypatch):
    from emotion.training.record import read_record

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    dies = "+callbacks.d={_target_:tests.deadly.Dies,seed:${seed},of_seed:1,how:raise}"
    process = start_sweep("seed=0,1,2", "hydra/launcher=joblib", dies, "loader.num_workers=1")
    output, _ = process.communicate(timeout=300)
    folders = cell_folders(tmp_path / "sweeps" / "s")
    assert process.returncode == 1, output
    assert [status_of(folders[seed]) for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    threads = read_record(folders[0]).provenance.machine.torch_threads
    assert threads == max(1, len(os.sched_getaffinity(0)) // 2)
    assert (tmp_path / "sweeps" / "s" / "results.md").is_file()


@pytest.mark.slow
def test_death_of_a_joblib_worker_ends_the_sweep_in_one_line(start_sweep, tmp_path):
    dies = "+callbacks.d={_target_:tests.deadly.Dies,seed:0,of_seed:0,how:SIGKILL}"
    process = start_sweep("seed=0,1", "hydra/launcher=joblib", dies)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1 and "Traceback" not in output, output
    assert "\nerror: " in output and not cell_folders(tmp_path / "sweeps" / "s")
