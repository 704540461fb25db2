"""Every kind of file that the project writes, damaged in every way, before every command."""

import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.reliability.commands import Outcome
from tests.reliability.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

# Part of the world -> commands that read its files.
READERS = {
    "cache": ("preprocess", "verify", "train"),
    "outputs/runs/one": ("report run", "export", "predict", "predict onnx", "learning curve"),
    "outputs/runs/cut": ("resume",),
    "outputs/sweeps": ("sweep", "report"),
    "people": ("predict person", "correct"),
}
VARYING = re.compile(r"[0-9a-f]{6,}|\d+|Anger|Happy|Neutral|Sad|Shock")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("reliability"))
    yield world
    world.close()


def kinds(folder: Path) -> dict[str, list[Path]]:
    """Group the files of a folder by their names, less what varies from one to the next."""
    files = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[VARYING.sub("*", path.relative_to(folder).as_posix())].append(path)
    return files


def another_of(path: Path, files: list[Path]) -> Path | None:
    """Return another file of a kind, or a file of this name of another run."""
    of_this_name = (each for each in path.parents[1].rglob(path.name) if each != path)
    return next(iter([*files[1:], *of_this_name]), None)


def half(path: Path, _: Path | None) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, _: Path | None) -> None:
    path.write_bytes(b"")


def random_bytes(path: Path, _: Path | None) -> None:
    size = path.stat().st_size
    path.write_bytes(np.random.default_rng(size).bytes(size))


def another(path: Path, other: Path | None) -> None:
    shutil.copyfile(other, path)


def wrong_shape(path: Path, _: Path | None) -> None:
    """Write a valid file of the format with a wrong content."""
    if path.suffix == ".tiff":
        tifffile.imwrite(path, np.zeros((6, 112, 112), np.uint8), imagej=True)
    elif path.suffix == ".npy":
        np.save(path, np.zeros((6, 400, 2), np.float64))
    elif path.suffix == ".json":
        path.write_text('{"version": 1}')
    elif path.suffix == ".csv":
        path.write_text("a,b\n1,2\n")
    elif path.suffix == ".ckpt":
        import torch

        torch.save({"state_dict": {"weight": torch.full((2,), float("nan"))}}, path)
    else:
        path.write_text("valid")


def edited(path: Path, _: Path | None) -> None:
    """Change one character or byte in the middle, to another one of its kind."""
    content = bytearray(path.read_bytes())
    place = next(
        (i for i in range(len(content) // 2, len(content)) if chr(content[i]).isdigit()),
        len(content) // 2,
    )
    content[place] = ord("7") if content[place] != ord("7") else ord("3")
    path.write_bytes(content)


def hidden(path: Path, _: Path | None) -> None:
    """Edit a file and give it its times back."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    edited(path, None)
    os.utime(path, ns=times)


def folder(path: Path, _: Path | None) -> None:
    path.unlink()
    path.mkdir()


def removed(path: Path, _: Path | None) -> None:
    path.unlink()


def fifo(path: Path, _: Path | None) -> None:
    path.unlink()
    os.mkfifo(path)


Damage = Callable[[Path, Path | None], None]
DAMAGES: tuple[Damage, ...] = (
    *(half, empty, random_bytes, another, wrong_shape, edited, hidden, folder, removed, fifo),
)
FOR_PEOPLE = (".log", ".yaml", ".png", ".html", ".md")  # no command reads such files
RIGHT = ("same result", "refused", "named")


def is_tried(damage: Damage, kind: str, other: Path | None, name: str) -> bool:
    """Return whether a damage makes sense for a kind of file and a command."""
    if kind.endswith(FOR_PEOPLE):
        return damage in (random_bytes, folder, fifo) and name != "export"
    if name == "export" and kind.endswith((".onnx", "metrics.csv")):  # takes 8 s, and reads neither
        return False
    if damage is removed and name == "correct":  # begins a profile
        return False
    if damage is hidden:  # only what compares digests can find it
        return name in ("verify", "train", "predict", "export", "predict person", "correct")
    return damage is not another or other is not None


def verdict(world: World, name: str, outcome: Outcome, expected: object) -> str:
    """Return what came of a damage: one of `RIGHT`, or what must not be."""
    if outcome.status is None:
        return "hangs"
    if "Traceback (most recent call last)" in outcome.output:
        return "trace"
    errors = [line for line in outcome.output.splitlines() if line.startswith("error:")]
    if outcome.status != 0:
        return "refused" if outcome.status == 1 and len(errors) == 1 else "poor line"
    try:
        result = world.commands[name].result(world.folder)
    except Exception as error:
        return f"no result ({error!r})"
    if result == expected:
        return "same result"
    # A report leaves a damaged run out, and must say so; a run without a record is unfinished.
    is_named = any(word in outcome.output for word in ("damaged", "unfinished"))
    return "named" if name.startswith("report") and is_named else "other result"


@pytest.mark.parametrize(
    ("part", "name"),
    [
        pytest.param(part, name, marks=pytest.mark.xdist_group(f"damage of {part}"))
        for part, names in READERS.items()
        for name in names
    ],
)
def test_damage_is_healed_or_refused(
    world: World, part: str, name: str, record_property: Callable[[str, object], None]
) -> None:
    command = world.commands[name]
    world.restore()
    files_of_kinds = kinds(world.folder / part)
    outcome = world.run(command)
    assert outcome.status == 0, outcome.output
    expected = command.result(world.folder)
    counts: Counter[str] = Counter()
    wrong = []
    for kind, files in files_of_kinds.items():
        for damage in DAMAGES:
            world.restore()
            other = another_of(files[0], files)
            if not is_tried(damage, kind, other, name):
                continue
            damage(files[0], other)
            outcome = world.run(command)
            what = verdict(world, name, outcome, expected)
            counts[what] += 1
            if what not in RIGHT:
                lines = outcome.output.splitlines()[-3:]
                wrong.append(f"{kind} {damage.__name__}: {what}: {' | '.join(lines)}")
    outcomes = ", ".join(f"{num} {what}" for what, num in sorted(counts.items()))
    record_property("damages", f"{part}, {name}: {outcomes}")
    assert not wrong, "\n".join(wrong)
