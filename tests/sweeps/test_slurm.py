"""Sweeps on a real Slurm of one node, made of Debian's packages by docs/one_node_slurm.sh."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emotion.cli import REPOSITORY
from emotion.stacks.cache import Cache

pytestmark = pytest.mark.slow

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a Slurm of this machine alone, and stop it after the tests."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons want to be started by root")
    folder = tmp_path_factory.mktemp("slurm")
    script = ["bash", "docs/one_node_slurm.sh"]
    ports = dict(zip(("SLURMCTLD_PORT", "SLURMD_PORT"), map(str, free_ports(2)), strict=True))
    started = subprocess.run(
        [*script, "start", folder], cwd=REPOSITORY, env=os.environ | ports, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
    )  # fmt: skip
    if started.returncode:
        pytest.skip(f"Slurm does not start here: {started.stdout.strip()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        yield
        subprocess.run([*script, "stop", folder], cwd=REPOSITORY, check=True)


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def sweep(slurm: None, demo_cache: Cache, tmp_path: Path):
    """Give a function that starts a sweep of smoke-size cells on Slurm."""

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), "-m", "hydra/launcher=submitit_slurm",
             "hydra.launcher.cpus_per_task=1", "interval=15", "experiment=smoke", "logger=csv",
             "sweep=s", f"paths.output={tmp_path}",
             f"paths.cache={demo_cache.directory.parents[1]}", *arguments],
            cwd=tmp_path, start_new_session=True, text=True,  # not where the code is
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


def records_of(folder: Path) -> dict[int, dict]:
    records = [json.loads(path.read_text()) for path in folder.glob("*/metrics.json")]
    return {record["seed"]: record for record in records}


def test_cells_run_as_jobs_and_one_that_is_killed_costs_itself_alone(sweep, tmp_path: Path):
    dies = "+callbacks.d={_target_:tests.deadly.Dies,seed:${seed},of_seed:1,how:SIGKILL}"
    run = sweep("seed=0,1,2", dies)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 1 and "1 of 3 cells failed" in said, said
    folder = tmp_path / "sweeps" / "s"
    records = records_of(folder)
    assert [records[seed]["status"] for seed in (0, 1, 2)] == ["finished", "failed", "finished"]
    assert "died; see " in records[1]["error"] and "3 of 3 cells, 1 failed" in said
    assert records[0]["machine"]["torch_threads"] == 1  # those that the job asked for
    assert "failed" in (folder / "results.md").read_text()


def test_sweep_killed_on_the_login_node_waits_for_its_jobs(sweep, tmp_path: Path):
    gate, folder = tmp_path / "gate", tmp_path / "sweeps" / "s"
    gate.touch()
    wait = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:0,of_seed:0,file:{gate}}}"
    killed = sweep("seed=0", wait)
    end_s = time.monotonic() + 120
    while not list(folder.glob("*/.cell.lock")):
        assert time.monotonic() < end_s and killed.poll() is None
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = sweep("seed=0", wait)
    for line in again.stdout:
        if "is being run by process" in line:
            break
    gate.unlink()
    said, _ = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert records_of(folder)[0]["status"] == "finished"
    jobs = list(folder.glob(".submitit/*/*_submitted.pkl"))
    assert len(jobs) == 1  # the killed sweep's has done it all


def test_partition_that_is_not_there_ends_in_one_line(sweep):
    run = sweep("hydra.launcher.partition=nowhere")
    said, _ = run.communicate(timeout=100)
    assert run.returncode == 1 and "error: sbatch takes no job" in said and "nowhere" in said
