"""Train and judge one model, or sweep many: python train.py -m model=... interval=..."""

import gc
import logging
import multiprocessing
import time
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from emotion.backbone import load_pretrained, num_parameters
from emotion.cache import Cache
from emotion.cell import LOCK, clear, describe_cell, read_record, why_run, write_record
from emotion.config import describe_data, entry, one_line
from emotion.datamodule import StackDataModule
from emotion.errors import UserError
from emotion.files import claimed
from emotion.loggers import Wandb, finish_wandb
from emotion.metrics import judge
from emotion.module import EmotionModule
from emotion.predictions import Predictions
from emotion.provenance import memory_mb, provenance
from emotion.split import describe_parts

log = logging.getLogger(__name__)

# The sections of the config that metrics.json repeats; all of it is in .hydra/config.yaml.
SETTINGS = (
    "sampling",
    "face",
    "interval",
    "model",
    "augmentation",
    "optimizer",
    "loader",
    "trainer",
)
HARMLESS_WARNINGS = (  # Lightning's, of things that are meant so
    ".*does not have many workers.*",  # evaluation loads between steps; see loader.num_workers
    ".*Checkpoint directory .* exists and is not empty.*",  # Hydra has put its config there
    ".*smaller than the logging interval.*",  # curves have a point an epoch
    ".*`srun` command is available.*",  # cells that Slurm shall run say so: hydra/launcher
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
)


@entry("train")
def train(cfg: DictConfig) -> float | None:
    """Run one cell; in a sweep, note a failure and let the other cells run.

    Returns:
        The validation accuracy of the best epoch, which searches maximize; None if it failed.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        record = run_cell_of_sweep(cfg, run_dir)
    else:
        record = record_cell(cfg, run_dir)
    return record.get("val_accuracy")


def run_cell_of_sweep(cfg: DictConfig, run_dir: Path) -> dict:
    """Run a cell unless it is finished or another process is at it; note a failure.

    Returns:
        Its record; nothing if another process is at it.
    """
    if multiprocessing.get_start_method() == "loky":  # in joblib's workers, which can't start more
        multiprocessing.set_start_method(None, force=True)  # the platform's own, for loaders
    try:
        with claimed(run_dir / LOCK, f"cell {run_dir.name}"):
            why = why_run(cfg, run_dir)
            if why is None:  # a job of an earlier start has finished it by now
                return read_record(run_dir)
            goes_on = cfg.get("ckpt_path") == "last" and why != "made from other stacks"
            if not goes_on:
                clear(run_dir)
            try:
                return record_cell(cfg, run_dir)
            except Exception as error:
                message = one_line(error)
                log.error("cell %s failed: %s", run_dir.name, message)
                (run_dir / "error.txt").write_text(traceback.format_exc())
                failed = {"status": "failed", "error": f"{type(error).__name__}: {message}"}
                record = describe_cell(cfg, HydraConfig.get().overrides.task) | failed
                write_record(run_dir, record)
                return record
            finally:
                gc.collect()  # Lightning's objects hold each other: no cell shall keep the last one
    except UserError as error:
        log.error("%s", error)
        return {}


def record_cell(cfg: DictConfig, run_dir: Path) -> dict:
    """Run a cell and write its record, the last thing that it does."""
    head = describe_cell(cfg, HydraConfig.get().overrides.task)
    try:
        record = head | run_cell(cfg, run_dir) | {"status": "finished"}
    except Exception:
        finish_wandb()
        raise
    except SystemExit as stopped:  # what Lightning makes of Ctrl-C
        finish_wandb()
        raise KeyboardInterrupt from stopped
    write_record(run_dir, record)
    return record


def run_cell(cfg: DictConfig, run_dir: Path) -> dict:
    """Train one model on one data set and judge its best epoch.

    Args:
        cfg: the composed config.
        run_dir: where checkpoints and curves go.

    Returns:
        What `metrics.json` tells of the run.
    """
    log.info(describe_data(cfg))
    for pattern in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = StackDataModule(
        Cache.from_config(cfg),
        cfg.interval.frames,
        instantiate(cfg.augmentation),
        split=instantiate(cfg.split, _convert_="all"),
        seed=cfg.seed,
        **cfg.loader,
    )
    datamodule.prepare_data()
    datamodule.setup()
    module = EmotionModule(
        backbone=cfg.model.backbone,
        num_images=datamodule.num_images,
        labels=datamodule.labels,
        hidden=cfg.model.hidden,
        dropout=tuple(cfg.model.dropout),
        channels_last=cfg.model.channels_last,
        **cfg.optimizer,
    )
    pretrained = load_pretrained(
        module.network, cfg.model.backbone, cfg.model.pretrained, cfg.model.stem
    )
    if cfg.model.pretrained == "auto" and not pretrained.loaded:
        log.warning("WARNING: no pretrained weights; training starts from %s", pretrained.source)
    parameters = num_parameters(module)
    counts = {split: len(rows) for split, rows in datamodule.rows.items()}
    log.info(
        "%s, %d images of %d px, %s parameters; stacks: %s",
        cfg.model.title,
        datamodule.num_images,
        datamodule.image_px,
        f"{parameters:,}",
        ", ".join(f"{count} {split}" for split, count in counts.items()),
    )

    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    settings = OmegaConf.to_container(cfg, resolve=True)
    settings["data"].pop("download_id", None)  # a private link does not belong on a dashboard
    for logger in loggers:
        logger.log_hyperparams(settings)
    callbacks = {name: instantiate(c) for name, c in cfg.callbacks.items() if c is not None}
    trainer = instantiate(cfg.trainer, logger=loggers, callbacks=list(callbacks.values()))
    start_s = time.monotonic()
    trainer.fit(module, datamodule=datamodule)
    seconds = time.monotonic() - start_s

    best = callbacks["best"]
    checkpoint = torch.load(best.best_model_path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    predictions = Predictions.joined(
        [
            predict_split(trainer, module, datamodule, split)
            for split in ("val", "test")
            if datamodule.rows[split]
        ]
    )
    predictions.write(run_dir / "predictions.csv")
    scores = {}
    for split in dict.fromkeys(predictions.splits):
        of_stacks = predictions.of_split(split)
        scores[split] = {
            "stacks": asdict(judge(of_stacks)),
            "clips": asdict(judge(of_stacks.of_clips())),
        }
    reported_on = "test" if "test" in scores else "val"
    result = scores[reported_on]["stacks"]
    low, high = result["confidence"]["bounds"]["accuracy"]
    log.info(
        "best epoch %d on %d %s stacks: accuracy %.1f %% [%.1f, %.1f], UAR %.1f %%, "
        "macro-F1 %.1f %%%s",
        checkpoint["epoch"] + 1,
        result["num"],
        reported_on,
        *(100 * score for score in (result["accuracy"], low, high)),
        *(100 * result[key] for key in ("uar", "macro_f1")),
        "; selected and reported on the same clips" if reported_on == "val" else "",
    )
    for logger in loggers:
        logger.log_metrics(
            {f"best/{reported_on}_{key}": result[key] for key in ("accuracy", "uar", "macro_f1")}
        )
        if isinstance(logger, Wandb):
            logger.finish()
    return {
        "settings": {key: settings[key] for key in SETTINGS},
        "notice": cfg.data.notice,
        "split": {
            **datamodule.split.settings,
            "parts": describe_parts([row for rows in datamodule.rows.values() for row in rows]),
        },
        "stacks": counts,
        "clips": {s: len({row.clip for row in rows}) for s, rows in datamodule.rows.items()},
        "num_images": datamodule.num_images,
        "image_px": datamodule.image_px,
        "parameters": parameters,
        "pretrained": vars(pretrained),
        "epochs": trainer.current_epoch,
        "best_epoch": checkpoint["epoch"] + 1,
        "seconds": round(seconds, 1),
        "selected_on": "val",
        "reported_on": reported_on,
        **{key: result[key] for key in ("accuracy", "uar", "macro_f1", "confusion")},
        "scores": scores,
        "checkpoint": Path(best.best_model_path).name,
        "val_accuracy": best.best_model_score.item(),
        "manifest_sha256": datamodule.cache.manifest_sha256(),
        "memory_mb": memory_mb(),
        **provenance(),
    }


def predict_split(
    trainer: pl.Trainer, module: EmotionModule, datamodule: StackDataModule, split: str
) -> Predictions:
    """Let a trained module say what it makes of every stack of a split."""
    batches = trainer.predict(module, datamodule.evaluation_dataloader(split))
    return Predictions.of_rows(
        datamodule.rows[split], datamodule.labels, torch.cat(batches).numpy()
    )


if __name__ == "__main__":
    train()
