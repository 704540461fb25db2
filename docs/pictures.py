"""Make the README's pictures from a finished demo: python -m docs.pictures outputs/sweeps/<when>.

Writes `docs/stacks.jpg`, frames of a demo clip of each emotion beside the images of its stack;
`docs/confusion.png`, the sweep's confusion matrices; `docs/report.png`, the top of its report in
Chromium; and of what `predict.py` draws of test clips that are joined into one,
`docs/annotated.jpg`, `docs/timeline.png` and `docs/cover.jpg`. One of `stacks`, `confusion`,
`report` and `predictions` after the folder makes that one alone.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from hydra import compose, initialize_config_dir

from emotion.cli import CONF_DIR
from emotion.clips.video import Video
from emotion.inference.drawing import ANNOTATED, COVER, TIMELINE, render, write_clip
from emotion.inference.recognizer import EmotionRecognizer
from emotion.reports.report import page_path
from emotion.stacks.build import CacheBuilder
from emotion.stacks.stack import read_stack

DOCS = Path(__file__).parent
TILE_PX = 112
PAGE_PX = (1280, 1500)  # of the report
CLIP_NUMBERS = {"Anger": 2, "Happy": 4, "Neutral": 3, "Sad": 9, "Shock": 2}
FRAMES = (0, 15, 30, 45, 60, 75)
TEST_CLIPS = ("Happy_0025", "Sad_0026", "Shock_0025")  # of people whom training never sees
ANNOTATED_FRAMES = (60, 150, 240)


def emotion_row(demo: CacheBuilder, label: str, number: int) -> np.ndarray:
    """Draw sampled frames of a clip, and beside them the stack's images of the same frames.

    Args:
        demo: the demo's clips and stacks.
        label: the emotion.
        number: the clip's id.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    clip_id = f"{label}_{number:04d}"
    pictures = list(Video(demo.source.root / f"{clip_id}.mp4").pictures())
    stack = read_stack(demo.cache.stack_path(clip_id, 1))
    frames = [cv2.cvtColor(pictures[number].rgb(), cv2.COLOR_RGB2BGR) for number in FRAMES]
    tiles = [cv2.resize(f, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for f in frames]
    for frame in FRAMES:
        crop = cv2.resize(stack[frame // demo.cache.settings.interval], (TILE_PX, TILE_PX))
        tiles.append(cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR))
    caption = np.full((TILE_PX, 90, 3), 255, np.uint8)
    place = (6, TILE_PX // 2 + 5)
    cv2.putText(caption, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    gap = np.full((TILE_PX, 14, 3), 255, np.uint8)
    return np.hstack([caption, *tiles[: len(FRAMES)], gap, *tiles[len(FRAMES) :]])


def demo_builder() -> CacheBuilder:
    """Return the builder of the demo's cache."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return CacheBuilder.from_config(compose("preprocess", ["data=demo"]))


def draw_predictions(sweep_dir: Path) -> None:
    """Draw what the model of interval 10 says of three test clips, joined into one."""
    (run_dir,) = (path.parent for path in sweep_dir.glob("*_interval10_*/metrics.json"))
    with tempfile.TemporaryDirectory() as scratch:
        picture_predictions(run_dir, demo_builder().source.root, Path(scratch))


def picture_predictions(run_dir: Path, clips: Path, scratch: Path) -> None:
    """Predict the joined clips and keep the pictures.

    Args:
        run_dir: of the model.
        clips: the demo's folder.
        scratch: a folder for what is not kept.
    """
    joined = scratch / "three test clips.mp4"
    with write_clip(joined, fps=30.0) as write:
        for name in TEST_CLIPS:
            for picture in Video(clips / f"{name}.mp4").pictures():
                write(picture.rgb())
    recognizer = EmotionRecognizer.load(run_dir)
    recipe = recognizer.recipe
    answer = recognizer.predict(joined, stride=10)
    render(answer, recipe.settings, recipe.unsure_below, scratch)
    shutil.copy(scratch / TIMELINE, DOCS / "timeline.png")
    shutil.copy(scratch / COVER, DOCS / "cover.jpg")
    pictures = list(Video(scratch / ANNOTATED).pictures())
    frames = np.hstack([pictures[number].rgb() for number in ANNOTATED_FRAMES])
    smaller = cv2.resize(frames, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(DOCS / "annotated.jpg"), cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR))


def draw_stacks(sweep_dir: Path) -> None:
    """Draw demo clips and their stacks; any demo has the same."""
    demo = demo_builder()
    rows = [emotion_row(demo, label, number) for label, number in CLIP_NUMBERS.items()]
    cv2.imwrite(str(DOCS / "stacks.jpg"), np.vstack(rows))


def copy_confusion(sweep_dir: Path) -> None:
    """Copy the sweep's confusion matrices."""
    shutil.copy(sweep_dir / "confusion.png", DOCS / "confusion.png")


def photograph_report(sweep_dir: Path) -> None:
    """Take a picture of the top of the sweep's page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: no chromium here to open the report with: apt-get install chromium")
    size = ",".join(map(str, PAGE_PX))
    arguments = ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={size}")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *arguments, f"--user-data-dir={profile}",
             f"--screenshot={DOCS / 'report.png'}", page_path(sweep_dir).as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


PICTURES = {
    "stacks": draw_stacks,
    "confusion": copy_confusion,
    "report": photograph_report,
    "predictions": draw_predictions,
}


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__)
    parser.add_argument("sweep_dir", type=Path, help="folder of a finished sweep of the demo")
    parser.add_argument("pictures", nargs="*", default=list(PICTURES), help="which; all of them")
    arguments = parser.parse_args()
    for name in arguments.pictures:
        if name not in PICTURES:
            parser.error(f"{name}: there is {', '.join(PICTURES)}")
    if not (arguments.sweep_dir / "results.md").is_file():
        sys.exit(f"error: {arguments.sweep_dir} is no folder of a finished sweep")
    for name in arguments.pictures:
        PICTURES[name](arguments.sweep_dir)


if __name__ == "__main__":
    main()
