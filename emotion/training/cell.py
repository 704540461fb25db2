"""A cell, one run of a sweep: its id, and the state of its folder.

The id is a hash of the composed config and part of the folder's name: a sweep that is started again
finds its finished cells in any order, and two settings never share a folder.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from emotion.errors import DamagedFile, UserError
from emotion.models.titles import model_title

if TYPE_CHECKING:  # imported where used, because `train.py --help` imports this module
    from emotion.training.record import RunHead

ERROR_FILE = "error.txt"
LOCK = ".cell.lock"  # held by the process that runs the cell
LOG = "train.log"
CURVES_FILE, HPARAMS_FILE = "curves/metrics.csv", "curves/hparams.yaml"
# Everything that a run writes, besides `wandb/`; no other file is ever removed from its folder.
START_FILES = (LOG, LOCK, *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")))
TRACKER_FOLDERS = ("wandb/", "tensorboard/")
TRAINING_FILES = ("best.ckpt", "last.ckpt", CURVES_FILE, HPARAMS_FILE)
RESULT_FILES = (
    *(ERROR_FILE, "metrics.json", "predictions.csv", "recipe.json", "features.npz", "person.npz"),
)
EXPORTED_FILES = ("model.onnx", "model.int8.onnx", "MODEL_CARD.md")  # of a run, by a command
# Keys that cannot change a result: paths, names, loggers, worker counts.
BESIDE_THE_POINT = (
    *("hydra", "sweep", "paths", "logger"),
    *("executor", "num_workers", "loader.num_workers"),
)


def cell_id(cfg: DictConfig) -> str:
    """Hash everything in a composed config that can change a result into 8 hexadecimal digits.

    Interpolations are hashed unresolved, because many hold paths, a file of pretrained weights by
    its content, and `_target_` (how a class is spelled) not at all.
    """
    settings = without_targets(OmegaConf.to_container(cfg, resolve=False))
    for key in BESIDE_THE_POINT:
        section, _, name = key.rpartition(".")
        (settings.get(section, {}) if section else settings).pop(name, None)
    if settings["ckpt_path"] in (None, "last"):  # a resumed run is the same run
        del settings["ckpt_path"]
    pretrained = Path(str(cfg.model.pretrained))
    if pretrained.is_file():
        settings["model"]["pretrained"] = hashlib.sha256(pretrained.read_bytes()).hexdigest()
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def without_targets(settings: Any) -> Any:
    """Copy nested mappings and lists without their keys `_target_`."""
    if isinstance(settings, dict):
        return {k: without_targets(v) for k, v in settings.items() if k != "_target_"}
    return [without_targets(each) for each in settings] if isinstance(settings, list) else settings


def cell_name(cfg: DictConfig) -> str:
    """Return the name of a cell's folder: its main settings and its id."""
    parts = [cfg.model.name, f"interval{cfg.interval.frames}", f"seed{cfg.seed}"]
    if "fold" in cfg.split:
        parts.append(f"fold{cfg.split.fold}")
    return "_".join([*parts, cell_id(cfg)])


def sweep_name() -> str | None:
    """Return the folder name of the running job's sweep; None for a single run."""
    hydra_cfg = HydraConfig.get()
    return Path(hydra_cfg.sweep.dir).name if hydra_cfg.mode == RunMode.MULTIRUN else None


def wandb_dir() -> str:
    """Return the folder of the running job's `wandb/`: that of its sweep, or of a single run."""
    hydra_cfg = HydraConfig.get()
    is_sweep = hydra_cfg.mode == RunMode.MULTIRUN
    return str(Path(hydra_cfg.sweep.dir if is_sweep else hydra_cfg.runtime.output_dir).absolute())


OmegaConf.register_new_resolver("wandb_dir", wandb_dir, replace=True)
OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("cell_name", lambda _root_: cell_name(_root_), replace=True)


def describe_cell(cfg: DictConfig, hydra: DictConfig) -> "RunHead":
    """Return what is known of a run before it starts, from its config and that of Hydra."""
    from emotion.training.record import RunHead, SplitSettings

    split = OmegaConf.to_container(cfg.split, resolve=True)
    split.pop("_target_", None)
    return RunHead(
        cell=cell_id(cfg),
        model=cfg.model.name,
        backbone=cfg.model.backbone,
        model_title=model_title(cfg.model.backbone, cfg.model.inputs),
        interval=cfg.interval.frames,
        seed=cfg.seed,
        data=cfg.data.name,
        labels=tuple(cfg.data.labels),
        split=SplitSettings(name=split.pop("name"), fold=split.pop("fold", None), settings=split),
        overrides=tuple(hydra.overrides.task),
        flags=config_flags(hydra),
    )


def config_flags(hydra: DictConfig) -> tuple[str, ...]:
    """Return `--config-dir` and `--config-name` with their values, where they were given."""
    sources = hydra.runtime.config_sources
    folders = [each.path for each in sources if each.provider == "command-line"]
    name = hydra.job.config_name
    flags = ["--config-dir", folders[0]] if folders else []
    return (*flags, *(["--config-name", name] if name != "train" else []))


def why_run(cfg: DictConfig, folder: Path) -> str | None:
    """Return why a cell has to run (again); None if it finished on the stacks of the cache now."""
    from emotion.stacks.cache import Cache
    from emotion.training.record import FinishedRun, read_record

    try:
        record = read_record(folder)
        if record is None:
            return "cut off" if is_begun(folder) else "new"
        if record.cell != cell_id(cfg):
            return "another config"
        if not isinstance(record, FinishedRun):
            return "failed before"
        if record.manifest_sha256 != Cache.from_config(cfg).manifest_sha256():
            return "made from other stacks"
        record.check_files(folder)
    except DamagedFile:
        return "damaged"
    return None


def is_begun(folder: Path) -> bool:
    """Return whether a run has written its config to a folder."""
    return (folder / ".hydra").is_dir()


def foreign_files(folder: Path) -> list[Path]:
    """List the files of a folder, subfolders included, that no run writes."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return [path for path in files if not is_run_file(path.relative_to(folder).as_posix())]


def is_run_file(name: str) -> bool:
    """Return whether a run or its export writes a file of this name, relative to its folder."""
    finished = re.sub(r"(^|/)\.(\w+)\.\w+-\d+(\.\w+)$", r"\1\2\3", name)  # of files.unfinished
    own = (*START_FILES, *TRAINING_FILES, *RESULT_FILES, *EXPORTED_FILES)
    return finished in own or name.startswith(TRACKER_FOLDERS)


def remove_irregular(folder: Path, *names: str) -> None:
    """Remove links, pipes and empty folders in the place of files that are opened for writing."""
    for path in (folder / name for name in names or (".hydra", *START_FILES, HPARAMS_FILE)):
        is_regular = path.is_dir() if path.name == ".hydra" else path.is_file()
        if path.is_symlink() or (path.exists() and not is_regular):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def clear(folder: Path, *, but_for_training: bool = False) -> None:
    """Remove what an earlier run has left in its folder, but what this run has written already.

    `but_for_training` also keeps checkpoints, curves and W&B's files, to resume from them.

    Raises:
        UserError: the folder holds files that no run writes; nothing is removed.
    """
    if foreign := foreign_files(folder):
        raise UserError(f"{foreign[0]} is in a run's folder, and no run writes it: move it away")
    kept = (*START_FILES, *TRACKER_FOLDERS, *TRAINING_FILES) if but_for_training else START_FILES
    kept_names = {name.partition("/")[0] for name in kept}
    for path in folder.iterdir():
        if path.is_dir() and path.name not in kept_names:
            shutil.rmtree(path)
        elif path.name not in kept_names:
            path.unlink()
