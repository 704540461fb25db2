"""Make the README's pictures from a finished demo: python -m docs.pictures outputs/sweeps/<when>.

One of `stacks`, `confusion`, `report`, `dashboard` and `predictions` after the folder makes that
one alone.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from hydra import compose, initialize_config_dir
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from emotion.cli import CONF_DIR
from emotion.clips.video import Video
from emotion.inference.drawing import ANNOTATED, COVER, HEAT_MAP, TIMELINE, render, write_clip
from emotion.inference.recognizer import EmotionRecognizer
from emotion.reports.report import page_path
from emotion.stacks.build import CacheBuilder
from emotion.stacks.stack import read_stack

if TYPE_CHECKING:
    import pyte

DOCS = Path(__file__).parent
TILE_PX = 112
PAGE_PX = (1280, 1500)  # of the report
SCREEN = (150, 38)  # columns and lines of the dashboard
CHARACTER_PX = (8, 15)  # of one of its characters
# Columns and rows of the dots of a Braille character, by their bits from the lowest on
BRAILLE_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
STACK_CLIPS = ("Anger_0002", "Happy_0004", "Neutral_0003", "Sad_0009", "Shock_0002")
FRAMES = (0, 15, 30, 45, 60, 75)
TEST_CLIPS = ("Happy_0025", "Sad_0026", "Shock_0025")  # of people whom training never sees
ANNOTATED_FRAMES = (60, 150, 240)


def demo_builder() -> CacheBuilder:
    """Return the builder of the demo's cache."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return CacheBuilder.from_config(compose("preprocess", ["data=demo"]))


def draw_stacks(sweep_dir: Path) -> None:
    """Draw frames of a demo clip of each emotion beside the images of its stack: stacks.jpg."""
    demo = demo_builder()
    cv2.imwrite(str(DOCS / "stacks.jpg"), np.vstack([clip_row(demo, clip) for clip in STACK_CLIPS]))


def clip_row(demo: CacheBuilder, clip: str) -> np.ndarray:
    """Draw a clip's label, its sampled frames and its images: (H, W, 3) uint8 BGR."""
    pictures = list(Video(demo.source.root / f"{clip}.mp4").pictures())
    stack = read_stack(demo.cache.stack_path(clip, 1))
    size = (TILE_PX, TILE_PX)
    frames = [cv2.resize(pictures[n].rgb(), size, interpolation=cv2.INTER_AREA) for n in FRAMES]
    images = [cv2.resize(stack[n // demo.cache.settings.interval], size) for n in FRAMES]
    caption = np.full((TILE_PX, 90, 3), 255, np.uint8)
    font, place = cv2.FONT_HERSHEY_SIMPLEX, (6, TILE_PX // 2 + 5)
    cv2.putText(caption, clip.split("_")[0], place, font, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    gap = np.full((TILE_PX, 14, 3), 255, np.uint8)
    frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames]
    images = [cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in images]
    return np.hstack([caption, *frames, gap, *images])


def draw_predictions(sweep_dir: Path) -> None:
    """Draw the predictions of interval 10 for three joined test clips.

    Writes annotated.jpg, timeline.png, cover.jpg and blendshapes.png.
    """
    (run_dir,) = (path.parent for path in sweep_dir.glob("*_interval10_*/metrics.json"))
    clips = demo_builder().source.root
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        joined = scratch / "three test clips.mp4"
        with write_clip(joined, fps=30.0) as write:
            for clip in TEST_CLIPS:
                for picture in Video(clips / f"{clip}.mp4").pictures():
                    write(picture.rgb())
        recognizer = EmotionRecognizer.load(run_dir)
        recipe = recognizer.recipe
        answer = recognizer.predict(joined, stride=10)
        render(answer, recipe.settings, recipe.unsure_below, scratch)
        shutil.copy(scratch / TIMELINE, DOCS / "timeline.png")
        shutil.copy(scratch / COVER, DOCS / "cover.jpg")
        shutil.copy(scratch / HEAT_MAP, DOCS / "blendshapes.png")
        pictures = list(Video(scratch / ANNOTATED).pictures())
    frames = np.hstack([pictures[number].rgb() for number in ANNOTATED_FRAMES])
    smaller = cv2.resize(frames, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(DOCS / "annotated.jpg"), cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR))


def copy_confusion(sweep_dir: Path) -> None:
    """Copy the sweep's confusion matrices."""
    shutil.copy(sweep_dir / "confusion.png", DOCS / "confusion.png")


def photograph_report(sweep_dir: Path) -> None:
    """Take a picture of the top of the sweep's page in Chromium: report.png."""
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


def photograph_dashboard(sweep_dir: Path) -> None:
    """Draw the screen of `wandb leet` with all runs of a sweep selected: dashboard.png."""
    from tests.terminal import Terminal  # needs pyte and a system with pseudo-terminals

    runs = list((sweep_dir / "wandb").glob("*run-*"))
    with tempfile.TemporaryDirectory() as config:
        terminal = Terminal(
            [str(Path(sys.executable).with_name("wandb")), "leet", str(sweep_dir / "wandb")],
            os.environ | {"WANDB_CONFIG_DIR": config},
            *SCREEN,
        )
        terminal.wait_for(lambda text: "val/loss" in text)
        for number in range(2, len(runs) + 1):
            terminal.type("s")
            terminal.type(" ")
            terminal.wait_for(lambda text, n=number: len(re.findall("^ [▶●]", text, re.M)) == n)
        end_s = time.monotonic() + 3  # it loads the curves
        while time.monotonic() < end_s:
            terminal.read(0.1)
        draw_screen(terminal.screen).save(DOCS / "dashboard.png", optimize=True)
        terminal.close()


def draw_screen(screen: "pyte.Screen") -> Image.Image:
    """Draw the characters of a terminal's screen with their colors."""
    width, height = CHARACTER_PX
    weights = {False: "", True: ":bold"}
    fonts = {
        bold: ImageFont.truetype(findfont(f"DejaVu Sans Mono{weight}"), 13)
        for bold, weight in weights.items()
    }
    picture = Image.new("RGB", (screen.columns * width, screen.lines * height), "#111111")
    draw = ImageDraw.Draw(picture)
    for line, column in np.ndindex(screen.lines, screen.columns):
        character = screen.buffer[line][column]
        x, y = column * width, line * height
        color = "#d0d0d0" if character.fg == "default" else hexadecimal(character.fg)
        if character.bg != "default":
            draw.rectangle((x, y, x + width, y + height), fill=hexadecimal(character.bg))
        code = ord(character.data[0]) if character.data else 0
        if 0x2800 <= code < 0x2900:  # Braille, which the font does not have
            for bit, (across, down) in enumerate(BRAILLE_DOTS):
                if code >> bit & 1:
                    dot = (x + (0.25 + across / 2) * width, y + (0.125 + down / 4) * height)
                    draw.circle(dot, 1.5, fill=color)
        else:
            draw.text((x, y), character.data, fill=color, font=fonts[character.bold])
    return picture


def hexadecimal(color: str) -> str:
    """Return a color of pyte, six hexadecimal digits or a name, as Pillow reads it."""
    return f"#{color}" if re.fullmatch("[0-9a-f]{6}", color) else color.removeprefix("bright")


PICTURES = {
    "stacks": draw_stacks,
    "confusion": copy_confusion,
    "report": photograph_report,
    "dashboard": photograph_dashboard,
    "predictions": draw_predictions,
}


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__)
    parser.add_argument("sweep_dir", type=Path, help="folder of a finished sweep of the demo")
    parser.add_argument("pictures", nargs="*", help=f"of {', '.join(PICTURES)}; all by default")
    arguments = parser.parse_args()
    for name in arguments.pictures or PICTURES:
        if name not in PICTURES:
            parser.error(f"{name}: choose from {', '.join(PICTURES)}")
        PICTURES[name](arguments.sweep_dir)


if __name__ == "__main__":
    main()
