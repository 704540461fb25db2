"""The parts of a run, built from its config: data, module and recipe."""

import logging
from collections.abc import Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from emotion.cli import describe_data
from emotion.data.datamodule import StackDataModule
from emotion.errors import UserError
from emotion.evaluation.calibration import Calibration
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import Recipe, package_versions
from emotion.models.stack_classifier import load_pretrained
from emotion.stacks.cache import Cache
from emotion.training.record import PretrainedWeights

log = logging.getLogger(__name__)

CLASS_WEIGHTS = {"balanced": 1.0, "root": 0.5}  # powers for StackDataModule.class_weights


def build_datamodule(cfg: DictConfig) -> StackDataModule:
    """Build the data module, with its stacks split; a missing cache is built first."""
    datamodule = StackDataModule(
        Cache.from_config(cfg),
        cfg.interval.frames,
        instantiate(cfg.augmentation),
        split=instantiate(cfg.split, _convert_="all"),
        seed=cfg.seed,
        landmarks=cfg.model.landmarks,
        **cfg.loader,
    )
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def build_module(cfg: DictConfig, datamodule: StackDataModule) -> EmotionModule:
    """Build the module, its network with random weights.

    Raises:
        UserError: a setting is out of range.
    """
    weights = cfg.loss.class_weights
    if weights not in (None, *CLASS_WEIGHTS):
        raise UserError(f"loss.class_weights must be null, balanced or root, got {weights!r}")
    if cfg.loader.train_images is not None and cfg.model.fusion != "late":
        raise UserError(
            f"loader.train_images={cfg.loader.train_images}: model.fusion={cfg.model.fusion} needs "
            "all images of a stack, model.fusion=late does not"
        )
    module = EmotionModule(
        backbone=cfg.model.backbone,
        num_images=datamodule.num_images,
        labels=datamodule.labels,
        hidden=cfg.model.hidden,
        dropout=tuple(cfg.model.dropout),
        fusion=cfg.model.fusion,
        flips=cfg.model.flips,
        normalize=cfg.model.normalize,
        landmarks=cfg.model.landmarks,
        channels_last=cfg.model.channels_last,
        freeze_epochs=cfg.model.freeze_epochs,
        class_weights=datamodule.class_weights(CLASS_WEIGHTS[weights]) if weights else None,
        label_smoothing=cfg.loss.label_smoothing,
        mixup=cfg.loss.mixup,
        optimizer=OmegaConf.to_container(cfg.optimizer),
        schedule=OmegaConf.to_container(cfg.schedule),
    )
    geometry = module.network.geometry
    if geometry is not None:
        geometry.fit(*datamodule.landmarks_of("train"), **cfg.model.discriminant)
        geometry.calibrate(*datamodule.landmarks_of("val"))
    return module


def start_backbone(cfg: DictConfig, module: EmotionModule) -> PretrainedWeights:
    """Load the pretrained weights that the config names, and compile the network if it says so."""
    model = cfg.model
    pretrained = load_pretrained(
        module.network, model.backbone, model.pretrained, model.stem, model.pretrained_head
    )
    if model.pretrained == "auto" and not pretrained.loaded:
        log.warning("WARNING: no pretrained weights; training starts from %s", pretrained.source)
    if model.compile:
        module.network.compile()  # in place, so that the names of its weights stay
    return PretrainedWeights.model_validate(pretrained, from_attributes=True)


def build_recipe(
    cfg: DictConfig,
    datamodule: StackDataModule,
    calibration: Calibration,
    neutral: Sequence[float],
) -> Recipe:
    """Return what inference needs besides the weights; `neutral` is from `mean_neutral`."""
    return Recipe(
        title=f"{cfg.model.title}, {datamodule.num_images} images, trained on {cfg.data.name}",
        data=describe_data(cfg).removeprefix("data: "),
        labels=datamodule.labels,
        settings=datamodule.cache.settings,
        interval=cfg.interval.frames,
        image_px=datamodule.image_px,
        versions=package_versions(),
        landmarks=cfg.model.landmarks,
        neutral=neutral,
        temperature=calibration.temperature,
        unsure_below=calibration.unsure_below,
    )
