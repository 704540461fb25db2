"""The command line: integers as options, one line for a mistake, signals, `--help`."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from emotion import REPOSITORY, cli
from emotion.cli import config_tree, describe_data, entry, quote_integer_options
from emotion.errors import UserError
from tests.test_config import PREPROCESS_OPTIONS, groups_of, options_of

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


# Entry points, in this process


@pytest.fixture
def preprocess(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Give a function that runs preprocess.py with a command line, away from this repository."""
    from emotion.commands.preprocess import preprocess as run_entry

    monkeypatch.setattr(cli, "load_dotenv", lambda path: None)

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
        (["data=javanse"], ["data=javanse", "javanese?", "--config-dir"]),
        (["data.name=my/clips"], ["data.name", "'my/clips'"]),
        (["data.labels=calm,proud"], ["data.labels", "-m", "'data.labels=[calm,proud]'"]),
        (["experiment=gigantic"], ["experiment=gigantic", "smoke"]),
        (["data=7.5"], ["data", "7.5"]),
        (["data=true"], ["data"]),
        (["data.rot=/clips"], ["data.rot", "data.root?"]),
        (["samplng.interval=5"], ["samplng.interval", "sampling.interval?"]),
        (["+samplng.interval=5"], ["samplng", "sampling?"]),
        (["executr=dask"], ["executr", "executor?"]),
        (["model=effv2s"], ["model"]),  # preprocess.py has no models
        (["sampling.interval=abc"], ["sampling.interval", "'abc'"]),
        (["data.min_frames=7.5"], ["data.min_frames", "7.5"]),
        (["sampling.interval=7"], ["7", "90", "1, 2, 3, 5, 6, 9, 10, 15, 18, 30, 45, 90"]),
        (["data=javanese"], ["data=javanese", "data.root="]),
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


def test_a_key_without_a_value_is_named(monkeypatch: pytest.MonkeyPatch):
    from emotion.commands.train import train

    monkeypatch.setattr(sys, "argv", ["train.py", "model=timm"])
    assert refusal_of(train).startswith("error: model.backbone has no value")


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ("model=resnet50", "model=timm model.backbone=resnet50"),
        ("interval=7", "has: 5, 10, 15, 90; others are interval.frames=7"),
        ("model=face,landmarks", "add -m"),
    ],
)
def test_what_is_no_option_names_the_way(
    monkeypatch: pytest.MonkeyPatch, argument: str, remedy: str
):
    from emotion.commands.train import train

    monkeypatch.setattr(sys, "argv", ["train.py", argument])
    assert remedy in refusal_of(train)


def test_a_mistyped_backbone_is_refused_before_stacks_are_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from emotion.commands.train import train

    chosen = ["experiment=smoke", "logger=none", "model=timm", "model.backbone=convnxt_atto"]
    paths = [f"paths.cache={tmp_path}/cache", f"hydra.run.dir={tmp_path}/run"]
    monkeypatch.setattr(sys, "argv", ["train.py", *chosen, *paths])
    assert "model.backbone must be a timm network, got 'convnxt_atto'" in refusal_of(train)
    assert not (tmp_path / "cache").exists()


def test_a_package_that_is_missing_later_is_named(monkeypatch: pytest.MonkeyPatch):
    from emotion.commands.train import train

    monkeypatch.setitem(sys.modules, "emotion.training.run", None)
    monkeypatch.setattr(sys, "argv", ["train.py", "experiment=smoke"])
    line = refusal_of(train)
    assert "emotion.training.run is not installed" in line and "make install" in line


def test_a_mistyped_key_is_not_to_be_added(preprocess: Callable):
    for mistake in ("samplng.interval=5", "data.rot=/clips", "modell=effv2s"):
        line = refusal_of(preprocess, mistake)
        assert mistake.partition("=")[0] in line and "+" not in line


def test_full_error_shows_the_stack_trace(preprocess: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(HydraException, match="celebrities"):
        preprocess("data=celebrities")
    with pytest.raises(UserError, match="/no/such"):
        preprocess("data=scrapping", "data.root=/no/such")


def test_a_second_run_in_the_process_ends_in_one_line_too(preprocess: Callable):
    for _ in range(2):
        assert "celebrities" in refusal_of(preprocess, "data=celebrities")
    assert os.environ.get("HYDRA_FULL_ERROR") != "1"


def stopped_after(epochs: int, *arguments: str) -> list[int]:
    """Train until some epochs are over, send SIGTERM to the group, and give the epochs' numbers."""
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    try:
        seen = []
        for line in process.stdout:
            if epoch := re.search(r"epoch +(\d+) of", line):
                seen.append(int(epoch[1]))
            if len(seen) == epochs:
                break
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert "resumes" in err.splitlines()[-1]
    return seen


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sigterm_ends_a_training_that_the_same_command_resumes(demo_cache, tmp_path: Path):
    command = ["experiment=smoke", "trainer=cpu", "logger=none", "model.backbone=test_resnet"]
    command += ["data=demo", "interval=15", "trainer.max_epochs=5000", "ckpt_path=last"]
    command += [f"paths.cache={demo_cache.directory.parents[1]}", f"hydra.run.dir={tmp_path}/run"]
    first = stopped_after(3, *command)
    second = stopped_after(1, *command)
    assert second[0] >= first[-1] - 1  # the first that is logged is the one it resumes after


@pytest.mark.parametrize("script", ["train", "preprocess", "predict", "evaluate"])
def test_a_script_without_the_environment_names_make_install(script: str):
    ran = subprocess.run(
        [sys.executable, "-S", "-E", f"{script}.py"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert "make install" in line


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

    arguments = ["interval=5", "seed=4", "data=scrapping", f"paths.output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["look.py", *arguments])
    look()
    assert seen == [(5, 4, "scrapping")]


def test_data_set_may_stand_in_dot_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen = []

    @entry("preprocess")
    def look(cfg: DictConfig) -> None:
        seen.append((cfg.data.name, cfg.data.root))

    monkeypatch.setattr(cli, "REPOSITORY", tmp_path)
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
    for name in ("preprocess", "train"):
        cfg = compose(name)
        assert cfg.data.name == "demo"
        assert describe_data(cfg) == f"data: demo ({cfg.data.notice})"


def test_run_logs_which_data_it_uses(compose: Callable, preprocess: Callable, capsys):
    assert describe_data(compose("train", ["data=scrapping"])) == "data: scrapping"
    with pytest.raises(SystemExit):
        preprocess("data=scrapping", "data.root=/no/such/folder")
    assert "data: scrapping" in capsys.readouterr().out


def test_everything_written_moves_with_the_two_paths(compose: Callable):
    for name in ("preprocess", "train"):
        cfg = compose(
            name, ["data=demo", "paths.cache=/c", "paths.output=/o"], return_hydra_config=True
        )
        assert cfg.data.root.startswith("/c/") and cfg.paths.cache == "/c"
        assert cfg.hydra.run.dir.startswith("/o/") and cfg.hydra.sweep.dir.startswith("/o/")
    standard = compose("train", ["data=demo"])
    assert standard.paths == {"cache": f"{REPOSITORY}/cache", "output": f"{REPOSITORY}/outputs"}


# What is printed of it


HELP = """
import runpy, sys
for script in ("train", "preprocess", "predict", "evaluate"):
    sys.argv = [f"{script}.py", "--help"]
    try:
        runpy.run_path(f"{script}.py", run_name="__main__")
    except SystemExit as exit_:
        assert not exit_.code, exit_.code
    print(f"=== {script}")
sys.argv = ["emotion.reports", "--help"]
try:
    runpy.run_module("emotion.reports", run_name="__main__")
except SystemExit as exit_:
    assert not exit_.code, exit_.code
print("=== reports")
print(*({"torch", "mediapipe", "pytorch_lightning", "wandb", "cv2", "av"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def helps() -> list[str]:
    """Give what `--help` of the four scripts and of the report prints, and the heavy imports."""
    ran = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return re.split(r"=== \w+\n", ran.stdout)


def test_help_imports_no_heavy_package(helps: list[str]):
    assert helps[-1].split() == []


def test_help_names_every_group_and_its_options(helps: list[str]):
    for group in groups_of("train"):
        assert f"{group}: {', '.join(options_of(group))}" in helps[0]
    for group, options in PREPROCESS_OPTIONS.items():
        assert f"{group}: {', '.join(options)}" in helps[1]


def test_help_gives_an_example_of_each_group_that_composes(helps: list[str], compose: Callable):
    examples = helps[0].partition("One example of each")[2].partition("Keys")[0].split()
    examples = [word for word in examples if "=" in word]
    assert {word.split("=")[0] for word in examples} == groups_of("train")
    for word in quote_integer_options(examples):
        compose("train", [word])


def test_help_of_predict_lists_no_groups_of_training(helps: list[str]):
    lines = helps[2].splitlines()
    assert not any(line.startswith(f"{group}:") for line in lines for group in groups_of("train"))


@pytest.mark.parametrize("script", ["preprocess", "predict"])
def test_help_explains_keys_that_compose(script: str, helps: list[str], compose: Callable):
    text = helps[1 if script == "preprocess" else 2]
    lines = re.findall(r"^  ([\w.]+=.*?)(?: {2,}|$)", text, re.MULTILINE)
    examples = [line.split() for line in lines]
    cfg = compose(script)
    explained = {word.partition("=")[0] for words in examples for word in words}
    required = set(cfg) - {"data", "executor", "face", "paths", "sampling", "experiment"}
    assert required <= explained, required - explained
    for words in examples:
        compose(script, words)


def test_the_tree_has_every_part_of_the_config(compose: Callable):
    overrides = ["data=scrapping", "loss.mixup=0.2", "logger=none"]
    cfg = compose("train", [*overrides, "callbacks.best.dirpath=x", "callbacks.last=null"])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(config_tree(cfg))
    lines = console.export_text().splitlines()
    named = {line.lstrip("├└─│ ").split(" ")[0] for line in lines}
    assert {key for key, value in cfg.items() if OmegaConf.is_dict(value)} <= named
    assert any("mixup=0.2" in line for line in lines) and any("seed=0" in line for line in lines)
    assert "_target_" not in "".join(lines) and len(lines) < 50


def test_help_of_evaluate_names_the_data_sets(helps: list[str]):
    assert f"data: {', '.join(options_of('data'))}" in helps[3]


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/a.tiff"), "/cache/a.tiff"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), os.strerror(errno.ENOSPC)),
        (OSError(errno.EIO, os.strerror(errno.EIO), b"/clips/\xff.mp4"), r"/clips/\udcff.mp4"),
        (MemoryError(), "memory"),
    ],
)
def test_a_fault_of_the_machine_ends_in_one_line(error: Exception, named: str):
    with pytest.raises(SystemExit) as exit_, cli.mistakes_in_one_line():
        raise error
    assert exit_.value.code.startswith("error: ") and named in exit_.value.code
    assert exit_.value.code.isprintable()


def test_a_file_name_cannot_control_the_terminal(preprocess: Callable):
    line = refusal_of(preprocess, "data=scrapping", "data.root=/no/\x1b[31mred")
    assert line.isprintable() and r"\x1b[31m" in line
