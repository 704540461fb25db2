"""The parts of a run, built from its config: data, module and recipe."""

import logging

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from emotion.cli import describe_data
from emotion.data.datamodule import StackDataModule
from emotion.evaluation.calibration import Calibration
from emotion.models.lightning_module import ClassifierModule, DiscriminantModule, EmotionModule
from emotion.models.pretrained import load_pretrained
from emotion.models.recipe import Recipe, package_versions
from emotion.models.titles import model_title
from emotion.stacks.build import CacheBuilder
from emotion.training.record import PretrainedWeights

log = logging.getLogger(__name__)

CLASS_WEIGHTS = {"balanced": 1.0, "root": 0.5}  # powers for StackDataModule.class_weights
NETWORK_KEYS = (  # of cfg.model, which are arguments of EmotionModule
    *("backbone", "hidden", "dropout", "fusion", "normalize", "channels_last", "freeze_epochs"),
)


def build_datamodule(cfg: DictConfig) -> StackDataModule:
    """Build the data module, with its stacks split; a missing cache is built first."""
    builder = CacheBuilder.from_config(cfg)
    builder.ensure()
    datamodule = StackDataModule(
        builder.cache,
        cfg.interval.frames,
        instantiate(cfg.augmentation),
        labels=cfg.data.labels,
        split=instantiate(cfg.split, _convert_="all"),
        pattern=cfg.data.get("pattern"),
        inputs=cfg.model.inputs,
        seed=cfg.seed,
        **cfg.loader,
    )
    datamodule.setup()
    return datamodule


def build_module(cfg: DictConfig, datamodule: StackDataModule) -> ClassifierModule:
    """Build the module, its network with random weights."""
    model = OmegaConf.to_container(cfg.model)
    shared = {"num_images": datamodule.num_images, "labels": datamodule.labels}
    if model["inputs"] != "stacks":
        return DiscriminantModule(model["inputs"], **shared, **model["discriminant"])
    weights = cfg.loss.class_weights
    return EmotionModule(
        **shared,
        **{key: model[key] for key in NETWORK_KEYS},
        image_px=datamodule.image_px,
        class_weights=datamodule.class_weights(CLASS_WEIGHTS[weights]) if weights else None,
        label_smoothing=cfg.loss.label_smoothing,
        mixup=cfg.loss.mixup,
        optimizer=OmegaConf.to_container(cfg.optimizer),
        schedule=OmegaConf.to_container(cfg.schedule),
    )


def start_backbone(cfg: DictConfig, module: ClassifierModule) -> PretrainedWeights:
    """Load the pretrained weights of the config, and compile the network if `model.compile`."""
    model = cfg.model
    if model.inputs != "stacks":
        return PretrainedWeights(loaded=False, source="no backbone")
    loaded, source = load_pretrained(module.network, model.backbone, model.pretrained, model.stem)
    if model.pretrained == "auto" and not loaded:
        log.warning(
            "WARNING: no pretrained weights; training starts from %s; with few clips, try "
            "model=blendshapes,face, which take seconds",
            source,
        )
    if model.compile:
        module.network.compile()  # in place, so that the names of its weights stay
    return PretrainedWeights(loaded=loaded, source=source)


def build_recipe(cfg: DictConfig, datamodule: StackDataModule, calibration: Calibration) -> Recipe:
    """Return what inference needs besides the weights."""
    return Recipe(
        title=f"{model_title(cfg.model.backbone, cfg.model.inputs)}, "
        f"{datamodule.num_images} images, trained on {cfg.data.name}",
        data=describe_data(cfg).removeprefix("data: "),
        labels=datamodule.labels,
        settings=datamodule.cache.settings,
        interval=cfg.interval.frames,
        image_px=datamodule.image_px,
        versions=package_versions(),
        inputs=cfg.model.inputs,
        temperature=calibration.temperature,
        unsure_below=calibration.unsure_below,
    )
