"""The examples run, on synthetic clips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emotion import REPOSITORY
from tests.caches import BuildableCache

pytestmark = pytest.mark.slow


@pytest.fixture
def clips(demo_cache: BuildableCache) -> list[Path]:
    """Give the synthetic clips, by name."""
    return sorted(demo_cache.builder.source.root.glob("*.mp4"))


def run(name: str, *arguments: object, cwd: Path) -> str:
    """Run an example in a folder of its own, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / f"{name}.py"), *map(str, arguments)],
        env=environment, cwd=cwd, timeout=300, text=True, capture_output=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


SMALL = ("experiment=smoke", "logger=none", "trainer=cpu")


def test_own_data_set(clips: list[Path], tmp_path: Path):
    (folder := tmp_path / "clips").mkdir()
    for own, label in (("bored", "Sad"), ("proud", "Happy")):
        for number, clip in enumerate([c for c in clips if c.name.startswith(label)][:6]):
            (folder / f"{own}_{number}.mp4").symlink_to(clip)
    paths = [f"paths.cache={tmp_path}/cache", f"hydra.run.dir={tmp_path}/run"]
    run("own_data_set", folder, *SMALL, *paths, "model.backbone=test_resnet", cwd=tmp_path)
    assert '"bored"' in (tmp_path / "run" / "recipe.json").read_text("utf-8")


def test_own_backbone(demo_cache: BuildableCache, tmp_path: Path):
    small = ["data.max_clips_per_class=2", "loader.image_px=64", "trainer.max_epochs=1"]
    paths = [f"paths.cache={demo_cache.directory.parents[1]}", f"paths.output={tmp_path}"]
    out = run("own_backbone", *small, *SMALL[1:], *paths, "loader.num_workers=0", cwd=tmp_path)
    assert "convnext" in out and len(list(tmp_path.glob("sweeps/*/*/metrics.json"))) == 4


def test_predict(clips: list[Path], tmp_path: Path):
    out = run("predict", *clips[:2], cwd=tmp_path)
    assert all(str(clip) in out for clip in clips[:2]) and "from frame 0" in out


def test_learn_person(clips: list[Path], tmp_path: Path):
    out = run("learn_person", clips[0], "Anger", cwd=tmp_path)
    before, after, known = out.splitlines()
    assert float(after.split()[2]) > float(before.split()[2])
    assert known == "known: 1 corrected clip, 0 of unknown emotion"
    assert (tmp_path / "me.json").is_file()
