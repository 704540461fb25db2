"""The schema of the config: every option of every group fits it, and mistakes are named."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from emotion.cli import CONF_DIR
from emotion.config import SCHEMAS, check_config, did_you_mean, known_keys
from emotion.errors import UserError

HYDRA_GROUPS = {"hydra/launcher", "hydra/sweeper"}
REQUIRED = {  # what an option has no default for
    "data=csv": ["data.list=/clips/clips.csv"],
    "executor=dask": ["executor.address=tcp://10.0.0.1:8786"],
    "model=timm": ["model.backbone=resnet10t"],
}


def groups_of(primary: str) -> set[str]:
    """Read the groups that the defaults list of a primary config names, included files too."""
    found = set()
    content = yaml.safe_load((CONF_DIR / f"{primary}.yaml").read_text())
    for default in content["defaults"]:
        if isinstance(default, dict):
            found |= set(default)
        elif default != "_self_":
            found |= groups_of(default)
    return found


def options_of(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def chosen(experiment: str) -> set[str]:
    """Give the groups that an experiment chooses an option of."""
    content = yaml.safe_load((CONF_DIR / "experiment" / f"{experiment}.yaml").read_text())
    defaults = content.get("defaults", [])
    return {key.removeprefix("override /") for entry in defaults for key in entry}


def overridden(experiment: str) -> set[str]:
    """Give the groups that an experiment chooses an option of, or sets keys of."""
    content = yaml.safe_load((CONF_DIR / "experiment" / f"{experiment}.yaml").read_text())
    return chosen(experiment) | (set(content) & groups_of("train"))


def covering_rows(groups: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Choose one option of every group at a time, until every option was chosen."""
    count = max(len(options) for options in groups.values())
    rows = []
    for number in range(count):
        rows.append([])
        for group, options in groups.items():
            choice = f"{group}={options[number % len(options)]}"
            rows[-1] += [f"{group}='{choice.partition('=')[2]}'", *REQUIRED.get(choice, [])]
    return rows


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[..., DictConfig]]:
    """Give a function that composes configs; Hydra is initialized once for the module."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield lambda primary, *overrides: hydra_compose(
            primary, list(overrides), return_hydra_config=True
        )


PREPROCESS_OPTIONS = {
    "data": options_of("data"),
    "executor": options_of("executor"),
    "experiment": [e for e in options_of("experiment") if chosen(e) <= groups_of("preprocess")],
}
PREPROCESS_ROWS = covering_rows(PREPROCESS_OPTIONS)
TRAIN_GROUPS = sorted((groups_of("train") | HYDRA_GROUPS) - {"experiment"})
TRAIN_ROWS = covering_rows({group: options_of(group) for group in TRAIN_GROUPS})
EXPERIMENT_ROWS = [
    (experiment, row)
    for experiment in options_of("experiment")
    for row in covering_rows(
        {group: options_of(group) for group in sorted({"data", *overridden(experiment)})}
    )
]


def test_every_folder_of_conf_is_a_group_of_a_script():
    folders = {
        path.parent.relative_to(CONF_DIR).as_posix() for path in CONF_DIR.glob("*/**/*.yaml")
    }
    assert folders == groups_of("train") | HYDRA_GROUPS
    assert groups_of("preprocess") == {"data", "executor", "experiment"}


@pytest.mark.parametrize("row", TRAIN_ROWS, ids=" ".join)
def test_every_option_fits_the_schema(composed: Callable, row: list[str]):
    check_config("train", composed("train", "data.root=/clips", *row))


@pytest.mark.parametrize("row", PREPROCESS_ROWS, ids=" ".join)
def test_every_option_fits_the_schema_of_preprocess(composed: Callable, row: list[str]):
    check_config("preprocess", composed("preprocess", "data.root=/clips", *row))


@pytest.mark.parametrize(
    ("experiment", "row"), EXPERIMENT_ROWS, ids=[f"{e} {' '.join(r)}" for e, r in EXPERIMENT_ROWS]
)
def test_an_experiment_survives_other_options(composed: Callable, experiment: str, row: list[str]):
    cfg = composed("train", "data.root=/clips", f"experiment={experiment}", *row)
    check_config("train", cfg)
    for choice in row:
        group, _, option = choice.partition("=")
        if group in TRAIN_GROUPS:
            assert cfg.hydra.runtime.choices[group] == option.strip("'")
    if any(choice.startswith("interval=") for choice in row):  # the option's value stands
        assert f"interval='{cfg.interval.frames}'" in row


@pytest.fixture(scope="module")
def good(composed: Callable) -> dict[str, DictConfig]:
    """Give a valid config of every script."""
    return {
        "train": composed("train"),
        "preprocess": composed("preprocess"),
        "predict": composed("predict", "model_path=run", "clips=in"),
        "evaluate": composed("evaluate", "model_path=run"),
    }


MISTAKES = [
    ("loader.image_px", "small"),
    ("loader.image_px", 0),
    ("loader.image_px", 64.0),
    ("loader.num_workers", -1),
    ("loader.batch_size", True),
    ("callbacks.best", None),
    ("trainer.max_epochs", 0),
    ("trainer.max_epochs", "abc"),
    ("trainer.max_epochs", 1.5),
    ("trainer.max_epochs", [1]),
    ("trainer.accelerator", "quantum"),
    ("trainer.precision", "8-bit"),
    ("trainer.enable_progress_bar", "yes"),
    ("augmentation.flip", 2),
    ("augmentation.flip", "often"),
    ("augmentation.strength", -1),
    ("optimizer.lr", "high"),
    ("optimizer.lr", None),
    ("optimizer.lr", 0),
    ("optimizer.lr", float("nan")),
    ("schedule.lr_decay", "slow"),
    ("schedule.name", "zigzag"),
    ("split.name", "lottery"),
    ("model.dropout", 0.5),
    ("model.dropout", [0.5]),
    ("model.dropout", [0.5, 1.0]),
    ("model.stem", "median"),
    ("model.discriminant.shrinkage", 0),
    ("loss.class_weights", "heavy"),
    ("loss.label_smoothing", 1.0),
    ("calibration.accuracy", 1),
    ("interval.frames", "5"),
    ("seed", -1),
    ("data.labels", ["Happy"]),
    ("data.labels", "Happy"),
    ("data.labels", ["Happy", "Neutral", "Happy"]),
    ("data.label_map", {"01": 1}),
    ("data.min_frames", 7.5),
    ("data.min_frames", 91),
    ("data.kind", "songs"),
    ("data.split.val", [3]),
    ("sampling.interval", None),
    ("sampling.min_face_fraction", 1.5),
    ("face.tracking", ["none"]),
    ("face.margin", -0.1),
    ("paths.cache", {"a": 1}),
    ("paths.cache", None),
    ("loader", None),
    ("num_workers", 0),
]


def named_key(primary: str, cfg: DictConfig) -> str:
    """Give the key that a refusal starts with; the refusal is one line."""
    with pytest.raises(UserError) as refusal:
        check_config(primary, cfg)
    (line,) = str(refusal.value).splitlines()
    return line.split(" ")[0]


def changed(cfg: DictConfig, key: str, value: Any) -> DictConfig:
    copy = cfg.copy()
    with open_dict(copy):
        OmegaConf.update(copy, key, value, merge=False)
    return copy


@pytest.mark.parametrize(("key", "value"), MISTAKES)
def test_a_wrong_value_is_named_with_its_key(good: dict, key: str, value: Any):
    assert named_key("train", changed(good["train"], key, value)) == key


@pytest.mark.parametrize(
    ("key", "value"),
    [("unsure_below", "high"), ("unsure_below", 1.5), ("stride", 0), ("render", 1),
     ("num_workers", 0), ("clips", {"a": 1}), ("model_path", None)],
)  # fmt: skip
def test_a_wrong_value_of_predict_is_named_with_its_key(good: dict, key: str, value: Any):
    assert named_key("predict", changed(good["predict"], key, value)) == key


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_path", None), ("person", 2), ("min_frames", 0), ("sampling.interval", 5)],
)
def test_a_wrong_value_of_evaluate_is_named_with_its_key(good: dict, key: str, value: Any):
    check_config("evaluate", good["evaluate"])
    assert named_key("evaluate", changed(good["evaluate"], key, value)) in (key, "sampling")


def test_predict_takes_clips_or_a_source(good: dict):
    check_config("predict", good["predict"])
    assert named_key("predict", changed(good["predict"], "source", 0)) == "clips=PATH"
    check_config("predict", changed(changed(good["predict"], "source", 0), "clips", None))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", 1),
        ("optimizer.momentum", 0.9),  # another argument of a class in torch.optim
        ("trainer.fast_dev_run", True),  # another argument of Lightning's Trainer
        ("trainer.devices", "auto"),
        ("model.pretrained", True),
        ("model.pretrained", "/weights/a.pth"),
        ("model.dropout", [0, 0.3]),
        ("callbacks.last", None),
        ("callbacks.mine", {"_target_": "my.Callback", "speed": 3}),
        ("augmentation", {"_target_": "my.Noise", "strength": 1.0, "noise": 8}),
        ("data.name", 2024),
        ("loader.image_px", 64),
        ("paths.output", "${paths.cache}/out"),
    ],
)
def test_a_right_value_passes(good: dict, key: str, value: Any):
    check_config("train", changed(good["train"], key, value))


@pytest.mark.parametrize("primary", SCHEMAS)
def test_unknown_keys_are_refused_everywhere(good: dict, primary: str):
    check_config(primary, good[primary])
    assert named_key(primary, changed(good[primary], "extra", 1)) == "extra"
    assert named_key(primary, changed(good[primary], "paths.extra", 1)) == "paths.extra"


@pytest.mark.parametrize("key", ["split.fold", "schedule.warmup"])
def test_a_key_of_another_option_is_refused(good: dict, key: str):
    assert named_key("train", changed(good["train"], key, 0)) == key


def test_a_removed_key_and_a_value_that_must_be_given_are_named(good: dict):
    cfg = good["train"].copy()
    with open_dict(cfg):
        del cfg.trainer.max_epochs
    assert named_key("train", cfg) == "trainer.max_epochs"
    with pytest.raises(UserError, match=r"data\.root"):
        check_config("train", changed(good["train"], "data.root", "???"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("modle", "model"),
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("data.rot", "data.root"),
        ("samplng.interval", "sampling.interval"),
        ("split.folds_", "split.folds"),
    ],
)
def test_the_closest_key_is_suggested(typed: str, meant: str):
    assert f" {meant}?" in did_you_mean(typed, known_keys(SCHEMAS["train"]))
    assert did_you_mean("xyzzy", known_keys(SCHEMAS["train"])) == ""


@pytest.mark.slow
def test_everything_that_training_instantiates_can_be_made(composed: Callable, tmp_path: Path):
    import torch
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    for row in TRAIN_ROWS:
        cfg = composed("train", "data.root=/clips", f"hydra.runtime.output_dir={tmp_path}", *row)
        HydraConfig.instance().set_config(cfg)
        try:
            instantiate(cfg.augmentation)
            assert instantiate(cfg.split, _convert_="all").name == cfg.split.name
            callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback]
            if cfg.trainer.accelerator == "gpu" and not torch.cuda.is_available():
                cfg.trainer.accelerator = "cpu"
                cfg.trainer.precision = "32-true"
            trainer = instantiate(cfg.trainer, logger=False, callbacks=callbacks)
            assert trainer.max_epochs == cfg.trainer.max_epochs
        finally:
            HydraConfig.instance().cfg = None


def test_a_missing_accelerator_is_refused_before_stacks_are_cut(
    composed: Callable, monkeypatch: pytest.MonkeyPatch
):
    from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

    from emotion.training.run import build_trainer

    for accelerator in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu"):
        build_trainer(composed("train", "trainer=gpu"), [])
    with pytest.raises(UserError, match="speed"):
        build_trainer(composed("train", "trainer=cpu", "+trainer.speed=9"), [])
    build_trainer(composed("train", "trainer=cpu"), [])


def test_experiments_open_with_the_command_that_runs_them():
    for path in CONF_DIR.glob("experiment/*.yaml"):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any(f"experiment={path.stem}" in line for line in comment), path
