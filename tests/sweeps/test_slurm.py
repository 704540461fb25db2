"""Sweeps on a real Slurm of one node, made of Debian's packages by docs/one_node_slurm.sh."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emotion import REPOSITORY
from tests.sweeps.conftest import wait_for

# One worker of pytest-xdist runs all of them: two clusters on one machine are too many.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

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
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180,
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
def sweep(slurm: None, start_sweep: Callable[..., subprocess.Popen], tmp_path: Path):
    """Give a function that starts a sweep on Slurm, from a folder without the code."""

    def start(*arguments: str) -> subprocess.Popen:
        launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1")
        return start_sweep(*launcher, *arguments, cwd=tmp_path)

    return start


def test_cells_run_as_jobs_and_a_failed_one_stops_no_other(sweep, tmp_path: Path):
    from emotion.training.record import read_record

    dies = "+callbacks.d={_target_:tests.deadly.Dies,seed:${seed},of_seed:1,how:raise}"
    run = sweep("seed=0,1,2", dies)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 1, output
    folder = tmp_path / "sweeps" / "s"
    records = [read_record(path.parent) for path in folder.glob("*/metrics.json")]
    status = {record.seed: record.status for record in records}
    assert status == {0: "finished", 1: "failed", 2: "finished"}
    (first,) = (record for record in records if record.seed == 0)
    assert first.provenance.machine.torch_threads == 1  # as many as the job asked for
    assert (folder / "results.md").is_file()


def test_job_of_a_killed_sweep_is_not_run_twice(sweep, tmp_path: Path):
    from emotion.training.record import read_record

    gate, folder = tmp_path / "gate", tmp_path / "sweeps" / "s"
    gate.touch()
    waits = f"+callbacks.w={{_target_:tests.deadly.Waits,seed:0,of_seed:0,file:{gate}}}"
    killed = sweep("seed=0", waits)
    wait_for(tmp_path, "gate.reached", killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = sweep("seed=0", waits)
    wait_for(folder, ".submitit/*/*_submitted.pkl", again, num=2)
    gate.unlink()
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output
    (log,) = folder.glob("*/train.log")
    assert log.read_text().count("best epoch") == 1
    assert read_record(log.parent).status == "finished"


def test_unknown_partition_ends_in_an_error(sweep):
    run = sweep("hydra.launcher.partition=nowhere")
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 1 and "nowhere" in output
