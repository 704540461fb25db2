"""Where a result comes from: code, packages and machine, to repeat a run or explain differences."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

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


def provenance() -> Provenance:
    """Collect what a run depends on besides its config and data."""
    import joblib
    import torch

    machine = Machine(
        host=platform.node(),
        system=platform.platform(),
        cpu=cpu_name(),
        cores=joblib.cpu_count(),  # that this process may use
        torch_threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    commit, dirty = code_version()
    return Provenance(commit=commit, dirty=dirty, versions=versions, machine=machine)


def code_version(repository: Path = REPOSITORY) -> tuple[str | None, bool | None]:
    """Return the git commit of a folder, and whether tracked files differ from it.

    Both are None outside a git checkout.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository.resolve():
            return None, None  # a copy inside another repository
        return git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no") != ""
    except (OSError, subprocess.CalledProcessError):
        return None, None


def cpu_name() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")  # Linux
    found = re.search(r"^model name[ \t]*: *(.+)$", info.read_text() if info.exists() else "", re.M)
    return found[1] if found else platform.processor() or platform.machine()
