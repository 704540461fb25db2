"""A killed process that loads stacks: one line, and the same command resumes the run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from emotion import REPOSITORY
from tests.caches import BuildableCache

pytestmark = pytest.mark.slow


def test_killed_loader_ends_a_run_in_one_line_and_the_rerun_resumes(
    demo_cache: BuildableCache, tmp_path: Path
):
    gate = tmp_path / "gate"
    gate.touch()
    command = [
        *(sys.executable, "train.py", "data=demo", "experiment=smoke", "loader.num_workers=2"),
        *(f"data.root={demo_cache.root}", f"paths.cache={demo_cache.directory.parent}"),
        *("interval=15", "model.backbone=mobilenetv3_small_050", "logger=csv", "num_workers=1"),
        *(f"hydra.run.dir={tmp_path}/run", "ckpt_path=last", "trainer.max_epochs=3"),
        f"+callbacks.w={{_target_:tests.deadly.WaitsInBatch,epoch:1,file:{gate}}}",
    ]
    run = subprocess.Popen(
        command, cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    reached = tmp_path / "gate.reached"
    end_s = time.monotonic() + 120
    while not reached.exists():
        assert run.poll() is None and time.monotonic() < end_s, run.communicate()
        time.sleep(0.05)
    main = psutil.Process(run.pid)
    loaders = [child for child in main.children() if child.cmdline() == main.cmdline()]  # forks
    loaders[0].send_signal(signal.SIGKILL)
    gate.unlink()
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 1, (output, errors)
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in errors, errors
    assert "loader.num_workers" in lines[0]
    again = subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True)
    assert again.returncode == 0, again.stderr
    assert "resumes after epoch 1" in again.stdout
