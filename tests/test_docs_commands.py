"""The commands and the Python code of the pages run, on small data; those that do not, say why."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from emotion import REPOSITORY
from emotion.training.record import read_record
from tests.caches import BuildableCache
from tests.pages import CURRENT, all_commands, own_configs, python_code, script_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docs_commands")]

# Commands that are not run here: what they contain, and what checks them
NOT_RUN = {
    r"KEY=VALUE": "a template",
    r"\bpip install|conda": "tests/test_packaging.py installs the package",
    r"wandb (login|sync)": "needs an account",
    r"submitit_slurm|slurm|sinfo": "tests/sweeps/test_slurm.py, on a cluster of one node",
    r"executor=dask|/dask ": "tests/test_executors.py, with a scheduler and workers",
    r"^docker ": "needs Docker",
    r"trainer=gpu": "needs a GPU",
    r"trainer=ddp": "tests/training/test_ranks.py, with two processes",
    r"--int8": "tests/inference/test_export.py; refused where accuracy falls",
    r"python -m benchmarks": "a measurement",
    r"python -m docs\.pictures": "makes pictures of these pages",
    r"^(mkdir|source|export|git|cd|pytest|apt-get) ": "the shell's",
}
# Values that pages leave to the reader
CHOSEN = {
    "clips=PATH": "clips=clip.mp4",
    "clips=CLIPS": "clips=Dataset/Mine",
    "data.list=FILE": "data.list=list.csv",
    "data.root=CLIPS": "data.root=actors",
    "source=0": "source=clip.mp4 window=false",
    "RUN_DIR": "outputs/runs/NAME",
    "CLIP": "clip.mp4",
}
FOLDERS = {"mine": "own", "folders": "folders", "ravdess": "ravdess"}  # for data.root=DIR
SMALL = (
    *("loader.image_px=64", "loader.batch_size=4", "loader.num_workers=0"),
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "model.pretrained=false"),
)
WRITTEN = {
    "train": "metrics.json",
    "predict": "predictions.csv",
    "evaluate": "scores.json",
    "preprocess": "manifest.csv",
}


def why_not(command: str) -> str | None:
    """Return why a command is not run, or None for one that is run."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


def first_of_each(argument: str) -> str:
    """Return an override with the first of its values, if it is one that sweeps over several."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return argument
    if not override.is_discrete_sweep():
        return argument
    return f"{argument.partition('=')[0]}={next(override.sweep_iterator())}"


def with_values(arguments: list[str]) -> list[str]:
    """Put this test's files for the words of the pages that stand for the reader's."""
    chosen = []
    for argument in arguments:
        chosen += CHOSEN[argument].split(" ") if argument in CHOSEN else [argument]
    data = next((a.partition("=")[2] for a in chosen if a.startswith("data=")), "")
    return [f"data.root={FOLDERS[data]}" if a == "data.root=DIR" else a for a in chosen]


def small(script: str, arguments: list[str], cache: Path, output: Path) -> list[str]:
    """Return the arguments of a script for one small job on few clips."""
    arguments = [first_of_each(argument) for argument in with_values(arguments)]
    settings = [f"paths.output={output}"]
    if script in ("train", "preprocess"):
        settings.append(f"paths.cache={cache}")
        named = {argument.partition("=")[0] for argument in arguments}
        experiment = next((a for a in arguments if a.startswith("experiment=")), "")
        if "data" not in named and "javanese" not in experiment:
            settings.append("data.max_clips_per_class=2")  # of the demo
    if "data=mine" in arguments and not any(a.startswith("data.root=") for a in arguments):
        settings.append("data.root=Dataset/Mine")
    if script == "train":
        settings += SMALL
        if "--config-name" in arguments:  # of a run, whose config says no folder
            settings.append(f"hydra.run.dir={output}")
        if "hparams=optuna" in arguments:
            settings.append("hydra.sweeper.n_trials=1")
    return [*arguments, *settings]


@dataclass(frozen=True)
class Place:
    """A folder with everything that the pages name, and how to run a script in it."""

    folder: Path
    cache: Path

    def run(self, script: str, *arguments: str) -> str:
        """Run a script in this process, in this folder, and return what it prints.

        Raises:
            SystemExit: it failed.
        """
        from importlib import import_module

        main = getattr(import_module(f"emotion.commands.{script}"), script)
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
            patch.chdir(self.folder)
            patch.setattr("sys.argv", [f"{script}.py", *arguments])
            patch.syspath_prepend(str(self.folder))  # as of a script in this folder
            main()
        return out.getvalue()

    def run_module(self, *arguments: str) -> str:
        """Run a module as `python -m` in this folder, and return what it prints."""
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        ran = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=self.folder, env=environment, text=True,
            capture_output=True, timeout=120,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def place(
    demo_cache: BuildableCache, finished_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """Give a folder with clips under the names of several data sets, runs, sweeps and a profile."""
    folder = tmp_path_factory.mktemp("place")
    clips = {label: sorted(demo_cache.root.glob(f"{label}_*.mp4")) for label in demo_cache.labels}

    def link(name: str, clip: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(clip)

    rows = ["path,label"]
    codes = {
        "Neutral": ("01", "01"),
        "Sad": ("02", "04"),
        "Happy": ("03", "03"),
        "Shock": ("04", "08"),
        "Anger": ("06", "05"),
    }
    for label, found in clips.items():
        javanese, ravdess = codes[label]
        assert len(found) == 6
        for actor, clip in zip(("01", "02", "03", "06", "07", "08"), found, strict=True):
            link(f"Dataset/Mine/{clip.name}", clip)
            link(f"folders/{label}/{clip.name}", clip)
            link(f"actors/{actor}-01-{javanese}_01.mp4", clip)
            link(f"ravdess/Actor_{actor}/01-01-{ravdess}-01-01-01-{actor}.mp4", clip)
            rows.append(f"{clip},{label}")
    for own, label in (("bored", "Sad"), ("neutral", "Neutral"), ("proud", "Happy")):
        for number, clip in enumerate(clips[label]):
            link(f"own/{own}_{number}.mp4", clip)
    (folder / "list.csv").write_text("\n".join(rows))
    link("clip.mp4", clips["Happy"][0])
    for path, _, _, content in own_configs():
        own_conf = folder / "my_conf" / path.relative_to("conf")
        own_conf.parent.mkdir(parents=True, exist_ok=True)
        own_conf.write_text(content)
    for page in CURRENT:  # modules of the reader's own
        for code in python_code(page):
            if named := re.match(r"# (\w+\.py)\b", code):
                (folder / named[1]).write_text(code)

    place = Place(folder, demo_cache.directory.parents[1])
    shutil.copytree(finished_run, folder / "outputs/runs/NAME")
    (folder / "outputs/runs/mine").symlink_to("NAME")
    place.run_module("emotion.inference.export", "outputs/runs/NAME")
    (folder / "model.onnx").symlink_to("outputs/runs/NAME/model.onnx")
    for sweep, *cells in (
        ("first", "interval=10,15"),
        ("jav", "experiment=javanese", "data.root=actors", "split.fold=0,1"),
    ):
        cells = [*cells, *SMALL] + ["data.max_clips_per_class=2"] * (sweep == "first")
        place.run("train", "-m", *cells, f"sweep={sweep}", "paths.output=outputs",
                  f"paths.cache={place.cache}", "logger=none")  # fmt: skip
    (folder / "outputs/sweeps/NAME").symlink_to("first")
    person_run = next((folder / "outputs/sweeps/jav").glob("*/person.npz")).parent
    (folder / "RUN").symlink_to(person_run)
    learn = ["clips=clip.mp4", "person=profile.json", "learn=true", f"paths.output={folder}/other"]
    place.run("predict", *learn)
    return place


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for what a command writes, which is removed again: checkpoints are large."""
    yield tmp_path / "output"
    shutil.rmtree(tmp_path / "output", ignore_errors=True)


COMMANDS = [
    command
    for command in all_commands()
    if why_not(command) is None and not command.startswith("make ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_runs(command: str, place: Place, output: Path):
    shutil.copy(place.folder / "profile.json", place.folder / "me.json")
    words = shlex.split(command)
    if found := script_of(words):
        script, arguments = found
        is_question = {"--help", "--cfg"} & set(arguments)
        if is_question:
            assert "data" in place.run(script, *arguments)
            return
        place.run(script, *small(script, arguments, place.cache, output))
        is_plan = "dry_run=true" in arguments
        below = place.cache if script == "preprocess" else output
        is_live = any(a.startswith("source=") for a in arguments)
        assert is_plan or is_live or list(below.rglob(WRITTEN[script])), list(output.rglob("*"))
        if "my_conf" in arguments:  # as the run's own command says
            (folder,) = output.glob("runs/*")
            assert f"--config-dir {place.folder}/my_conf" in read_record(folder).command
    else:
        assert words[:2] == ["python", "-m"], "a command of another kind: run it, or say why not"
        (place.folder / "docs").mkdir(exist_ok=True)
        arguments = []
        for word in with_values(words[2:]):
            matches = sorted(place.folder.glob(word)) if "*" in word else []
            arguments += [str(path) for path in matches] or [word]
        place.run_module(*arguments)


@pytest.mark.parametrize("page", [page for page in CURRENT if python_code(page)])
def test_the_python_code_of_a_page_runs(page: str, place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place.folder)
    names: dict = {}
    for code in python_code(page):  # one after another, as a reader types them
        if not re.match(r"# \w+\.py\b", code):
            exec(code, names)
    assert names or page == "docs/extending.md"


def test_commands_and_what_checks_them_are_listed():
    """Print every command of the pages: pytest -rP tests/test_docs_commands.py -k listed."""
    for command in all_commands():
        target = command.startswith("make ") and "its target and commands exist"
        print(f"{why_not(command) or target or 'run'}: {command}")
    assert len(COMMANDS) > 50
