"""Train and judge one model, or sweep many: python train.py -m model=... interval=..."""

import gc
import logging
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from emotion.cli import config_tree, describe_data, entry, one_line
from emotion.data.datamodule import StackDataModule
from emotion.data.split import describe_parts
from emotion.errors import UserError
from emotion.evaluation.calibration import Calibration, Calibrator
from emotion.evaluation.metrics import judge_splits
from emotion.evaluation.personal import mean_neutral
from emotion.evaluation.predictions import Predictions
from emotion.files import claimed
from emotion.models.lightning_module import ClassifierModule, build_module
from emotion.models.parallel import processes
from emotion.models.pretrained import Pretrained, load_pretrained
from emotion.models.recipe import RECIPE_FILE, Recipe, package_versions
from emotion.models.stack_classifier import num_parameters
from emotion.models.titles import model_title
from emotion.provenance import memory_mb, provenance
from emotion.stacks.build_report import count_dropped
from emotion.stacks.cache import Cache
from emotion.training.callbacks import SeededEpochs
from emotion.training.cell import (
    ERROR_FILE,
    LOCK,
    clear,
    describe_cell,
    read_record,
    why_run,
    write_failure,
    write_record,
)
from emotion.training.checkpoint import LAST, WholeCheckpoints, load_checkpoint, load_weights
from emotion.training.loggers import Curves, Wandb, finish_wandb
from emotion.training.throughput import TrainClock, ms_per_stack

log = logging.getLogger(__name__)

CLASS_WEIGHTS = {"balanced": 1.0, "root": 0.5}  # what StackDataModule.class_weights takes
# The sections of the config that metrics.json repeats; all of it is in .hydra/config.yaml.
SETTINGS = (
    "sampling",
    "face",
    "interval",
    "model",
    "augmentation",
    "loss",
    "optimizer",
    "schedule",
    "loader",
    "trainer",
)
HARMLESS_WARNINGS = (  # Lightning's, of things that are meant so
    ".*does not have many workers.*",  # evaluation loads between steps; see loader.num_workers
    ".*Experiment logs directory .* exists and is not empty.*",  # its curves are taken over or old
    ".*Checkpoint directory .* exists and is not empty.*",  # Hydra has put its config there
    ".*smaller than the logging interval.*",  # curves have a point an epoch
    "find_unused_parameters=True was specified.*",  # it is for the epochs of a frozen backbone
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    ".*`srun` command is available.*",  # Slurm is installed, and not in use
)


@entry("train")
def train(cfg: DictConfig) -> float | None:
    """Run one cell; in a sweep, note a failure and let the other cells run.

    Returns:
        The validation accuracy of the best epoch, which searches maximize; None if it failed.
    """
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
        run_cell(cfg, run_dir)
        return None
    if sys.stdout.isatty() and (hydra.mode == RunMode.RUN or hydra.job.num == 0):
        Console().print(config_tree(cfg))
    if hydra.mode == RunMode.MULTIRUN:
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
            goes_on = cfg.ckpt_path == "last" and why != "made from other stacks"
            clear(run_dir, but_for_training=goes_on and (run_dir / LAST).is_file())
            try:
                return record_cell(cfg, run_dir)
            except Exception as error:
                message = one_line(error)
                log.error("cell %s failed: %s", run_dir.name, message)
                (run_dir / ERROR_FILE).write_text(traceback.format_exc())
                head = describe_cell(cfg, HydraConfig.get().overrides.task)
                return write_failure(run_dir, head, f"{type(error).__name__}: {message}")
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
        What `metrics.json` tells of the run; nothing in the other processes of `trainer=ddp`.
    """
    log.info(describe_data(cfg))
    for pattern in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    calibrator = Calibrator(**cfg.calibration)
    check_length(cfg)
    datamodule = build_datamodule(cfg)
    module = configure_module(cfg, datamodule)
    start = starting_checkpoint(cfg.ckpt_path, run_dir)
    epochs_done = load_checkpoint(start, module)["epoch"] + 1 if start else 0
    pretrained = start_backbone(cfg, module)
    setup = describe_setup(cfg, datamodule, module, pretrained)
    log_setup(cfg, setup)

    loggers = [instantiate(logger) for logger in cfg.logger.values()] if is_first_process() else []
    if start:
        datamodule.first_epoch = epochs_done
        log.info("goes on after epoch %d of %s", epochs_done, start)
        for logger in loggers:
            if isinstance(logger, Curves):
                logger.go_on(start.parent, epochs_done - 1)
            if isinstance(logger, Wandb):
                logger.go_on(start.parent)
    show_run(loggers, cfg, datamodule)
    callbacks = {name: instantiate(c) for name, c in cfg.callbacks.items() if c is not None}
    clock = TrainClock()
    trainer, seconds = fit(
        cfg, run_dir, module, datamodule, loggers, [*callbacks.values(), clock], start
    )
    if not is_first_process():
        return {}

    best = callbacks["best"]
    checkpoint = Path(best.best_model_path)
    best_epoch = load_weights(checkpoint, module)
    judged = [split for split in ("val", "test") if datamodule.rows[split]]
    of_splits = {split: predict(trainer, module, datamodule, split) for split in judged}
    if cfg.refit:
        module, checkpoint = refit(cfg, run_dir, datamodule, module, best_epoch)
        if "test" in judged:
            of_splits["test"] = predict(trainer, module, datamodule, "test")
    predictions = Predictions.joined(list(of_splits.values()))
    predictions.write(run_dir / "predictions.csv")
    result = judge_run(predictions, best_epoch)
    calibration, calibrated = calibrator.calibrate(predictions)
    log_calibration(calibrated, result["reported_on"])
    neutral = mean_neutral(predictions.of_split("val"))  # of faces that it was not trained on
    recipe = describe_recipe(cfg, datamodule, calibration, neutral)
    recipe.write(run_dir / RECIPE_FILE)
    record = {
        **setup,
        "epochs": trainer.current_epoch,
        "best_epoch": best_epoch,
        "refit": cfg.refit,
        "seconds": round(seconds, 1),
        **result,
        "calibration": calibrated,
        "checkpoint": checkpoint.name,
        "val_accuracy": best.best_model_score.item(),
        "manifest_sha256": datamodule.cache.manifest_sha256(),
        "memory_mb": memory_mb(),
        **provenance(),
        "cache": str(datamodule.cache.directory),
        "dropped": count_dropped(datamodule.cache.dropped()),
        "throughput": {
            "train_stacks_per_s": clock.stacks_per_s,
            "ms_per_stack": ms_per_stack(
                module.to(trainer.strategy.root_device), module.example(1, datamodule.image_px)
            ),
        },
    }
    return record | show_result(loggers, record, predictions, datamodule, checkpoint)


def is_first_process() -> bool:
    """Tell whether this process speaks and writes for all; others are there with `trainer=ddp`."""
    return not rank_zero_only.rank


def build_datamodule(cfg: DictConfig) -> StackDataModule:
    """Open the data of a config, split; its cache is built where there is none."""
    cache = Cache.from_config(cfg)
    cache.ensure()
    datamodule = StackDataModule(
        cache,
        cfg.interval.frames,
        instantiate(cfg.augmentation),
        split=instantiate(cfg.split, _convert_="all"),
        seed=cfg.seed,
        labels=cfg.data.labels,
        pattern=cfg.data.get("pattern"),
        inputs=cfg.model.inputs,
        **cfg.loader,
    )
    datamodule.setup()
    return datamodule


def configure_module(cfg: DictConfig, datamodule: StackDataModule) -> ClassifierModule:
    """Build the module of a config for some data, its network with random weights.

    Raises:
        UserError: a setting is out of range.
    """
    if cfg.model.inputs == "landmarks":
        return build_module(
            "landmarks",
            num_images=datamodule.num_images,
            labels=datamodule.labels,
            **cfg.model.discriminant,
        )
    weights = cfg.loss.class_weights
    if weights not in (None, *CLASS_WEIGHTS):
        raise UserError(f"loss.class_weights={weights}: it is null, {' or '.join(CLASS_WEIGHTS)}")
    return build_module(
        "stacks",
        backbone=cfg.model.backbone,
        num_images=datamodule.num_images,
        labels=datamodule.labels,
        image_px=datamodule.image_px,
        hidden=cfg.model.hidden,
        dropout=tuple(cfg.model.dropout),
        fusion=cfg.model.fusion,
        normalize=cfg.model.normalize,
        channels_last=cfg.model.channels_last,
        freeze_epochs=cfg.model.freeze_epochs,
        class_weights=datamodule.class_weights(CLASS_WEIGHTS[weights]) if weights else None,
        label_smoothing=cfg.loss.label_smoothing,
        mixup=cfg.loss.mixup,
        optimizer=OmegaConf.to_container(cfg.optimizer),
        schedule=OmegaConf.to_container(cfg.schedule),
    )


def start_backbone(cfg: DictConfig, module: ClassifierModule) -> Pretrained:
    """Load the pretrained weights that a config asks for; warn if they are not available.

    The network is then compiled, if the config says so.
    """
    model = cfg.model
    if model.inputs == "landmarks":
        return Pretrained(False, "no backbone")
    pretrained = load_pretrained(module.network, model.backbone, model.pretrained, model.stem)
    if model.pretrained == "auto" and not pretrained.loaded:
        log.warning("WARNING: no pretrained weights; training starts from %s", pretrained.source)
    if model.compile:
        module.network.compile()  # in place, so that the names of its weights stay
    return pretrained


def describe_setup(
    cfg: DictConfig, datamodule: StackDataModule, module: ClassifierModule, pretrained: Pretrained
) -> dict:
    """Give what `metrics.json` tells of a run before it is trained."""
    rows = datamodule.rows
    return {
        "settings": {key: OmegaConf.to_container(cfg[key], resolve=True) for key in SETTINGS},
        "notice": cfg.data.notice,
        "split": {
            **datamodule.split.settings,
            "parts": describe_parts([row for of_split in rows.values() for row in of_split]),
        },
        "stacks": {split: len(of_split) for split, of_split in rows.items()},
        "clips": {s: len({row.clip for row in of_split}) for s, of_split in rows.items()},
        "num_images": datamodule.num_images,
        "image_px": datamodule.image_px,
        "parameters": num_parameters(module),
        "pretrained": vars(pretrained),
    }


def log_setup(cfg: DictConfig, setup: dict) -> None:
    """Say in a line what is about to be trained, and on how much; `setup` of `describe_setup`."""
    log.info(
        "%s, %d images of %d px, %s parameters; stacks: %s",
        model_title(cfg.model.backbone),
        setup["num_images"],
        setup["image_px"],
        f"{setup['parameters']:,}",
        ", ".join(f"{count} {split}" for split, count in setup["stacks"].items()),
    )


def show_run(loggers: Sequence[Logger], cfg: DictConfig, datamodule: StackDataModule) -> None:
    """Tell loggers what is about to be trained: the config, and to W&B some stacks."""
    settings = OmegaConf.to_container(cfg, resolve=True)
    settings["data"].pop("download_id", None)  # a private link does not belong on a dashboard
    for logger in loggers:
        logger.log_hyperparams(settings)
        if isinstance(logger, Wandb):
            logger.show_stacks(datamodule.train_dataloader())


def fit(
    cfg: DictConfig,
    run_dir: Path,
    module: ClassifierModule,
    datamodule: StackDataModule,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    start: Path | None,
) -> tuple[pl.Trainer, float]:
    """Train, in this process or in several.

    Args:
        cfg: the composed config.
        run_dir: the run's folder.
        module: is trained.
        datamodule: what on.
        loggers: take the curves.
        callbacks: of the trainer.
        start: the checkpoint to go on from; None to begin.

    Returns:
        The trainer, and the seconds that it took.

    Raises:
        UserError: the config asks for several processes without `trainer=ddp`.
    """
    num_processes = 1
    if cfg.trainer.strategy != "auto":
        num_processes = cfg.trainer.devices
    elif cfg.trainer.devices != 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: more than one need trainer=ddp")
    with processes(num_processes, command_of_cell(run_dir)):
        trainer = instantiate(
            cfg.trainer, logger=loggers, callbacks=callbacks, plugins=[WholeCheckpoints()]
        )
        start_s = time.monotonic()
        trainer.fit(module, datamodule=datamodule, ckpt_path=start, weights_only=True)
    return trainer, time.monotonic() - start_s


def command_of_cell(run_dir: Path) -> list[str]:
    """Give the command of another process of this cell, without the sweep that it may be in."""
    hydra = HydraConfig.get()
    arguments = sys.argv[1:] if hydra.mode == RunMode.RUN else hydra.overrides.task
    quiet = ["hydra.output_subdir=null", "hydra/job_logging=stdout"]
    return [sys.executable, __file__, *arguments, f"hydra.run.dir='{run_dir}'", *quiet]


def starting_checkpoint(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """Say where training goes on from.

    Args:
        ckpt_path: a file; `last`, the run's own; or None.
        run_dir: the run's folder.

    Returns:
        A file; None to begin anew, also where a run of that folder, or a cell of a sweep, had not
        come to the end of its first epoch.

    Raises:
        UserError: `last` of a folder that nobody has named.
    """
    if ckpt_path is None:
        return None
    if ckpt_path != "last":
        return Path(ckpt_path).absolute()
    path = run_dir / LAST
    if path.is_file():
        return path
    hydra = HydraConfig.get()
    named = any(override.startswith("hydra.run.dir=") for override in hydra.overrides.hydra)
    if hydra.mode == RunMode.RUN and not named:
        raise UserError("ckpt_path=last: of which run? Name its folder: hydra.run.dir=DIR")
    log.info("no %s yet: begins with epoch 1", path)
    return None


def predict(
    trainer: pl.Trainer, module: ClassifierModule, datamodule: StackDataModule, split: str
) -> Predictions:
    """Let a trained module say what it makes of every stack of a split.

    In this process alone, and as training has validated: on its device and in its precision.
    """
    module.eval().to(trainer.strategy.root_device)
    with torch.inference_mode(), trainer.precision_plugin.val_step_context():
        batches = [
            module.predict_step(module.transfer_batch_to_device(batch, module.device, 0), 0).cpu()
            for batch in datamodule.evaluation_dataloader(split)
        ]
    rows = datamodule.rows[split]
    return Predictions.of_rows(rows, datamodule.labels, torch.cat(batches).numpy())


def check_length(cfg: DictConfig) -> None:
    """Refuse epochs that can't be, and what can't be refitted, before hours of training.

    Raises:
        UserError: there are no epochs, there is no such kind of refitting, it would take several
            processes, or there are no val stacks that it could add.
    """
    if not (cfg.trainer.max_epochs or 0) >= 1:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: it is 1 or above")
    if cfg.refit not in (None, "best", "all"):
        raise UserError(f"refit={cfg.refit}: it is null, best or all")
    if cfg.refit and cfg.trainer.strategy != "auto":
        raise UserError("refit is for one process, trainer=ddp has more: say refit=null")
    if cfg.refit and cfg.loader.overfit:
        raise UserError("refit adds val stacks, trainer=overfit has none: say refit=null")


def refit(
    cfg: DictConfig,
    run_dir: Path,
    datamodule: StackDataModule,
    first: ClassifierModule,
    best_epoch: int,
) -> tuple[ClassifierModule, Path]:
    """Train once more, on the val stacks too, which have told by now how many epochs are good.

    Args:
        cfg: the composed config.
        run_dir: the run's folder.
        datamodule: of the run; its val stacks are train stacks from now on as well.
        first: the module that they were val stacks of.
        best_epoch: the number of the best epoch, counted from 1.

    Returns:
        The module, and its checkpoint.
    """
    epochs = best_epoch if cfg.refit == "best" else cfg.trainer.max_epochs
    datamodule.add_val_to_train()
    log.info("once more for %d epochs on %d stacks", epochs, len(datamodule.rows["train"]))
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule.first_epoch = 0
    module = configure_module(cfg, datamodule)
    start_backbone(cfg, module)
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback]
    trainer = instantiate(
        cfg.trainer,
        logger=False,
        callbacks=[c for c in callbacks if isinstance(c, (SeededEpochs, WeightAveraging))],
        enable_checkpointing=False,
        max_epochs=epochs,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=datamodule)
    checkpoint = run_dir / "refit.ckpt"
    trainer.save_checkpoint(checkpoint, weights_only=True)
    return module, checkpoint


def judge_run(predictions: Predictions, best_epoch: int) -> dict:
    """Judge what the best epoch says, and say how good the split is that is reported on.

    Returns:
        What `metrics.json` tells of it.
    """
    scores = judge_splits(predictions)
    reported_on = "test" if "test" in scores else "val"
    result = scores[reported_on]["stacks"]
    low, high = result["confidence"]["bounds"]["accuracy"]
    log.info(
        "best epoch %d on %d %s stacks: accuracy %.1f %% [%.1f, %.1f], UAR %.1f %%, "
        "macro-F1 %.1f %%%s",
        best_epoch,
        result["num"],
        reported_on,
        *(100 * score for score in (result["accuracy"], low, high)),
        *(100 * result[key] for key in ("uar", "macro_f1")),
        "; selected and reported on the same clips" if reported_on == "val" else "",
    )
    return {
        "selected_on": "val",
        "reported_on": reported_on,
        **{key: result[key] for key in ("accuracy", "uar", "macro_f1", "confusion")},
        "scores": scores,
    }


def log_calibration(calibrated: dict, reported_on: str) -> None:
    """Say what calibration does to the split that is reported on; see `Calibrator.calibrate`."""
    of_clips = calibrated[reported_on]["clips"]
    log.info(
        "temperature %.3g, set on val: calibration error %.1f %%, then %.1f %% on %d %s clips; "
        "unsure below %.1f %%: %d of them answered",
        calibrated["temperature"],
        *(100 * of_clips["ece"][when] for when in ("before", "after")),
        of_clips["num"],
        reported_on,
        100 * calibrated["unsure_below"],
        of_clips["answered"],
    )


def describe_recipe(
    cfg: DictConfig,
    datamodule: StackDataModule,
    calibration: Calibration,
    neutral: Sequence[float],
) -> Recipe:
    """Give what the model needs to be used on new clips."""
    return Recipe(
        title=f"{model_title(cfg.model.backbone)}, {datamodule.num_images} images, "
        f"trained on {cfg.data.name}",
        data=describe_data(cfg).removeprefix("data: "),
        labels=datamodule.labels,
        settings=datamodule.cache.settings,
        interval=cfg.interval.frames,
        image_px=datamodule.image_px,
        versions=package_versions(),
        inputs=cfg.model.inputs,
        neutral_label=cfg.data.neutral_label,
        neutral=neutral,
        **asdict(calibration),
    )


def show_result(
    loggers: Sequence[Logger],
    record: dict,
    predictions: Predictions,
    datamodule: StackDataModule,
    checkpoint: Path,
) -> dict:
    """Show W&B what came out, and end its run.

    Returns:
        What `metrics.json` tells of that run; nothing where there is none.
    """
    reported_on, place = record["reported_on"], {}
    for logger in (logger for logger in loggers if isinstance(logger, Wandb)):
        dataset = datamodule.evaluation_dataloader(reported_on).dataset
        logger.show_result(record, predictions.of_split(reported_on), dataset, checkpoint)
        place = {"wandb": logger.place}
        logger.finish()
    return place


if __name__ == "__main__":
    train()
