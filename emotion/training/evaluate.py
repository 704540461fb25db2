"""Predictions of a trained module, and log lines about its scores and calibration."""

import logging

import pytorch_lightning as pl
import torch

from emotion.data.datamodule import StackDataModule
from emotion.evaluation.calibration import Calibration
from emotion.evaluation.metrics import LevelScores
from emotion.evaluation.predictions import Predictions
from emotion.models.lightning_module import ClassifierModule

log = logging.getLogger(__name__)


def predict_splits(
    trainer: pl.Trainer, module: ClassifierModule, datamodule: StackDataModule
) -> Predictions:
    """Predict every stack of the validation and test splits, uncalibrated.

    In this process alone, on the device and in the precision of validation during training.
    """
    module.eval().to(trainer.strategy.root_device)
    parts = []
    for split in ("val", "test"):
        if not (rows := datamodule.rows[split]):
            continue
        with torch.inference_mode(), trainer.precision_plugin.val_step_context():
            batches = [
                module.predict_step(module.transfer_batch_to_device(batch, module.device, 0), 0)
                for batch in datamodule.evaluation_dataloader(split)
            ]
        probabilities = torch.cat(batches).cpu().numpy()
        parts.append(Predictions.of_rows(rows, datamodule.labels, probabilities))
    return Predictions.joined(parts)


def log_scores(scores: LevelScores, split: str, best_epoch: int) -> None:
    """Log the scores of the reported split."""
    stacks = scores.stacks
    low, high = stacks.confidence.bounds["accuracy"]
    log.info(
        "best epoch %d on %d %s stacks: accuracy %.1f %% [%.1f, %.1f], UAR %.1f %%, "
        "macro-F1 %.1f %%%s",
        best_epoch,
        stacks.num,
        split,
        *(100 * score for score in (stacks.accuracy, low, high, stacks.uar, stacks.macro_f1)),
        "; the epoch was selected on the same clips" if split == "val" else "",
    )


def log_calibration(calibration: Calibration, reported_on: str) -> None:
    """Log the effect of calibration on the reported split, and the confidence threshold."""
    clips = calibration.splits[reported_on].clips
    log.info(
        "temperature %.3g, fitted on val: calibration error on %d %s clips %.1f %% before, "
        "%.1f %% after",
        calibration.temperature,
        clips.num,
        reported_on,
        100 * clips.ece.before,
        100 * clips.ece.after,
    )
    num_val, required = calibration.splits["val"].clips.num, 100 * calibration.accuracy
    if not calibration.threshold_set:
        log.warning(
            "no confidence threshold is set, and every clip is answered: an accuracy of %.0f %% "
            "(calibration.accuracy) needs at least %d validation clips, there are %d",
            required,
            calibration.min_clips,
            num_val,
        )
    elif calibration.unsure_below == 1:
        log.warning(
            "every clip is unsure: no confidence threshold gives an accuracy of %.0f %% "
            "(calibration.accuracy) on the %d validation clips",
            required,
            num_val,
        )
    else:
        log.info(
            "unsure below %.1f %%: %d of %d %s clips answered",
            100 * calibration.unsure_below,
            clips.answered,
            clips.num,
            reported_on,
        )
