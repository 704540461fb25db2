"""A decoder that hangs in the main process: the command ends with one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from emotion import REPOSITORY
from tests.caches import BuildableCache

pytestmark = pytest.mark.slow

# Runs a script whose decoder hangs at the first packet.
DRIVER = """
import runpy, sys, time
from emotion import watchdog
from emotion.clips import video
watchdog.PATIENCE_S = 2
video.readable_packets = lambda stream: time.sleep(600)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_hanging(*arguments: str) -> str:
    """Run a script that must end with status 1; return its stderr."""
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=REPOSITORY, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 1, (run.stdout, run.stderr)
    return run.stderr


def test_a_build_in_one_process_ends(demo_cache: BuildableCache, tmp_path: Path):
    errors = run_hanging(
        *("preprocess.py", "data=demo", "experiment=smoke", "num_workers=1"),
        *(f"data.root={demo_cache.root}", f"paths.cache={tmp_path}/cache"),
    )
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: {demo_cache.root}") and "num_workers=2" in line


def test_the_prediction_of_one_clip_ends(demo_cache: BuildableCache, run_dir: Path, tmp_path: Path):
    clip = demo_cache.root / "Happy_0001.mp4"
    errors = run_hanging(
        *("predict.py", f"model_path={run_dir}", f"clips={clip}", f"paths.output={tmp_path}")
    )
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: {clip}") and "convert" in line
