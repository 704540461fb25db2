"""A cache, runs, a sweep and an export, made by the commands that users type."""

import csv
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from emotion.clips.demo.render import write_clip
from emotion.tables import write_table
from tests.reliability.commands import Commands, Outcome, read_below

LABELS = "Anger", "Happy", "Neutral", "Sad", "Shock"


@dataclass(frozen=True)
class Command:
    """A command on a world, and what of it must not change."""

    script: str
    arguments: tuple[str, ...]
    result: Callable[[Path], object]  # what the command made, of the world's folder


class World:
    """The files of a user, in one folder that can be restored."""

    def __init__(self, folder: Path) -> None:
        """Make everything once, and keep a copy."""
        self.folder = folder / "world"
        self._copy = folder / "copy"
        self.runner = Commands()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_clips(self.folder)
        self.commands = commands(self.folder)
        runs = self.folder / "outputs" / "runs"
        first = "preprocess", "resume", "train", "sweep", "export", "learn", "correct"
        for name in first:
            command = self.commands[name]
            until = runs / "cut" / "last.ckpt" if name == "resume" else None
            outcome = self.runner.run(command.script, *command.arguments, until=until)
            assert outcome.status == (-signal.SIGKILL if until else 0), f"{name}: {outcome}"
            assert not until or until.is_file(), f"{name} was killed too early: {outcome}"
            if name == "train":
                (runs / "new").rename(runs / "one")
        shutil.copytree(self.folder, self._copy)

    def run(self, command: Command) -> Outcome:
        """Run a command."""
        return self.runner.run(command.script, *command.arguments)

    def restore(self, without: str | None = None) -> None:
        """Make the folder again as it was, but for one path in it; it may be a mounted disk."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self._copy, self.folder, dirs_exist_ok=True)
        if without:
            path = self.folder / without
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process that runs the commands."""
        self.runner.close()


def write_clips(folder: Path) -> None:
    """Render a clip of each class in each split, and list them with their subjects.

    Three subjects are for training, which makes a model of a person.
    """
    (folder / "clips").mkdir()
    rows = []
    for label, subject in zip(LABELS, ("ann", "bob", "cat", "ann", "bob"), strict=True):
        for number, (split, of_split) in enumerate(
            {"train": subject, "val": "dan", "test": "eve"}.items(), start=1
        ):
            path = folder / "clips" / f"{label}_{number:04d}.mp4"
            write_clip(path, label, seed=0, clip_id=number)
            rows.append({"path": path, "label": label, "subject": of_split, "split": split})
    write_table(folder / "clips.csv", list(rows[0]), rows)


def data(folder: Path) -> list[str]:
    """Return the overrides that name the clips and their cache."""
    return [
        *("data=csv", f"data.list={folder}/clips.csv", "data.name=world", "num_workers=1"),
        *("experiment=smoke", f"paths.cache={folder}/cache", f"paths.output={folder}/outputs"),
    ]


def training(folder: Path) -> list[str]:
    """Return the overrides of a training that takes a second."""
    return [*data(folder), "logger=csv", "model.backbone=mobilenetv3_small_050", "interval=15"]


def run_dir(folder: Path, name: str) -> str:
    """Return the override that names a run."""
    return f"hydra.run.dir={folder}/outputs/runs/{name}"


def commands(folder: Path) -> dict[str, Command]:
    """Return the commands that read files of ours."""
    outputs = folder / "outputs"
    made = (run_dir(folder, "new"),)
    one = outputs / "runs" / "one"
    clip, other = (folder / "clips" / name for name in ("Happy_0002.mp4", "Sad_0002.mp4"))
    profile = folder / "people" / "me.json"

    def predict(model: Path, *more: str, of: Path = clip) -> Command:
        folder = outputs / "predict" / "new"
        arguments = f"model_path={model}", f"clips={of}", f"hydra.run.dir={folder}", *more
        return Command("predict.py", arguments, lambda _: answers(folder))

    return {
        "preprocess": Command("preprocess.py", tuple(data(folder)), cache_of),
        "verify": Command("preprocess.py", (*data(folder), "verify=true"), cache_of),
        "train": Command(
            "train.py", (*training(folder), *made), lambda _: scores(outputs / "runs" / "new")
        ),
        "resume": Command(
            "train.py",
            (*training(folder), "trainer.max_epochs=3", run_dir(folder, "cut"), "ckpt_path=last"),
            lambda _: scores(outputs / "runs" / "cut"),
        ),
        "sweep": Command(
            "train.py",
            ("-m", *training(folder), "seed=0,1", "sweep=s"),
            lambda _: tables(outputs / "sweeps" / "s"),
        ),
        "report": Command(
            "emotion.reports",
            (str(outputs / "sweeps" / "s"),),
            lambda _: tables(outputs / "sweeps" / "s"),
        ),
        "report run": Command(
            "emotion.reports",
            (str(one),),
            lambda _: tables(one),
        ),
        "export": Command(
            "emotion.inference.export",
            (str(one),),
            lambda _: (one / "model.onnx").stat().st_size,
        ),
        "predict": predict(one),
        "predict onnx": predict(one / "model.onnx"),
        "learn": predict(one, f"person={profile}", "learn=true", of=other),
        "predict person": predict(one, f"person={profile}"),
        "correct": Command(
            "emotion.inference.correct",
            (str(profile), str(other), "Sad"),
            lambda _: profile.read_bytes(),
        ),
        "learning curve": Command(
            "emotion.reports.personal",
            (str(one), "--draws=1", f"--picture={folder}/curve.png"),
            lambda _: (folder / "curve.png").read_bytes(),
        ),
    }


def cache_of(folder: Path) -> object:
    """Read the stacks, landmarks and tables of the cache."""
    (cache,) = (path.parent for path in (folder / "cache").rglob("manifest.csv"))
    files = read_below(cache)
    return {
        name: content for name, content in files.items() if name.endswith((".tiff", ".npy", ".csv"))
    }


def scores(folder: Path) -> object:
    """Read what a run predicted, and its scores."""
    record = json.loads((folder / "metrics.json").read_bytes())
    return (folder / "predictions.csv").read_bytes(), record["scores"], record["calibration"]


def tables(folder: Path) -> object:
    """Read the accuracies of a report."""
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = "model", "interval", "seed", "level", "value"
    return sorted(tuple(row[key] for key in keys) for row in rows if row["score"] == "accuracy")


def answers(folder: Path) -> object:
    """Read what was predicted for clips."""
    return (folder / "predictions.csv").read_bytes()
