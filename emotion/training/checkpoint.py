"""Checkpoints: written atomically, loaded for resuming or for evaluation."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from emotion.errors import DamagedFile, UserError, is_machine_fault
from emotion.files import file_digest, unfinished
from emotion.models.weights import load_weights, read_checkpoint
from emotion.training.record import FinishedRun, read_record

LAST = "last.ckpt"
STATE_OF_TRAINING = {"callbacks", "epoch", "hyper_parameters", "loops", "lr_schedulers"}


class RunCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint in the run's folder, also if the run resumes in another folder."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(enable_version_counter=False, **settings)  # replaces an existing file

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the digest of the kept file if it is the best."""
        state = super().state_dict()
        if self.monitor is not None and self.best_model_path:
            state["digest"] = file_digest(Path(self.best_model_path))
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume, also from another folder, whose best checkpoint is copied here."""
        if self.monitor is None:  # has no state: every epoch replaces the file
            return
        here = str(Path(self.dirpath) / Path(state_dict["best_model_path"]).name)
        paths = {"best_model_path": here, "kth_best_model_path": here, "dirpath": self.dirpath}
        best = {"best_k_models": {here: state_dict["best_model_score"]}}
        super().load_state_dict(state_dict | paths | best)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically, so that a kill or a full disk leaves the previous one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; an OSError names the file."""
        with unfinished(Path(path)) as temporary, open(temporary, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # of torch's writer, after an OSError of the file
                raise error.__context__ or error from None

    def load_checkpoint(self, path: str, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint that is not damaged."""
        return read_checkpoint(Path(path))


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
        record.check_files(run_dir)
        raise UserError(
            f"ckpt_path=last: {run_dir} holds a finished run with other settings, which cannot "
            "resume; use another folder, and to start with its weights "
            f"model.pretrained={run_dir / record.checkpoint}"
        )
    return None


def load_checkpoint(path: Path, module: pl.LightningModule) -> dict[str, Any]:
    """Read a checkpoint that training of a module can resume from.

    Raises:
        DamagedFile: it is missing or damaged.
        UserError: it has no state of training, or its run had other settings.
    """
    what = f"ckpt_path={path}"
    checkpoint = read_checkpoint(path)
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"{what} holds weights only, and training cannot resume from it; "
            f"to start anew with its weights set model.pretrained={path}"
        )
    if missing := STATE_OF_TRAINING - checkpoint.keys():
        raise DamagedFile(f"{what} is no checkpoint of train.py: it has no {min(missing)}")
    theirs = checkpoint["hyper_parameters"]
    for key, value in module.hparams.items():
        if key in theirs and theirs[key] != value:
            raise UserError(
                f"{what}: its run had {key}={theirs[key]}, this one has {value}; "
                "resume with the settings of its run"
            )
    load_weights(module, checkpoint["state_dict"], what)
    return checkpoint


def best_beside(checkpoint: dict[str, Any], path: Path) -> Path:
    """Return the best checkpoint of the run whose last one is at a path; raise if it is damaged."""
    try:
        (state,) = (each for each in checkpoint["callbacks"].values() if "digest" in each)
        best = path.with_name(Path(state["best_model_path"]).name)
        if file_digest(best) == state["digest"]:
            return best
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        if is_machine_fault(error):
            raise
    raise DamagedFile(
        f"ckpt_path={path}: the best checkpoint of its run, beside it, is missing or damaged; "
        "ckpt_path=null trains anew"
    )
