"""The pages: their links, paths, commands, settings and examples exist and work."""

import csv
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from docs import settings
from emotion import REPOSITORY
from emotion.cli import CONF_DIR, quote_integer_options
from emotion.config import check_config
from emotion.errors import UserError
from tests.caches import BuildableCache
from tests.pages import (
    CURRENT,
    PAGES,
    SCRIPTS,
    code_spans,
    commands,
    own_configs,
    script_of,
    tokens,
)

FOLDERS = ("emotion", "conf", "tests", "docs", "benchmarks", "examples", "hydra_plugins")
# Commands that need a file or a machine: their options are not in conf/
SKIPPED = ("--config-dir", "--cfg")
# Of keys that have no default, for commands and settings that leave them out
EXAMPLES = (("data", "root", "DIR"), ("data", "list", "FILE"), ("executor", "address", "tcp://H:1"))


def check_overrides(script: str, arguments: list[str]) -> None:
    """Compose the first and the last job of a command line, and check their values.

    Raises:
        HydraException, OmegaConfBaseException, UserError, ValueError: it does not compose.
    """
    overrides = quote_integer_options([a for a in arguments if a not in ("-m", "--multirun")])
    parsed = OverridesParser.create().parse_overrides(overrides)
    if any(o.is_sweep_override() and not o.is_discrete_sweep() for o in parsed):
        jobs = [[o for o in overrides if "interval(" not in o]]
    else:
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    for job in {tuple(job): job for job in (jobs[0], jobs[-1])}.values():
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = hydra_compose(script, job, return_hydra_config=True)
        with open_dict(cfg):
            del cfg["hydra"]
            for section, key, example in EXAMPLES:
                if cfg.get(section) and OmegaConf.is_missing(cfg[section], key):
                    cfg[section][key] = example
            if script == "predict" and cfg.clips is None and cfg.source is None:
                cfg.clips = "clips"
            if script in ("predict", "evaluate") and not cfg.model_path:
                cfg.model_path = "RUN"
        check_config(script, cfg)


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_leads_somewhere(page: str):
    targets = [t.attrs.get("href") or t.attrs.get("src") for t in tokens(page)]
    for target in targets:
        if target and not re.match(r"[a-z]+:", str(target)):
            path, _, anchor = str(target).partition("#")
            there = (REPOSITORY / page).parent / path if path else REPOSITORY / page
            assert there.exists(), target
            assert not anchor or anchor in slugs(there), target


@pytest.mark.parametrize("page", CURRENT)
def test_every_path_named_exists(page: str):
    for span in code_spans(page):
        path = span.partition("::")[0].partition(" ")[0].rstrip("/")
        top, _, rest = path.partition("/")
        if top in FOLDERS and rest and not re.search(r"[<>*]", path):
            own = re.fullmatch(r"conf/\w+/(tiny|30|office|convnext|gentle|noisy)\.yaml", path)
            assert own or (REPOSITORY / path).exists(), path


def with_those_of_make(page: str) -> Iterator[list[str]]:
    """Yield the commands of a page; those of a Makefile's target instead of `make TARGET`."""
    for words in commands(page):
        if words[0] != "make":
            yield words
            continue
        dry = ["make", "--dry-run", "--silent", *words[1:]]
        ran = subprocess.run(dry, cwd=REPOSITORY, text=True, capture_output=True, check=True)
        lines = [line for line in ran.stdout.splitlines() if line.startswith(".venv/bin/python ")]
        yield from map(shlex.split, lines)


@pytest.mark.parametrize("page", CURRENT)
def test_every_command_composes(page: str):
    for words in with_those_of_make(page):
        if (found := script_of(words)) and not set(SKIPPED) & set(words):
            script, arguments = found
            if arguments != ["--help"] and "KEY=VALUE" not in arguments:
                try:
                    check_overrides(script, [a for a in arguments if a != "KEY=A,B"])
                except (HydraException, OmegaConfBaseException, UserError, ValueError) as error:
                    pytest.fail(f"{shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", CURRENT)
def test_every_module_and_make_target_exists(page: str):
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    lines = list(commands(page)) + [span.split() for span in code_spans(page) if span]
    for words in lines:
        if words[0] == "make":
            named = [word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)]
            assert set(named) <= targets, words
        if words[0] == "python" and words[1:2] == ["-m"] and len(words) > 2:
            top = words[2].partition(".")[0]
            module = REPOSITORY / words[2].replace(".", "/")
            is_there = module.with_suffix(".py").exists() or (module / "__main__.py").exists()
            assert top not in FOLDERS or is_there, words


@pytest.mark.parametrize("page", CURRENT)
def test_every_setting_named_exists(page: str):
    for span in code_spans(page):
        try:
            words = shlex.split(span)
        except ValueError:
            continue
        is_setting = [re.match(r"(?!hydra\.)[a-z][\w./]*=[^=<]", word) for word in words]
        if not words or not all(is_setting):
            continue
        errors = {}
        for script in SCRIPTS:
            try:
                check_overrides(script, words)
                break
            except (HydraException, OmegaConfBaseException, UserError, ValueError) as error:
                errors[script] = str(error)
        else:
            pytest.fail(f"{span}: {errors['train']}")


def test_the_settings_reference_is_that_of_the_configs():
    assert settings.PAGE.read_text("utf-8") == settings.page(), "run python -m docs.settings"


def test_pages_are_short_and_begin_with_a_command():
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 180
    reference = ("docs/settings.md", "docs/journal.md")
    for page in set(CURRENT) - set(reference):
        assert page == "README.md" or len((REPOSITORY / page).open().readlines()) <= 150, page


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_without_other_servers(tmp_path: Path):
    site = tmp_path / "site"
    build = [sys.executable, "-m", "properdocs", "build", "--strict", "--site-dir", str(site)]
    subprocess.run(build, cwd=REPOSITORY, check=True, timeout=120)
    for page in (REPOSITORY / "docs").glob("*.md"):
        html = (site / page.with_suffix(".html").name).read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=.(https?:[^\s>]+)", html)
        assert [url for url in loaded if "canonical" not in url] == []


@pytest.mark.parametrize("own", own_configs(), ids=lambda own: own[0].as_posix())
def test_a_config_of_ones_own_composes(own: tuple[Path, str, str, str], tmp_path: Path):
    path, script, arguments, content = own
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(content)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        search = f"hydra.searchpath=[file://{tmp_path}/conf]"
        cfg = hydra_compose(script, [*arguments.split(), search])
    check_config(script, cfg)


@pytest.fixture
def mine(demo_cache: BuildableCache, tmp_path: Path) -> Path:
    """Give a folder of six clips of each of two own classes, bored_1.mp4 and proud_1.mp4."""
    (folder := tmp_path / "clips").mkdir()
    clips = demo_cache.builder.source.root
    for own, label in (("bored", "Sad"), ("proud", "Happy")):
        for number, clip in enumerate(sorted(clips.glob(f"{label}_*.mp4"))[:6]):
            (folder / f"{own}_{number}.mp4").symlink_to(clip)
    return folder


@pytest.mark.slow
def test_own_classes_backbone_and_interval_work_together(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from emotion.commands.train import train

    own = ["data=mine", f"data.root={mine}", "data.labels=[bored,proud]"]
    backbone = ["model=timm", "model.backbone=convnext_atto"]
    small = ["experiment=smoke", "logger=none", "interval.frames=30", "trainer=cpu"]
    paths = [f"paths.cache={tmp_path}/cache", f"hydra.run.dir={tmp_path}/run"]
    monkeypatch.setattr("sys.argv", ["train.py", *own, *backbone, *small, *paths])
    train()
    assert '"bored"' in (tmp_path / "run" / "recipe.json").read_text("utf-8")


@pytest.mark.slow
def test_the_pages_data_set_backbone_and_augmentation_train_together(
    demo_cache: BuildableCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from emotion.commands.train import train

    chosen = ("conf/data/office.yaml", "conf/model/convnext.yaml", "conf/augmentation/gentle.yaml")
    for path, _, _, content in own_configs():
        if path.as_posix() in chosen:
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text(content)
    clips = demo_cache.builder.source.root
    names = {"bored": "Sad", "calm": "Neutral", "cheerful": "Happy", "angry": "Anger"}
    for folder, label in names.items():
        (tmp_path / "clips" / folder).mkdir(parents=True)
        for number, clip in enumerate(sorted(clips.glob(f"{label}_*.mp4"))[:4], 1):
            (tmp_path / "clips" / folder / f"s{number:02d}_01.mp4").symlink_to(clip)
    options = ["data=office", f"data.root={tmp_path}/clips", "model=convnext"]
    small = ["experiment=smoke", "logger=none", "trainer=cpu", "augmentation=gentle"]
    paths = [f"paths.cache={tmp_path}/cache", f"hydra.run.dir={tmp_path}/run"]
    own = ["--config-dir", f"{tmp_path}/conf"]
    monkeypatch.setattr("sys.argv", ["train.py", *own, *options, *small, *paths])
    train()
    recipe = (tmp_path / "run" / "recipe.json").read_text("utf-8")
    assert all(f'"{label}"' in recipe for label in ("bored", "calm", "happy"))
    assert "backbone: convnext_atto" in (tmp_path / "run/.hydra/config.yaml").read_text("utf-8")
    (manifest,) = tmp_path.glob("cache/*/*/manifest.csv")
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # label_map leaves angry out
    assert {row["label"] for row in rows} == {"bored", "calm", "happy"}
    splits = {row["subject"]: row["split"] for row in rows}
    assert splits == {"s01": "val", "s02": "val", "s03": "test", "s04": "train"}
