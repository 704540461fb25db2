"""The package: dependencies as in requirements.txt, and a wheel that works in any folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import emotion
from emotion import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
FILES = {  # requirements of `make` -> extras, "" for those that are always installed
    "requirements.txt": ("", "train", "dev"),
    "requirements-onnx.txt": ("predict", "export"),
    "requirements-journal.txt": ("journal",),
    "requirements-docs.txt": ("docs",),
    "requirements-trackers.txt": ("trackers",),
}


def ranges(*extras: str) -> dict[str, SpecifierSet]:
    """Return the version ranges of extras, without the extras that they include."""
    optional = PROJECT["optional-dependencies"]
    lines = [x for extra in extras for x in (optional[extra] if extra else PROJECT["dependencies"])]
    return {r.name: r.specifier for r in map(Requirement, lines) if r.name != PROJECT["name"]}


def pins(file: str) -> list[Requirement]:
    """Return the requirements of a file, for all Python versions."""
    lines = [line.partition("#")[0].strip() for line in (REPOSITORY / file).open(encoding="utf-8")]
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize("file", FILES)
def test_an_extra_has_the_packages_of_its_requirements(file: str):
    known = ranges(*FILES[file])
    assert {pin.name for pin in pins(file)} >= set(known) - {"matplotlib"}
    everything = ranges("", *PROJECT["optional-dependencies"])
    assert {pin.name for pin in pins(file)} <= set(everything)


@pytest.mark.parametrize("file", [*FILES, "requirements-predict.txt"])
def test_a_pinned_version_is_in_the_range_of_the_package(file: str):
    known = ranges("", *PROJECT["optional-dependencies"])
    for pin in pins(file):
        (pinned,) = pin.specifier
        assert known[pin.name].contains(pinned.version, prereleases=True), pin


def test_prediction_needs_the_packages_of_its_requirements():
    assert {pin.name for pin in pins("requirements-predict.txt")} == set(ranges("", "predict"))


def test_every_python_version_has_one_pin_of_each_package():
    for python in ("3.10", "3.11", "3.12", "3.13"):
        environment = default_environment() | {"python_version": python}
        for file in FILES:
            fit = [p.name for p in pins(file) if not p.marker or p.marker.evaluate(environment)]
            assert sorted(fit) == sorted({pin.name for pin in pins(file)})


# Prediction without the packages of training


def required(names: Iterable[str]) -> set[str]:
    """Return the names of packages and of the packages that they depend on."""
    found, left = set(), set(map(canonicalize_name, names))
    while left:
        found.add(name := left.pop())
        for line in metadata.requires(name) or ():
            needs = Requirement(line)
            if not needs.marker or needs.marker.evaluate({"extra": ""}):
                left.add(canonicalize_name(needs.name))
        left -= found
    return found


@pytest.fixture
def predict_alone(tmp_path: Path) -> Callable[..., str]:
    """Give a function that runs Python with the packages of requirements-predict.txt alone."""
    fit = [p for p in pins("requirements-predict.txt") if not p.marker or p.marker.evaluate()]
    known = required(pin.name for pin in fit)
    hidden = [
        module
        for module, packages in metadata.packages_distributions().items()
        if known.isdisjoint(map(canonicalize_name, packages))
    ]
    assert {"torch", "timm", "pytorch_lightning", "scipy", "joblib"} - set(hidden) == {"joblib"}
    # Python imports this module first, in worker processes too; None hides a package.
    code = f"import sys\nsys.modules.update(dict.fromkeys({hidden!r}))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}

    def run_python(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, *arguments], cwd=REPOSITORY, text=True, capture_output=True,
            timeout=300, env=environment,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run_python


@pytest.mark.slow
@pytest.mark.parametrize("model", ["starter", "model.onnx"])
def test_prediction_works_with_its_requirements_alone(
    model: str, finished_run: Path, demo_cache, tmp_path: Path, predict_alone: Callable
):
    if model == "model.onnx":
        shutil.copytree(finished_run, tmp_path / "run")
        export = [sys.executable, "-m", "emotion.inference.export", str(tmp_path / "run")]
        subprocess.run(export, cwd=REPOSITORY, check=True, capture_output=True)
        model = str(tmp_path / "run" / "model.onnx")
    clips = [str(demo_cache.root / f"{label}_0001.mp4") for label in ("Happy", "Sad")]
    predict_alone(
        "predict.py", f"model_path={model}", f"clips=[{','.join(clips)}]", "num_workers=2",
        "render=true", f"hydra.run.dir={tmp_path}/out",
    )  # fmt: skip
    written = (tmp_path / "out" / "predictions.jsonl").read_text("utf-8").splitlines()
    by_command = [json.loads(line)["label"] for line in written]
    assert len(list((tmp_path / "out" / "rendered").iterdir())) == len(by_command) == 2
    code = (
        "import sys; from emotion import EmotionRecognizer as R; r = R.load(sys.argv[1]);"
        "print([r.predict(clip).label for clip in sys.argv[2:]])"
    )
    assert predict_alone("-c", code, model, *clips).splitlines()[-1] == str(by_command)


# The wheel, installed away from the repository


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the installed wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(REPOSITORY)]
    subprocess.run([*pip, *build], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    install = ["install", "--no-deps", "--no-compile", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, *install], check=True, timeout=120)
    return folder / "site"


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Callable[..., str]:
    """Give a function that runs a console script in a folder of its own, and returns its output."""
    environment = {k: v for k, v in os.environ.items() if k != "EMOTION_DATA"}

    def run_command(name: str, *arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, str(site / "bin" / name), *arguments], cwd=tmp_path, text=True,
            capture_output=True, timeout=300, env=environment | {"PYTHONPATH": str(site)},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run_command


@pytest.mark.slow
def test_the_wheel_has_the_version_and_everything_of_the_package(site: Path):
    (info,) = site.glob("*.dist-info")
    assert f"\nVersion: {emotion.__version__}\n" in (info / "METADATA").read_text("utf-8")
    tracked = subprocess.run(
        ["git", "ls-files", "emotion", "hydra_plugins", "conf"], cwd=REPOSITORY, text=True,
        capture_output=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        packed = site / re.sub(r"^conf/", "emotion/conf/", name)
        assert packed.read_bytes() == (REPOSITORY / name).read_bytes()
    assert not {"conf", "tests", "docs"} & {path.name for path in site.iterdir()}


@pytest.mark.slow
def test_the_commands_write_below_the_current_folder(run: Callable, tmp_path: Path):
    run("emotion-preprocess", "experiment=smoke", "data=demo", "num_workers=1")
    assert list((tmp_path / "cache").glob("*/*/manifest.csv"))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    own = "name: tiny\nbackbone: test_resnet\nhidden: 8\n"
    (tmp_path / "conf" / "model" / "tiny.yaml").write_text(own)  # an option of the user's own
    arguments = ["experiment=smoke", "model=tiny", "interval=15", "logger=none", "trainer=cpu"]
    out = run("emotion-train", "--config-dir", "conf", *arguments, "hydra.run.dir=outputs/mine")
    assert (tmp_path / "outputs" / "mine" / "metrics.json").is_file(), out
    clip = next((tmp_path / "cache").rglob("*.mp4"))
    run("emotion-predict", "model_path=outputs/mine", f"clips={clip}", "min_frames=1")
    assert list((tmp_path / "outputs" / "predict").glob("*/predictions.csv"))


@pytest.mark.slow
def test_the_help_of_every_command_works_where_it_is_installed(run: Callable):
    for name in PROJECT["scripts"]:
        assert name.removeprefix("emotion-") in run(name, "--help")
