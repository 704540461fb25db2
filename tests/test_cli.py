"""The command line: integers as options, kinds of values, one line for a mistake, every config."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import CategoricalDistribution
from pytorch_lightning.loggers import Logger
from rich.console import Console

from emotion import cli as config_module
from emotion.cli import (
    CONF_DIR,
    REPOSITORY,
    check_value_types,
    config_tree,
    describe_data,
    entry,
    quote_integer_options,
)
from emotion.data.augmentation import Augmentation
from emotion.data.split import Split
from emotion.errors import UserError
from emotion.stacks.cache import Cache
from emotion.sweeps.search import Space

PRIMARY = ("preprocess", "train")


# Integers as options of a group


@pytest.fixture
def invented(tmp_path: Path) -> Path:
    """Give a conf folder with a group that nobody has heard of, and one within another."""
    for name in ("shoe_size/42.yaml", "shoe_size/43.yaml", "deep/er/7.yaml", "main.yaml"):
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("value: 1\n" if name != "main.yaml" else "seed: 0\n")
    return tmp_path / "conf"


@pytest.mark.parametrize(
    ("typed", "quoted"),
    [
        ("shoe_size=42", "shoe_size='42'"),
        ("+shoe_size=42", "+shoe_size='42'"),
        ("shoe_size=42,43", "shoe_size='42','43'"),
        ("shoe_size=range(40,46,2)", "shoe_size='40','42','44'"),
        ("shoe_size=choice(42,43)", "shoe_size='42','43'"),
        ("deep/er=7", "deep/er='7'"),
    ],
)
def test_integers_for_any_group_are_quoted(invented: Path, typed: str, quoted: str):
    assert quote_integer_options([typed], invented) == [quoted]


@pytest.mark.parametrize(
    "argument",
    [
        "interval=5",  # no group here
        "seed=3",
        "seed=1,2,3",
        "main=5",
        "shoe_size.value=42",
        "shoe_size=large",
        "shoe_size=large,small",
        "shoe_size='42'",
        'shoe_size="42"',
        "shoe_size=null",
        "~shoe_size",
        "-m",
        "--multirun",
        "--cfg=job",
        "--config-name",
        "main",
        "--config-dir=/tmp/other=dir",
        "name='a b=c'",
        'name="it\'s, well"',
        "values=[1,2]",
        "nested={a:1}",
        "shoe_size=",
        "",
        "broken=[1,",
    ],
)
def test_all_other_arguments_stay_as_typed(invented: Path, argument: str):
    assert quote_integer_options([argument], invented) == [argument]


def test_arguments_keep_their_order(invented: Path):
    typed = ["-m", "shoe_size=42,43", "seed=1", "deep/er=7"]
    assert quote_integer_options(typed, invented) == [
        "-m",
        "shoe_size='42','43'",
        "seed=1",
        "deep/er='7'",
    ]


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        ("interval=5", [5]),
        ("interval='5'", [5]),
        ("interval=5,10,15", [5, 10, 15]),
        ("interval=range(5,20,5)", [5, 10, 15]),
        ("interval=choice(15,5)", [15, 5]),
        ("interval=5,'10'", [5, 10]),
        ("interval='5',10", [5, 10]),
    ],
)
def test_hydra_takes_the_interval_as_typed(compose: Callable, typed: str, jobs: list[int]):
    parsed = OverridesParser.create().parse_overrides(quote_integer_options([typed]))
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    assert [compose("train", job).interval.frames for job in batch] == jobs


def test_hydra_alone_would_refuse_the_integer(compose: Callable):
    with pytest.raises(ValueError, match="must be a string or a list"):
        compose("train", ["interval=5"])


def test_the_literal_sweep_has_nine_jobs(compose: Callable):
    typed = ["model=mobilenetv3,effv2s,effv2m", "interval=5,10,15"]
    parsed = OverridesParser.create().parse_overrides(quote_integer_options(typed))
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    cells = [(cfg.model.name, cfg.interval.frames) for cfg in (compose("train", j) for j in batch)]
    assert cells == [(m, i) for m in ("mobilenetv3", "effv2s", "effv2m") for i in (5, 10, 15)]


# Kinds of values


@pytest.fixture
def check() -> Iterator[Callable[..., None]]:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield lambda *overrides: check_value_types("train", list(overrides))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.max_epochs=abc", "trainer.max_epochs takes a whole number"),
        (
            "trainer.max_epochs=1.5",
            "trainer.max_epochs takes a whole number such as 50, not the number 1.5",
        ),
        ("trainer.max_epochs=[1]", "trainer.max_epochs takes a whole number"),
        ("trainer.max_epochs=true", "trainer.max_epochs takes a whole number"),
        ("optimizer.lr=high", "optimizer.lr takes a number"),
        (
            "data.min_frames=7.5",
            "data.min_frames takes a whole number such as 75, not the number 7.5",
        ),
        ("loader=5", "loader takes a mapping"),
        ("sampling.interval=null", "sampling.interval takes a whole number"),
        ("optimizer.lr=null", "optimizer.lr takes a number"),
        ("model.dropout=0.5", "model.dropout takes a list"),
        ("labels=Happy", "labels takes a list"),
        ("trainer.enable_progress_bar=5", "trainer.enable_progress_bar takes a switch"),
        ("trainer.enable_progress_bar=yes", "trainer.enable_progress_bar takes a switch"),
        ("sampling.interval=abc", "sampling.interval takes a whole number"),
        (
            "sampling.interval=5.0",
            "sampling.interval takes a whole number such as 5, not the number 5.0",
        ),
        ("face.tracking=[none]", "face.tracking takes a text"),
        ("paths.cache={a:1}", "paths.cache takes a text"),
    ],
)
def test_value_of_another_kind_is_refused_with_key_and_example(
    check: Callable, override: str, says: str
):
    with pytest.raises(UserError) as refusal:
        check("seed=1", override)
    assert says in str(refusal.value)
    assert str(refusal.value).startswith(f"{override}: ")


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_epochs=3",
        "optimizer.lr=1",
        "optimizer.lr=1e-3",
        "optimizer.weight_decay=0",
        "face.margin=0",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "model.dropout=[0.1,0.2]",
        "model.pretrained=true",  # anything plain is also a text
        "model.pretrained=auto",
        "model.pretrained=/weights/a.pth",
        "face.tracking=none",
        "data.labels=[Happy,Sad]",
        "loader.image_px=64",  # null in the config
        "num_workers=2",
        "loader=null",
        "labels=null",
        "paths.cache=null",
        "+trainer.fast_dev_run=true",
        "+trainer.limit_train_batches=0.5",
        "~trainer.devices",
        "data.root=/clips",
        "model=effv2s",
        "interval='5'",
    ],
)
def test_value_of_the_same_kind_passes(check: Callable, override: str):
    check(override)
    check("model=effv2m", override) if not override.startswith("model=") else None


def test_value_is_compared_with_the_option_that_is_chosen(check: Callable):
    check("trainer=gpu", "trainer.precision=bf16-mixed")
    with pytest.raises(UserError, match=r"trainer\.precision takes a text"):
        check("trainer=gpu", "trainer.precision=[16]")


def test_value_over_an_experiment_is_compared_with_the_standard(check: Callable):
    check("experiment=smoke", "model.pretrained=auto", "callbacks.last.filename=x")
    with pytest.raises(UserError, match=r"trainer\.max_epochs"):
        check("experiment=smoke", "trainer.max_epochs=abc")


def test_first_of_several_mistakes_is_named(check: Callable):
    with pytest.raises(UserError, match=r"optimizer\.lr=high"):
        check("seed=1", "optimizer.lr=high", "trainer.max_epochs=abc")


def test_nothing_given_is_nothing_to_check():
    assert not GlobalHydra.instance().is_initialized()
    check_value_types("train", [])


# Entry points, in this process


@pytest.fixture
def preprocess(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Give a function that runs preprocess.py with a command line, away from this repository."""
    from preprocess import preprocess as run_entry

    monkeypatch.setattr(config_module, "load_dotenv", lambda path: None)

    def run(*arguments: str) -> None:
        paths = [f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}/outputs"]
        monkeypatch.setattr(sys, "argv", ["preprocess.py", *arguments, *paths])
        run_entry()

    return run


def refusal_of(run: Callable[..., None], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        run(*arguments)
    line = exit_.value.code
    assert isinstance(line, str)
    assert line.startswith("error: ")
    assert len(line.splitlines()) == 1
    return line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["data=celebrities"], ["data=celebrities", "demo", "javanese", "scrapping"]),
        (
            ["experiment=gigantic", "data=scrapping", "data.root=/no/such/folder"],
            ["experiment=gigantic", "smoke"],
        ),
        (["data=7.5"], ["data", "7.5"]),
        (["data=true"], ["data"]),
        (["data.rot=/clips"], ["data.rot", "rot"]),
        (["samplng.interval=5"], ["samplng"]),
        (["model=effv2s"], ["model"]),  # preprocess.py has no models
        (["sampling.interval=abc"], ["sampling.interval=abc", "number", "such as 5"]),
        (["data.min_frames=7.5"], ["data.min_frames=7.5", "whole number such as 75"]),
        (["sampling.interval=7"], ["7", "90", "1, 2, 3, 5, 6, 9, 10, 15, 18, 30, 45, 90"]),
        (["data=javanese"], ["data=javanese", "data.root=DIR"]),
        (["executor=cloud"], ["executor=cloud", "dask, local"]),
        (["executor=dask"], ["executor.address"]),
        (["data=scrapping", "data.root=/no/such/folder"], ["/no/such/folder", "data.root=DIR"]),
        (["data.root=${nowhere}"], ["nowhere"]),
        (["data.root=[1,"], ["data.root=[1,", "quotes"]),
        (["data.root=~/my clips (1)"], ["data.root=~/my clips (1)", "'KEY=\"VALUE\"'"]),
        (["experiment=javanese"], ["experiment=javanese", "model", "train.py"]),
        (["nonsense"], ["nonsense"]),
        (["-m", "data=scrapping", "data.root=/no/a,/no/b"], ["/no/a"]),
        (["-m", "data=celebrities,demo"], ["celebrities", "javanese"]),
    ],
)
def test_mistake_ends_in_one_line_that_names_it(
    preprocess: Callable, capfd: pytest.CaptureFixture, arguments: list[str], named: list[str]
):
    line = refusal_of(preprocess, *arguments)
    assert all(name in line for name in named), line
    assert capfd.readouterr().err == ""  # Python prints the line itself when it exits


def test_folder_that_can_not_be_made_is_named(preprocess: Callable, tmp_path: Path):
    (tmp_path / "cache").touch()  # a file
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "Happy_0001.mp4").touch()
    line = refusal_of(preprocess, "data=scrapping", f"data.root={tmp_path}/clips")
    assert f"{tmp_path}/cache" in line and line.endswith(": Not a directory")


def test_a_mistyped_key_is_not_to_be_added(preprocess: Callable):
    for mistake in ("samplng.interval=5", "data.rot=/clips", "modell=effv2s"):
        line = refusal_of(preprocess, mistake)
        assert mistake.partition("=")[0] in line and "+" not in line


def test_full_error_shows_the_stack_trace(preprocess: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(HydraException, match="celebrities"):
        preprocess("data=celebrities")
    with pytest.raises(UserError, match="no folder /no/such"):
        preprocess("data=scrapping", "data.root=/no/such")


def test_a_second_run_in_the_process_ends_in_one_line_too(preprocess: Callable):
    for _ in range(2):
        assert "celebrities" in refusal_of(preprocess, "data=celebrities")
    assert os.environ.get("HYDRA_FULL_ERROR") != "1"


def test_a_mistake_in_the_code_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    @entry("preprocess")
    def broken(cfg: DictConfig) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sys, "argv", ["broken.py", f"paths.output={tmp_path}"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        broken()


def test_the_task_gets_the_config_as_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen = []

    @entry("train")
    def look(cfg: DictConfig) -> None:
        seen.append((cfg.interval.frames, cfg.seed, cfg.data.name))

    arguments = ["interval=5,15", "seed=4", "data=scrapping", f"paths.output={tmp_path}"]
    plain = ["hydra/sweeper=basic", "~hydra.callbacks.report"]  # ours would ask for data first
    monkeypatch.setattr(sys, "argv", ["look.py", "-m", *arguments, *plain])
    look()
    assert seen == [(5, 4, "scrapping"), (15, 4, "scrapping")]


def test_data_set_may_stand_in_dot_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen = []

    @entry("preprocess")
    def look(cfg: DictConfig) -> None:
        seen.append((cfg.data.name, cfg.data.root))

    monkeypatch.setattr(config_module, "REPOSITORY", tmp_path)
    monkeypatch.delenv("EMOTION_DATA")
    (tmp_path / ".env").write_text("EMOTION_DATA=scrapping\n")
    monkeypatch.setattr(sys, "argv", ["look.py"])
    look()
    assert seen == [("scrapping", f"{tmp_path}/Dataset/Scrapping")]
    monkeypatch.setattr(sys, "argv", ["look.py", "data=demo"])
    look()
    assert seen[1][0] == "demo"


def test_fresh_machine_runs_on_the_demo(compose: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EMOTION_DATA")
    for name in PRIMARY:
        cfg = compose(name)
        assert cfg.data.name == "demo"
        assert "rendered" in describe_data(cfg) and "nothing about real" in describe_data(cfg)


def test_run_says_which_data_it_uses(compose: Callable, preprocess: Callable, capsys):
    assert describe_data(compose("train", ["data=scrapping"])) == "data: scrapping"
    with pytest.raises(SystemExit):
        preprocess("data=scrapping", "data.root=/no/such/folder")
    assert "data: scrapping" in capsys.readouterr().out


def test_everything_written_moves_with_the_two_paths(compose: Callable):
    for name in PRIMARY:
        cfg = compose(
            name, ["data=demo", "paths.cache=/c", "paths.output=/o"], return_hydra_config=True
        )
        cache = Cache.from_config(cfg)
        assert cache.directory.is_relative_to("/c") and cache.root.is_relative_to("/c")
        assert cfg.hydra.run.dir.startswith("/o/") and cfg.hydra.sweep.dir.startswith("/o/")
    standard = compose("train", ["data=demo"])
    assert standard.paths == {"cache": f"{REPOSITORY}/cache", "output": f"{REPOSITORY}/outputs"}


# Every file under conf/


def groups_of(primary: str) -> set[str]:
    """Read which groups the defaults lists of a primary config name, through what it includes."""
    found = set()
    for entry_ in yaml.safe_load((CONF_DIR / f"{primary}.yaml").read_text())["defaults"]:
        if isinstance(entry_, dict):
            (key,) = entry_
            found.add(key.removeprefix("optional "))
        elif entry_ != "_self_":
            found |= groups_of(entry_)
    return found


HYDRA_GROUPS = {"hydra/launcher", "hydra/sweeper"}  # Hydra's own, which train.py has options for
OPTIONS = sorted(
    path.relative_to(CONF_DIR).with_suffix("") for path in CONF_DIR.glob("*/**/*.yaml")
)


def belongs(path: Path, primary: str) -> bool:
    """Tell whether a primary config has an option's group, and all groups that it overrides."""
    groups = {path.parent.as_posix()}
    for line in (yaml.safe_load((CONF_DIR / f"{path}.yaml").read_text()) or {}).get("defaults", []):
        if isinstance(line, dict):
            groups |= {key.removeprefix("override /") for key in line}
    return groups <= groups_of(primary) | (HYDRA_GROUPS if primary == "train" else set())


CHOICES = [
    pytest.param(primary, path.parent.as_posix(), path.name, id=f"{primary}-{path}")
    for primary in PRIMARY
    for path in OPTIONS
    if belongs(path, primary)
]
BUILT = [
    path
    for path in OPTIONS
    if path.parent.name in ("augmentation", "split", "trainer", "callbacks", "logger", "experiment")
]


@pytest.fixture
def running(compose: Callable, tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Give a function that composes train's config as within a run."""

    def compose_run(*overrides: str) -> DictConfig:
        paths = [f"hydra.runtime.output_dir={tmp_path}", f"paths.output={tmp_path}"]
        cfg = compose("train", ["data.root=/clips", *paths, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return cfg

    yield compose_run
    HydraConfig.instance().cfg = None


def test_every_group_belongs_to_a_script():
    groups = {path.parent.as_posix() for path in OPTIONS}
    assert groups == groups_of("preprocess") | groups_of("train") | HYDRA_GROUPS
    assert groups_of("preprocess") == {"data", "executor", "experiment"}
    assert len(OPTIONS) >= 20
    assert all(belongs(path, "train") for path in OPTIONS)
    assert belongs(Path("experiment/smoke"), "preprocess")


@pytest.mark.parametrize(("primary", "group", "option"), CHOICES)
def test_every_option_composes(running: Callable, primary: str, group: str, option: str):
    chosen = [f"{group}='{option}'"]
    if (group, option) == ("data", "csv"):
        chosen.append("data.list=/clips/clips.csv")
    if (group, option) == ("executor", "dask"):
        chosen.append("executor.address=tcp://10.0.0.1:8786")
    if primary == "train":
        cfg = running(*chosen)
    else:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = hydra_compose(primary, ["data.root=/clips", *chosen])
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra", None)
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert set(resolved) >= {"data", "sampling", "face", "labels", "paths"}
    assert Cache.from_config(cfg).settings.num_images == 18


@pytest.mark.parametrize("path", BUILT, ids=str)
def test_everything_with_a_target_can_be_made(running: Callable, path: Path):
    cfg = running(f"{path.parent}='{path.name}'")
    if cfg.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert isinstance(instantiate(cfg.augmentation), Augmentation)
    split = instantiate(cfg.split, _convert_="all")
    assert isinstance(split, Split) and split.name == cfg.split.name
    assert path.parent.name != "split" or split.name == path.name
    loggers = [instantiate(logger) for logger in cfg.logger.values()]
    assert all(isinstance(logger, Logger) for logger in loggers)
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values() if callback]
    trainer = instantiate(cfg.trainer, logger=loggers, callbacks=callbacks)
    assert trainer.max_epochs == cfg.trainer.max_epochs
    assert set(callbacks) <= set(trainer.callbacks)
    for callback in cfg.hydra.callbacks.values():
        instantiate(callback)


@pytest.mark.parametrize("path", [p for p in OPTIONS if p.parts[0] == "hydra"], ids=str)
def test_every_launcher_and_sweeper_can_be_made(compose: Callable, path: Path):
    cfg = compose("train", [f"{path.parent}={path.name}"], return_hydra_config=True)
    node = cfg.hydra[path.parent.name]
    assert isinstance(Plugins.instance()._instantiate(node), Launcher | Sweeper)


def sweeper_with(compose: Callable, hparams: str, params: dict[str, str]) -> Sweeper:
    """Make a sweeper as Hydra does."""
    cfg = compose("train", [f"hparams={hparams}"], return_hydra_config=True).hydra.sweeper
    with open_dict(cfg):
        cfg.params = params
    sweeper = Plugins.instance()._instantiate(cfg)
    sweeper.hydra_context = SimpleNamespace(config_loader=None)
    return sweeper


@pytest.mark.parametrize(
    ("params", "typed", "frames"),
    [
        ({"interval": "5,10"}, [], [5, 10]),
        ({"interval": "choice(5,10)"}, ["seed=1"], [5, 10]),
        ({"interval": "range(5,20,5)"}, [], [5, 10, 15]),
        ({"interval": "15"}, [], [15]),
        ({}, ["interval=5,10,15"], [5, 10, 15]),
        ({"interval": "5"}, ["interval=choice(10,15)"], [10, 15]),
    ],
)
def test_integers_are_options_for_sweepers_too(compose: Callable, params, typed, frames):
    sweeper = sweeper_with(compose, "none", params)
    (jobs,) = sweeper.split_arguments(sweeper.parse(typed), max_batch_size=None)
    assert [compose("train", job).interval.frames for job in jobs] == frames


def test_search_may_choose_among_integers_that_are_options(compose: Callable):
    sweeper = sweeper_with(compose, "optuna", {"optimizer.lr": "interval(0,1)"})
    space = Space.from_overrides(sweeper.parse(["interval=5,10", "optimizer.lr=1e-3"]))
    assert space.searched == {"interval": CategoricalDistribution(("5", "10"))}
    overrides = space.overrides({"interval": "10"})
    cfg = compose("train", quote_integer_options(overrides))
    assert cfg.interval.frames == 10 and cfg.optimizer.lr == 1e-3


def test_experiments_open_with_the_command_that_runs_them():
    for path in CONF_DIR.glob("experiment/*.yaml"):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any(f"experiment={path.stem}" in line for line in comment), path


# What is printed of it


def test_help_names_every_group_and_an_example_of_each_that_composes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, compose: Callable
):
    from train import train

    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        train()
    groups, _, examples = capsys.readouterr().out.partition("One example of each")
    examples = [word for word in examples.split("Keys")[0].split() if "=" in word]
    assert {word.split("=")[0] for word in examples} == groups_of("train")
    for group in groups_of("train"):
        options = sorted(path.name for path in OPTIONS if path.parent.as_posix() == group)
        assert f"{group}: {', '.join(options)}" in groups
    for word in quote_integer_options(examples):
        compose("train", [word])


def test_the_tree_has_every_part_of_the_config(compose: Callable):
    cfg = compose("train", ["data=scrapping", "loss.mixup=0.2", "split=grouped"])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(config_tree(cfg))
    lines = console.export_text().splitlines()
    named = {line.lstrip("├└─│ ").split(" ")[0] for line in lines}
    assert {key for key, value in cfg.items() if OmegaConf.is_dict(value)} <= named
    assert any("mixup=0.2" in line for line in lines) and any("seed=0" in line for line in lines)
    assert "_target_" not in "".join(lines) and len(lines) < 50
