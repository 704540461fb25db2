"""Where a run goes on after a kill: its checkpoints, whole on disk and known again."""

import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from emotion.errors import UserError
from emotion.files import unfinished

LAST = "last.ckpt"


class RunCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in the run's folder, and knows it again if a run goes on elsewhere."""

    def __init__(self, **settings: Any) -> None:
        """Take what `ModelCheckpoint` takes; a run in the folder of another replaces its file."""
        super().__init__(enable_version_counter=False, **settings)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, of this folder or another one.

        Raises:
            UserError: the best checkpoint so far is gone.
        """
        if self.monitor is None:  # nothing to remember: every epoch replaces the one before
            return
        kept = Path(state_dict["best_model_path"])
        here = Path(self.dirpath) / kept.name
        if state_dict["dirpath"] != self.dirpath and not here.is_file():
            if not kept.is_file():
                raise UserError(f"ckpt_path: the best epoch of its run, {kept}, is gone")
            with unfinished(here) as temporary:
                shutil.copyfile(kept, temporary)
        super().load_state_dict(
            state_dict
            | {key: str(here) for key in ("best_model_path", "kth_best_model_path")}
            | {"best_k_models": {str(here): s for s in state_dict["best_k_models"].values()}}
            | {"dirpath": self.dirpath}
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, so that a kill leaves the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any = None
    ) -> None:
        """Write a checkpoint to a path."""
        with unfinished(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def load_checkpoint(path: Path, module: pl.LightningModule) -> dict[str, Any]:
    """Read a checkpoint that a module is to go on from.

    Args:
        path: the file.
        module: of the same kind as the one in the checkpoint.

    Returns:
        What the file holds.

    Raises:
        UserError: it is no such checkpoint.
    """
    if not path.is_file():
        raise UserError(f"ckpt_path={path}: no such file (or last, for the one of this run)")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        theirs = checkpoint["hyper_parameters"]
    except Exception as error:
        raise UserError(f"ckpt_path={path}: not a checkpoint of train.py") from error
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"ckpt_path={path}: it holds weights alone, go on from {LAST} beside it; "
            "to begin anew with its backbone give model.pretrained"
        )
    for key, value in module.hparams.items():
        if key in theirs and theirs[key] != value:
            raise UserError(
                f"ckpt_path={path}: its run had {key}={theirs[key]}, this one has {value}; "
                "go on with the settings that it began with"
            )
    return checkpoint


def load_weights(path: Path, module: pl.LightningModule) -> int:
    """Give a module the weights of a checkpoint that it has written.

    Returns:
        After which epoch they were written, counted from 1.
    """
    checkpoint = torch.load(path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return checkpoint["epoch"] + 1
