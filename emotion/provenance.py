"""Where a result comes from: code, packages and machine, to repeat a run or explain differences."""

import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from emotion import REPOSITORY

PACKAGES = (  # those that results depend on
    *("torch", "timm", "pytorch-lightning", "torchmetrics", "numpy"),
    *("opencv-contrib-python", "mediapipe", "av", "hydra-core"),
)


class Machine(BaseModel, extra="forbid", frozen=True):
    """The machine of a run; `torch_threads` because rounding depends on it."""

    host: str
    system: str
    cpu: str
    cores: int
    torch_threads: int
    gpu: str | None


class Provenance(BaseModel, extra="forbid", frozen=True):
    """Code, packages and machine of a run; `commit` and `dirty` are None outside a git checkout."""

    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    machine: Machine


class CodeVersion(NamedTuple):
    """The git commit of the code, and whether tracked files differ from it."""

    commit: str | None
    dirty: bool | None


def provenance() -> Provenance:
    """Collect what a run depends on besides its config and data."""
    import torch

    machine = Machine(
        host=platform.node(),
        system=platform.platform(),
        cpu=cpu_name(),
        cores=num_cores(),
        torch_threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return Provenance(**code_version()._asdict(), versions=versions, machine=machine)


def code_version(repository: Path = REPOSITORY) -> CodeVersion:
    """Return the version of the code in a folder; None and None outside a git checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository.resolve():
            return CodeVersion(None, None)  # a copy inside another repository
        commit = git("rev-parse", "HEAD")
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return CodeVersion(None, None)
    return CodeVersion(commit, dirty)


def cpu_name() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")  # Linux
    found = re.search(r"^model name[ \t]*: *(.+)$", info.read_text() if info.exists() else "", re.M)
    return found[1] if found else platform.processor() or platform.machine()


def num_cores() -> int:
    """Count the cores that this process may use."""
    on_linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1


def memory_mb() -> dict[str, int]:
    """Return the memory of this process in MB: `resident` now, and `peak` since its start."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    resident, statm = peak, Path("/proc/self/statm")
    if statm.exists():
        resident = int(statm.read_text().split()[1]) * resource.getpagesize()
    return {"resident": round(resident / 1e6), "peak": round(peak / 1e6)}
