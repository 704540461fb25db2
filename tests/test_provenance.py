import os
import platform
import subprocess
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
    assert code_version(tmp_path) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "notes.txt").write_text("no code")
    assert code_version(tmp_path)[1] is False
    (tmp_path / "code.py").write_text("2")
    assert code_version(tmp_path)[1] is True


def test_copy_that_is_no_repository_has_no_commit(tmp_path: Path):
    unknown = (None, None)
    assert code_version(tmp_path) == unknown
    git(tmp_path, "init", "-q")
    (tmp_path / "copy").mkdir()
    assert code_version(tmp_path / "copy") == unknown  # another project's repository around it


def test_versions_and_machine_are_those_in_use():
    found = provenance()
    assert found.versions["torch"] == torch.__version__.partition("+")[0]
    assert found.versions["numpy"] == np.__version__
    assert found.versions["python"] == platform.python_version()
    assert found.machine.cores == len(os.sched_getaffinity(0)) and found.machine.cpu
