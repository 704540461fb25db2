"""Checkpoints: written atomically, loaded for resuming or for evaluation."""

import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from emotion.errors import UserError
from emotion.files import unfinished
from emotion.training.record import FinishedRun, read_record

LAST = "last.ckpt"


class RunCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in the run's folder, also if the run resumes in another folder."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(enable_version_counter=False, **settings)  # replaces an existing file

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint of this folder or of another one."""
        if self.monitor is None:  # has no state: every epoch replaces the file
            return
        kept = Path(state_dict["best_model_path"])
        here = Path(self.dirpath) / kept.name
        if state_dict["dirpath"] != self.dirpath and not here.is_file():
            if not kept.is_file():
                raise UserError(f"ckpt_path: the best checkpoint of its run, {kept}, is missing")
            with unfinished(here) as temporary:
                shutil.copyfile(kept, temporary)
        super().load_state_dict(
            state_dict
            | {key: str(here) for key in ("best_model_path", "kth_best_model_path")}
            | {"best_k_models": {str(here): s for s in state_dict["best_k_models"].values()}}
            | {"dirpath": self.dirpath}
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically, so that a kill leaves the previous one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any = None
    ) -> None:
        """Write a checkpoint to a path."""
        with unfinished(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def starting_checkpoint(ckpt_path: str | None, run_dir: Path, *, named: bool) -> Path | None:
    """Find the checkpoint that training resumes from; return None to start with the first epoch.

    `last` needs a folder that is `named`, by the user or by a sweep.
    """
    if ckpt_path != "last":
        return None if ckpt_path is None else Path(ckpt_path).absolute()
    path = run_dir / LAST
    if path.is_file():
        return path
    if not named:
        raise UserError("ckpt_path=last needs the folder of the run to resume: hydra.run.dir=DIR")
    if isinstance(record := read_record(run_dir), FinishedRun):
        raise UserError(
            f"ckpt_path=last: {run_dir} holds a finished run with other settings, which cannot "
            "resume; use another folder, and to start with its weights "
            f"model.pretrained={run_dir / record.checkpoint}"
        )
    return None


def load_checkpoint(path: Path, module: pl.LightningModule) -> dict[str, Any]:
    """Read a checkpoint that training of a module can resume from; else raise a UserError."""
    if not path.is_file():
        raise UserError(f"ckpt_path={path}: no such file (ckpt_path=last resumes this run)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        theirs = checkpoint["hyper_parameters"]
    except Exception as error:
        raise UserError(f"ckpt_path={path} is not a checkpoint of train.py") from error
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"ckpt_path={path} holds weights only, and training cannot resume from it; "
            f"to start anew with its weights set model.pretrained={path}"
        )
    for key, value in module.hparams.items():
        if key in theirs and theirs[key] != value:
            raise UserError(
                f"ckpt_path={path}: its run had {key}={theirs[key]}, this one has {value}; "
                "resume with the settings of its run"
            )
    return checkpoint


def load_weights(path: Path, module: pl.LightningModule) -> int:
    """Load the weights of a run's own checkpoint into its module; return its epoch, from 1."""
    checkpoint = torch.load(path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return checkpoint["epoch"] + 1
