"""One run, from its composed config to its record."""

import logging
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from emotion.cli import config_tree, describe_data
from emotion.data.datamodule import StackDataModule
from emotion.data.split import count_parts
from emotion.errors import UserError
from emotion.evaluation.calibration import fit_calibration
from emotion.evaluation.learning_curve import FEATURES_FILE, fit_person
from emotion.evaluation.metrics import judge_splits
from emotion.evaluation.person_file import PERSON_FILE, person_to_bytes
from emotion.evaluation.predictions import PREDICTIONS_FILE
from emotion.files import file_digest, unfinished
from emotion.models.lightning_module import ClassifierModule
from emotion.models.recipe import RECIPE_FILE
from emotion.models.stack_classifier import check_backbone, num_parameters
from emotion.models.sync_batch_norm import TimmSyncBatchNorm
from emotion.models.titles import model_title
from emotion.models.weights import load_weights, read_checkpoint
from emotion.provenance import provenance
from emotion.stacks.build_report import count_dropped
from emotion.training.build import build_datamodule, build_module, build_recipe, start_backbone
from emotion.training.cell import (
    CURVES_FILE,
    cell_id,
    clear,
    describe_cell,
    sweep_name,
    wandb_dir,
    why_run,
)
from emotion.training.checkpoint import (
    LAST,
    WholeCheckpoints,
    best_beside,
    load_checkpoint,
    starting_checkpoint,
)
from emotion.training.evaluate import clip_features, log_calibration, log_scores, predict_splits
from emotion.training.loggers import Curves, Wandb, finish_wandb
from emotion.training.ranks import main_process_announced, run_alone
from emotion.training.record import (
    FinishedRun,
    Throughput,
    predict_command,
    read_record,
    write_record,
)
from emotion.training.throughput import TrainClock, ms_per_stack

log = logging.getLogger(__name__)

# The sections of the config that the record repeats; the whole config is in .hydra/config.yaml.
SETTINGS = (
    *("sampling", "face", "interval", "model", "augmentation"),
    *("loss", "optimizer", "schedule", "loader", "trainer"),
)
HARMLESS_WARNINGS = (  # Lightning's, about what is intended
    ".*does not have many workers.*",  # evaluation loads between steps; see loader.num_workers
    ".*Experiment logs directory .* exists and is not empty.*",  # its curves are taken over or old
    ".*Checkpoint directory .* exists and is not empty.*",  # Hydra has put its config there
    ".*smaller than the logging interval.*",  # curves have a point per epoch
    "find_unused_parameters=True was specified.*",  # it is for the epochs of a frozen backbone
    ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    ".*this fit will run with no optimizer.*",  # model=landmarks is fitted before
    "`training_step` returned `None`.*",  # likewise
    ".*`srun` command is available.*",  # Slurm is installed, and not in use
)


def train(cfg: DictConfig) -> float | None:
    """Run one cell that is no job of a sweep; return the validation accuracy of its best epoch."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if not is_first_process():
        logging.getLogger().setLevel(logging.ERROR)
        run_cell(cfg, run_dir)
        return None
    if sys.stdout.isatty():
        Console().print(config_tree(cfg))
    if cfg.ckpt_path == "last" and why_run(cfg, run_dir) is None:
        log.info("%s holds this run, finished", run_dir)
        record = read_record(run_dir)
    else:
        record = run_cell(cfg, run_dir)
    return record.val_accuracy if isinstance(record, FinishedRun) else None


def run_cell(
    cfg: DictConfig, run_dir: Path, callbacks: Sequence[Callback] = ()
) -> FinishedRun | None:
    """Train one model, evaluate its best epoch, and write everything to the run's folder.

    The record is written last; then the optimizer's state, which only an unfinished run needs, is
    removed. Other processes of `trainer=ddp` return None.
    """
    hydra = HydraConfig.get()
    if cfg.trainer.strategy != "auto" and hydra.mode == RunMode.MULTIRUN:
        # that command is no sweep, and could not tell W&B the name of this one
        ours = {"group": sweep_name(), "save_dir": wandb_dir()} if "wandb" in cfg.logger else {}
        more = [f"logger.wandb.{key}='{value}'" for key, value in ours.items()]
        run_alone([*hydra.overrides.task, *more], run_dir)
        return read_record(run_dir)
    try:
        record = train_and_evaluate(cfg, run_dir, callbacks)
    except BaseException as error:
        finish_wandb()
        if isinstance(error, SystemExit):  # Lightning's, after Ctrl-C
            raise error.__context__ or error from None
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            raise UserError(
                "a process that loads stacks was killed, for example for lack of memory; "
                "loader.num_workers=0 loads in the main process, and "
                f"hydra.run.dir={run_dir} ckpt_path=last resumes the run"
            ) from error
        raise
    if record is not None:
        write_record(run_dir, record)
        (run_dir / LAST).unlink(missing_ok=True)
        log.info("run: %s", run_dir)
        log.info("predict with: %s", predict_command(run_dir))
    return record


def train_and_evaluate(
    cfg: DictConfig, run_dir: Path, more_callbacks: Sequence[Callback]
) -> FinishedRun | None:
    """Do the work of `run_cell` up to the record, which is returned."""
    log.info(describe_data(cfg))
    for pattern in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    callbacks = {name: instantiate(c) for name, c in cfg.callbacks.items() if c is not None}
    clock = TrainClock()
    trainer = build_trainer(cfg, [*callbacks.values(), clock, *more_callbacks])
    if cfg.model.inputs == "stacks":
        check_backbone(cfg.model.backbone)  # before any stack is cut, too
    datamodule = build_datamodule(cfg)
    module = build_module(cfg, datamodule)
    start, epochs_done = find_start(cfg, run_dir, module)
    pretrained = start_backbone(cfg, module)
    stacks = ", ".join(f"{len(rows)} {split}" for split, rows in datamodule.rows.items())
    log.info(
        f"{model_title(cfg.model.backbone, cfg.model.inputs)}, {datamodule.num_images} images of "
        f"{datamodule.image_px} px, {num_parameters(module):,} parameters; stacks: {stacks}"
    )
    loggers = build_loggers(cfg, run_dir, datamodule, start, epochs_done)
    trainer.loggers = loggers
    datamodule.first_epoch = epochs_done
    start_s = time.monotonic()
    with main_process_announced():
        trainer.fit(module, datamodule=datamodule, ckpt_path=start, weights_only=True)
    seconds = time.monotonic() - start_s
    if not is_first_process():
        return None

    best = callbacks["best"]
    checkpoint = Path(best.best_model_path)
    kept = read_checkpoint(checkpoint)
    load_weights(module, kept["state_dict"], str(checkpoint))
    best_epoch = kept["epoch"] + 1
    raw = predict_splits(trainer, module, datamodule)
    raw.write(run_dir / PREDICTIONS_FILE)
    calibration = fit_calibration(raw, cfg.calibration.accuracy)
    predictions = raw.calibrated(calibration.temperature)
    scores = judge_splits(predictions)
    reported_on = "test" if "test" in scores else "val"
    log_scores(scores[reported_on], reported_on, best_epoch)
    log_calibration(calibration, reported_on)
    build_recipe(cfg, datamodule, calibration).write(run_dir / RECIPE_FILE)
    module.to(trainer.strategy.root_device)
    written = [PREDICTIONS_FILE, RECIPE_FILE, checkpoint.name]
    if (run_dir / CURVES_FILE).is_file():
        written.append(CURVES_FILE)
    if all(row.subject for rows in datamodule.rows.values() for row in rows):
        features = clip_features(module, datamodule)
        features.write(run_dir / FEATURES_FILE)
        written.append(FEATURES_FILE)
        if (person := fit_person(features)) is not None:
            with unfinished(run_dir / PERSON_FILE) as temporary:
                temporary.write_bytes(person_to_bytes(person))
            written.append(PERSON_FILE)
    wandb_loggers = [logger for logger in loggers if isinstance(logger, Wandb)]
    record = FinishedRun(
        **dict(describe_cell(cfg, HydraConfig.get())),
        settings={key: OmegaConf.to_container(cfg[key], resolve=True) for key in SETTINGS},
        notice=cfg.data.notice,
        parts=count_parts([row for rows in datamodule.rows.values() for row in rows]),
        stacks={split: len(rows) for split, rows in datamodule.rows.items()},
        clips={split: len({row.clip for row in rows}) for split, rows in datamodule.rows.items()},
        num_images=datamodule.num_images,
        image_px=datamodule.image_px,
        parameters=num_parameters(module),
        pretrained=pretrained,
        epochs=trainer.current_epoch,
        best_epoch=best_epoch,
        seconds=round(seconds, 1),
        val_accuracy=best.best_model_score.item(),
        reported_on=reported_on,
        scores=scores,
        calibration=calibration,
        checkpoint=checkpoint.name,
        files={name: file_digest(run_dir / name) for name in written},
        cache=str(datamodule.cache.directory),
        manifest_sha256=datamodule.cache.manifest_sha256(),
        dropped=count_dropped(datamodule.cache.dropped(), datamodule.cache.manifest()),
        throughput=Throughput(
            train_stacks_per_s=clock.stacks_per_s,
            ms_per_stack=ms_per_stack(module, module.example(1, datamodule.image_px)),
        ),
        provenance=provenance(),
        wandb=wandb_loggers[0].place if wandb_loggers else None,
    )
    for logger in wandb_loggers:
        dataset = datamodule.evaluation_dataloader(reported_on).dataset
        logger.show_result(record, predictions.of_split(reported_on), dataset, checkpoint)
        logger.finish()
    return record


def build_trainer(cfg: DictConfig, callbacks: list[Callback]) -> pl.Trainer:
    """Build the trainer, without loggers: a wrong setting fails before any stack is cut."""
    if cfg.trainer.strategy == "auto" and cfg.trainer.devices != 1:
        raise UserError(f"trainer.devices={cfg.trainer.devices}: more than one needs trainer=ddp")
    plugins = [WholeCheckpoints(), TimmSyncBatchNorm()]
    for package in ("pytorch_lightning", "lightning_fabric"):  # their import has set INFO
        logging.getLogger(package).setLevel(logging.WARNING)
    try:
        return instantiate(cfg.trainer, logger=False, callbacks=callbacks, plugins=plugins)
    except InstantiationException as error:
        named = " ".join(f"trainer.{key}={cfg.trainer[key]}" for key in ("accelerator", "devices"))
        raise UserError(f"{named}: {error.__cause__ or error}") from None


def is_first_process() -> bool:
    """Return whether this process logs and writes; `trainer=ddp` has others."""
    return not rank_zero_only.rank


def find_start(cfg: DictConfig, run_dir: Path, module: ClassifierModule) -> tuple[Path | None, int]:
    """Find the checkpoint to resume from, and remove results of an earlier run of the folder.

    Returns:
        The file, None to start with the first epoch; and the number of completed epochs.
    """
    hydra = HydraConfig.get()
    given = any(override.startswith("hydra.run.dir=") for override in hydra.overrides.hydra)
    named = given or hydra.mode == RunMode.MULTIRUN
    start = starting_checkpoint(cfg.ckpt_path, run_dir, named=named)
    epochs_done = 0
    try:
        if start:
            checkpoint = load_checkpoint(start, module)
            best = best_beside(checkpoint, start)
            epochs_done = checkpoint["epoch"] + 1
            log.info("resumes after epoch %d of %s", epochs_done, start)
        elif cfg.ckpt_path == "last":
            log.info("no %s yet: starts with epoch 1", run_dir / LAST)
    except UserError as error:
        if hydra.mode != RunMode.MULTIRUN or cfg.ckpt_path != "last":
            raise
        log.warning("WARNING: starts with epoch 1: %s", error)
        start = None
    if is_first_process():
        clear(run_dir, but_for_training=start is not None)
        if start and best.resolve().parent != run_dir.resolve():
            with unfinished(run_dir / best.name) as temporary:
                shutil.copyfile(best, temporary)
    return start, epochs_done


def build_loggers(
    cfg: DictConfig,
    run_dir: Path,
    datamodule: StackDataModule,
    start: Path | None,
    epochs_done: int,
) -> list[Logger]:
    """Build the loggers of the config, resumed if training is, and log the config to them."""
    if not is_first_process():
        return []
    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    settings = OmegaConf.to_container(cfg, resolve=True)
    settings["data"].pop("download_id", None)  # a private link does not belong on a dashboard
    for logger in loggers:
        if start and isinstance(logger, Curves):
            logger.go_on(start.parent, epochs_done - 1)
        if isinstance(logger, Wandb):
            resumes = start is not None and start.parent.resolve() == run_dir.resolve()
            logger.start(run_dir, cell_id(cfg), resumes=resumes)
        logger.log_hyperparams(settings)
        if isinstance(logger, Wandb):
            logger.show_stacks(datamodule.train_dataloader())
    return loggers
