"""Render synthetic demo clips, so that the whole pipeline runs without any data.

Nothing is learned or copied from a real person.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, delayed

from emotion.clips.demo.identity import Identity
from emotion.clips.demo.motion import PROTOTYPES, Pose, action_unit_curves, head_motion, wander
from emotion.clips.demo.portrait import Portrait
from emotion.errors import UserError
from emotion.executors import begin_work
from emotion.files import unfinished


@dataclass(frozen=True)
class Format:
    """Length, height and width, and frame rate of the rendered clips."""

    num_frames: int = 90
    size_px: int = 256
    fps: float = 30.0


DEFAULT_FORMAT = Format()


def render_clips(
    paths: Sequence[Path],
    seed: int,
    num_workers: int,
    on_done: Callable[[], None] = lambda: None,
    video: Format = DEFAULT_FORMAT,
) -> None:
    """Render the clips `<Label>_<number>.mp4` that do not exist yet, in parallel processes.

    `num_workers` is -1 for one per core. `on_done` is called after each clip.

    Raises:
        UserError: if a name has an unknown label; nothing is written then.
    """
    jobs = []
    for path in paths:
        label, _, number = path.stem.rpartition("_")
        if label not in PROTOTYPES:
            raise UserError(
                f"{path}: a demo clip is named <Label>_<number>.mp4, where the label is one of "
                f"{', '.join(PROTOTYPES)}"
            )
        if not path.exists():
            jobs.append(delayed(_write_on_one_core)(path, label, seed, int(number), video))
    for _ in Parallel(num_workers, return_as="generator_unordered", initializer=begin_work)(jobs):
        on_done()


def _write_on_one_core(path: Path, label: str, seed: int, clip_id: int, video: Format) -> None:
    begin_work()
    write_clip(path, label, seed, clip_id, video)


def write_clip(
    path: Path, label: str, seed: int, clip_id: int, video: Format = DEFAULT_FORMAT
) -> None:
    """Render a clip to an MPEG-4 file, which appears under its name only once it is complete."""
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    with unfinished(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), codec, video.fps, (video.size_px, video.size_px))
        if not writer.isOpened():
            raise OSError(f"{path}: cannot be opened for writing")
        for frame in render_frames(label, seed, clip_id, video):
            writer.write(frame)
        writer.release()  # writes the index, without which no player opens the file


def render_frames(
    label: str, seed: int, clip_id: int, video: Format = DEFAULT_FORMAT
) -> Iterator[np.ndarray]:
    """Render a new person who makes the expression of a label in `PROTOTYPES`.

    Seed of the set, label and number of the clip together determine every pixel.

    Yields:
        (size_px, size_px, 3) uint8 BGR frames.
    """
    size_px, num_frames, fps = video.size_px, video.num_frames, video.fps
    rng = np.random.default_rng([seed, list(PROTOTYPES).index(label), clip_id])
    person = Identity(rng)
    portrait = Portrait(person, rng, size_px)
    poses = head_motion(rng, num_frames, fps)
    background = draw_background(person, poses[0], rng, size_px)
    # A camera exposes for the face, though not all the way: dark skin stays darker.
    contrast = rng.uniform(0.85, 1.15) * (120 / person.skin.mean()) ** 0.45
    brightness = rng.uniform(-20, 20) + 2 * wander(rng, num_frames, fps, hz=4)  # lamps flicker
    # One tile of sensor noise, shifted for every frame: sampling new noise costs 4 ms a frame.
    grain = rng.standard_normal((size_px + 64, size_px + 64, 3), np.float32) * rng.uniform(1, 5)
    grain = (128 + grain).clip(0, 255).astype(np.uint8)
    places = rng.integers(64, size=(num_frames, 2))
    curves = action_unit_curves(label, rng, num_frames, fps)
    for intensities, pose, (x, y), level in zip(curves, poses, places, brightness, strict=True):
        picture = portrait.draw(intensities, pose, background)
        noise = grain[y : y + size_px, x : x + size_px]
        yield cv2.addWeighted(picture, contrast, noise, 1, level - 128)


def draw_background(
    person: Identity, pose: Pose, rng: np.random.Generator, size_px: int
) -> np.ndarray:
    """Draw an out-of-focus room, neck and shoulders, (size_px, size_px, 3) uint8 BGR."""

    def dull_color() -> np.ndarray:
        return rng.uniform(40, 210) + rng.uniform(-35, 35, 3)

    start, stop = dull_color(), dull_color()
    down = np.linspace(0, 1, size_px, dtype=np.float32)[:, None, None]
    picture = np.tile((start + (stop - start) * down).astype(np.float32), (1, size_px, 1))
    for _ in range(rng.integers(2, 9)):
        color = dull_color()
        x, y, width, height = (rng.uniform(0, (1, 1, 0.5, 0.5)) * size_px).astype(int).tolist()
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y, width, height), color, -1)
        else:
            cv2.ellipse(picture, ((x, y), (width, height), rng.uniform(0, 180)), color, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.01, 0.05) * size_px)
    clouds = rng.normal(0, rng.uniform(0, 10), (12, 12)).astype(np.float32)
    picture += cv2.resize(clouds, (size_px, size_px), interpolation=cv2.INTER_CUBIC)[..., None]

    unit, middle = pose.scale * size_px, np.array([pose.x, pose.y]) * size_px
    shoulders = ((middle[0], middle[1] + 2.15 * unit), (3 * unit, 2 * unit), 0)
    cv2.ellipse(picture, shoulders, dull_color(), -1, cv2.LINE_AA)
    half = 0.62 * person.head_width
    outline = np.array([(-half, 0.4), (-half, 1.3), (0, 1.55), (half, 1.3), (half, 0.4)])
    neck = np.zeros((size_px, size_px), np.float32)
    cv2.fillPoly(neck, [(outline * unit + middle).round().astype(np.int32)], 1)
    below_chin = (down * size_px - middle[1]) / unit - 1
    shadowed = person.skin * np.clip(0.5 + below_chin, 0.5, 0.85)
    picture += (shadowed - picture) * cv2.GaussianBlur(neck, (0, 0), 1)[..., None]
    return picture.clip(0, 255).astype(np.uint8)
