import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from emotion.provenance import code_version, provenance


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_commit_is_gits_and_edits_make_it_dirty(tmp_path: Path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    assert code_version(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "notes.txt").write_text("no code")
    assert code_version(tmp_path)["dirty"] is False
    (tmp_path / "code.py").write_text("2")
    assert code_version(tmp_path)["dirty"] is True


def test_copy_that_is_no_repository_has_no_commit(tmp_path: Path):
    unknown = {"commit": None, "dirty": None}
    assert code_version(tmp_path) == unknown
    git(tmp_path, "init", "-q")
    (tmp_path / "copy").mkdir()
    assert code_version(tmp_path / "copy") == unknown  # another project's repository around it


def test_versions_and_machine_are_those_in_use():
    told = provenance()
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert told["versions"]["numpy"] == np.__version__
    assert told["versions"]["python"] == platform.python_version()
    assert told["machine"]["cores"] == len(os.sched_getaffinity(0)) and told["machine"]["cpu"]


MEMORY = """
import numpy as np
from emotion.provenance import memory_mb
before = memory_mb()
taken = np.ones(100_000_000, np.uint8)
after = memory_mb()
print(after["resident"] - before["resident"], after["peak"] - before["resident"])
"""


def test_memory_grows_by_what_is_taken():
    """In a process of its own: one that has freed memory may get that back."""
    printed = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, check=True).stdout
    resident, peak = map(int, printed.split())
    assert 90 < resident < 110 and peak >= 90
