"""A cell: one run of a sweep. Which it is, and what its folder says of it.

A cell is its composed config. Its folder is named after that, so a sweep that is started again
finds what it has done, whatever the order, and two settings never meet in one folder.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from emotion.files import unfinished
from emotion.models.titles import model_title
from emotion.stacks.cache import Cache

METRICS_FILE = "metrics.json"  # a run's record, the last thing that it writes
ERROR_FILE = "error.txt"
LOCK = ".cell.lock"  # held by the process that runs the cell
# Keys that no result depends on: places, names, who is told, and how many processes share the work.
BESIDE_THE_POINT = (
    *("hydra", "sweep", "paths", "logger"),
    *("executor", "num_workers", "loader.num_workers"),
)


def cell_id(cfg: DictConfig) -> str:
    """Name a composed config by all that its result depends on.

    Interpolations count as they are written, so the id is the same wherever the cache lies.

    Args:
        cfg: the config of a job, with or without the section `hydra`.

    Returns:
        8 hexadecimal digits.
    """
    settings = OmegaConf.to_container(cfg, resolve=False)
    for key in BESIDE_THE_POINT:
        section, _, name = key.rpartition(".")
        (settings.get(section, {}) if section else settings).pop(name, None)
    if settings.get("ckpt_path") in (None, "last"):  # to go on is no other run
        settings.pop("ckpt_path", None)
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def cell_name(cfg: DictConfig) -> str:
    """Name the folder of a cell: what people look for, and its id."""
    parts = [cfg.model.name, f"interval{cfg.interval.frames}", f"seed{cfg.seed}"]
    if "fold" in cfg.split:
        parts.append(f"fold{cfg.split.fold}")
    return "_".join([*parts, cell_id(cfg)])


def sweep_name() -> str | None:
    """Name the sweep that the running job belongs to by its folder; None for a single run."""
    hydra_cfg = HydraConfig.get()
    return Path(hydra_cfg.sweep.dir).name if hydra_cfg.mode == RunMode.MULTIRUN else None


OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("cell_name", lambda _root_: cell_name(_root_), replace=True)


def describe_cell(cfg: DictConfig, overrides: Sequence[str]) -> dict:
    """Give the head of a cell's record: what is known of it before it runs."""
    return {
        "cell": cell_id(cfg),
        "model": cfg.model.name,
        "model_title": model_title(cfg.model.backbone),
        "interval": cfg.interval.frames,
        "seed": cfg.seed,
        "data": cfg.data.name,
        "labels": list(cfg.data.labels),
        "split": OmegaConf.to_container(cfg.split, resolve=True),
        "overrides": list(overrides),
    }


def read_record(folder: Path) -> dict | None:
    """Read the `metrics.json` of a run; None where there is none, or it was not written whole."""
    try:
        record = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "status" in record else None


def write_record(folder: Path, record: dict) -> None:
    """Write the `metrics.json` of a run: the last thing it does, whole or not at all."""
    with unfinished(folder / METRICS_FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")


def write_failure(folder: Path, head: dict, error: str) -> dict:
    """Write and give the record of a cell that failed; `head` as `describe_cell` gives it."""
    record = head | {"status": "failed", "error": error}
    write_record(folder, record)
    return record


def why_run(cfg: DictConfig, folder: Path) -> str | None:
    """Say why a cell has to run, or run again.

    Args:
        cfg: its composed config.
        folder: its own.

    Returns:
        "new", or what is wrong with what the folder holds; None if it is finished, with this config
        and on the stacks that are there now.
    """
    record = read_record(folder)
    if record is None:
        return "cut off" if is_begun(folder) else "new"
    if record.get("cell") != cell_id(cfg):
        return "another config"
    if record["status"] != "finished":
        return f"{record['status']} before"
    if record["manifest_sha256"] != Cache.from_config(cfg).manifest_sha256():
        return "made from other stacks"
    return None


def is_begun(folder: Path) -> bool:
    """Tell whether a run has put its config into a folder."""
    return (folder / ".hydra").is_dir()


def clear(folder: Path, *, but_for_training: bool = False) -> None:
    """Remove what an earlier, unfinished run of a cell has left in its folder.

    Config and log stay: they belong to the run that is about to begin.

    Args:
        folder: the cell's own.
        but_for_training: keep checkpoints and curves as well, for it is about to go on; what tells
            of its end goes, and what a kill has left half-written.
    """
    for path in folder.iterdir():
        if path.name == ".hydra" or path.suffix in (".log", ".lock"):
            continue
        tells_of_end = path.name in (METRICS_FILE, ERROR_FILE)
        if but_for_training and not tells_of_end and not path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
