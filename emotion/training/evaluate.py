"""Predictions of a trained module, and log lines about its scores and calibration."""

import logging

import numpy as np
import pytorch_lightning as pl
import torch

from emotion.clips.naming import SPLITS
from emotion.data.datamodule import StackDataModule
from emotion.errors import UserError
from emotion.evaluation.calibration import TEMPERATURES, Calibration, min_clips
from emotion.evaluation.learning_curve import ClipFeatures
from emotion.evaluation.metrics import LevelScores
from emotion.evaluation.predictions import Predictions
from emotion.models.lightning_module import ClassifierModule
from emotion.models.person_model import class_means

log = logging.getLogger(__name__)


def predict_splits(
    trainer: pl.Trainer, module: ClassifierModule, datamodule: StackDataModule
) -> Predictions:
    """Predict all val and test stacks in this process, uncalibrated, in validation's precision."""
    module.eval().to(trainer.strategy.root_device)
    parts = []
    for split in ("val", "test"):
        if rows := datamodule.rows[split]:
            with torch.inference_mode(), trainer.precision_plugin.val_step_context():
                batches = [
                    module.predict_step(module.transfer_batch_to_device(batch, module.device, 0), 0)
                    for batch in datamodule.evaluation_dataloader(split)
                ]
            probabilities = torch.cat(batches).cpu().numpy()
            if not np.isfinite(probabilities).all():
                raise UserError(
                    f"the probabilities of {split} stacks are not finite: try a lower optimizer.lr"
                )
            parts.append(Predictions.of_rows(rows, datamodule.labels, probabilities))
    return Predictions.joined(parts)


def clip_features(module: ClassifierModule, datamodule: StackDataModule) -> ClipFeatures:
    """Return the features of all clips: the mean of their stacks'."""
    rows, parts = [], []
    for split in SPLITS:
        for values, _ in datamodule.evaluation_dataloader(split) if datamodule.rows[split] else ():
            with torch.inference_mode():
                parts.append(module.features(values.to(module.device)).double().cpu())
        rows += datamodule.rows[split]
    features = torch.cat(parts).numpy()
    clips, first, clip_of = np.unique(
        [r.clip for r in rows], return_index=True, return_inverse=True
    )
    of_clips = [rows[place] for place in first]
    return ClipFeatures(
        tuple(datamodule.labels),
        module.feature_blocks,
        class_means(features, clip_of),
        np.array([datamodule.labels.index(row.label) for row in of_clips]),
        np.array([row.subject for row in of_clips]),
        clips,
        np.array([row.split for row in of_clips]),
    )


def log_scores(scores: LevelScores, split: str, best_epoch: int) -> None:
    """Log the scores of the reported split."""
    stacks = scores.stacks
    low, high = stacks.confidence.bounds["accuracy"]
    log.info(
        f"best epoch {best_epoch} on {stacks.num} {split} stacks: "
        f"accuracy {stacks.accuracy:.1%} [{low:.1%}, {high:.1%}], "
        f"UAR {stacks.uar:.1%}, macro-F1 {stacks.macro_f1:.1%}"
        + ("; the epoch was selected on the same clips" if split == "val" else "")
    )


def log_calibration(calibration: Calibration, reported_on: str) -> None:
    """Log the effect of calibration on the reported split, and the confidence threshold."""
    reported = calibration.splits[reported_on]
    clips = reported.clips
    log.info(
        f"temperature {calibration.temperature:.3g}, fitted on val: calibration error on "
        f"{clips.num} {reported_on} clips {clips.ece_after:.1%}, before it {clips.ece_before:.1%}"
    )
    if calibration.temperature > 0.99 * TEMPERATURES[1]:
        log.warning(
            "this temperature is the highest possible: on val the model is no better than chance, "
            "so that all its probabilities are made nearly equal"
        )
    num_val = calibration.splits["val"].clips.num
    required = f"an accuracy of {calibration.accuracy:.0%} (calibration.accuracy)"
    if not calibration.threshold_set:
        log.warning(
            f"no confidence threshold is set, and every clip is answered: {required} needs at "
            f"least {min_clips(calibration.accuracy)} validation clips, there are {num_val}"
        )
    elif calibration.unsure_below == 1:
        log.warning(
            f"every clip is unsure: no confidence threshold gives {required} on the {num_val} "
            "validation clips"
        )
    elif calibration.unsure_below == 0:
        log.info("no clip is unsure: validation has %s with every clip answered", required)
    else:
        log.info(
            f"unsure below {calibration.unsure_below:.1%}: {reported.answered} of {clips.num} "
            f"{reported_on} clips answered"
        )
