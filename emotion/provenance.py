"""Where a result comes from: code, packages, machine. Repeats a run, or tells why it differs."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from emotion import REPOSITORY

PACKAGES = (  # those that numbers depend on
    "torch",
    "timm",
    "pytorch-lightning",
    "torchmetrics",
    "numpy",
    "opencv-contrib-python",
    "mediapipe",
    "av",
    "hydra-core",
)


def provenance() -> dict:
    """Take down what a run rests on besides its config and its data.

    Returns:
        `commit` and `dirty` as `code_version` gives them, `versions` of Python and of the main
        packages, and `machine`.
    """
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return code_version() | {"versions": versions, "machine": machine()}


def code_version(repository: Path = REPOSITORY) -> dict[str, str | bool | None]:
    """Name the git commit of the code, and whether tracked files differ from it.

    Args:
        repository: its folder.

    Returns:
        `commit` and `dirty`; both None where the folder is no git repository, or git is missing.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository.resolve():
            return {"commit": None, "dirty": None}  # a copy inside somebody else's repository
        commit = git("rev-parse", "HEAD")
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": dirty}


def machine() -> dict[str, str | int | None]:
    """Describe the machine; `torch_threads` too, for rounding depends on it."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def cpu_name() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")  # Linux; elsewhere `platform` knows
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> dict[str, int]:
    """Give the memory of this process in MB: `resident` now, and `peak` since it began."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return {"resident": round(peak_mb), "peak": round(peak_mb)}
    resident = int(statm.read_text().split()[1]) * resource.getpagesize()
    return {"resident": round(resident / 1e6), "peak": round(peak_mb)}
