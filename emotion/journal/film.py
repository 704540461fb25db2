"""A film of many days: one second of each, with its date in the corner, and sound where it is.

Every second is cut in a worker process, because decoders crash, as H.264 with the same settings, so
that the seconds can be joined without being encoded again. Their sound is encoded in one piece.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from PIL import Image
from PIL.ImageDraw import ImageDraw

from emotion.clips.video import ONLY_CLIPS, Video, VideoError, open_stream
from emotion.errors import UserError, is_machine_fault
from emotion.executors import LocalExecutor
from emotion.files import unfinished
from emotion.inference.drawing import FASTSTART, font
from emotion.stacks.sampling import NOMINAL_FPS, number_frames
from emotion.watchdog import watchdog

FPS = int(NOMINAL_FPS)
LONG_PX, SHORT_PX = 1280, 720
SOUND_HZ = 48_000
FADE_S = 0.02  # of the sound at both ends of a second, against clicks
MARGIN = 0.04  # of the short side, around the date
X264 = {"crf": "20", "preset": "veryfast", "bf": "0"}  # without B-frames, times are in order
SAMPLES = 1024  # of a frame of AAC


@dataclass(frozen=True)
class Scene:
    """A day of the film."""

    clip: Path
    start_s: float  # of the second
    caption: str


@dataclass(frozen=True)
class Second:
    """A scene that was cut."""

    video: Path  # H.264 in MP4
    sound: Path | None  # (2, SOUND_HZ) float32 of NumPy; None if the clip has none


def best_second(timeline: Sequence[dict], emotion: str | None, duration_s: float | None) -> float:
    """Return where the second begins that shows an entry's emotion best; else in the middle."""
    latest = max(0.0, (duration_s or 1.0) - 1)
    parts = [part for part in timeline if emotion in part["probabilities"]]
    if not parts:
        return latest / 2
    peak = max(parts, key=lambda part: part["probabilities"][emotion])
    return min(latest, max(0.0, (peak["start_s"] + peak["stop_s"]) / 2 - 0.5))


def make_film(
    scenes: Sequence[Scene], path: Path, folder: Path, num_workers: int
) -> Iterator[tuple[int, list[str]]]:
    """Make a film in MP4, atomically.

    Args:
        scenes: in their order.
        path: of the film.
        folder: for temporary files, removed by the caller.
        num_workers: processes that cut scenes.

    Yields:
        How many scenes were tried, and the captions of those that could not be cut so far.

    Raises:
        UserError: none could be cut.
    """
    seconds: dict[int, Second] = {}
    missing: dict[int, str] = {}
    size = choose_size(folder, scenes)
    jobs = list(enumerate(scenes))
    for (place, scene), second in LocalExecutor(num_workers).run(
        partial(cut_second, folder, size), jobs, folder
    ):
        if second is None:
            missing[place] = scene.caption
        else:
            seconds[place] = second
        yield len(seconds) + len(missing), [missing[each] for each in sorted(missing)]
    if not seconds:
        raise UserError("no clip of these days can be read")
    join([seconds[place] for place in sorted(seconds)], path)


def choose_size(folder: Path, scenes: Sequence[Scene]) -> tuple[int, int]:
    """Return width and height: upright if most clips are."""
    shapes = LocalExecutor(1).run(is_upright, [scene.clip for scene in scenes], folder)
    upright = [shape for _, shape in shapes if shape is not None]
    is_tall = sum(upright) * 2 > len(upright)
    return (SHORT_PX, LONG_PX) if is_tall else (LONG_PX, SHORT_PX)


def is_upright(clip: Path) -> bool | None:
    """Return whether a clip's first picture is higher than wide; None if it cannot be read."""
    try:
        with watchdog.watch(clip, ""):
            height, width = next(Video(clip).pictures()).rgb().shape[:2]
    except (VideoError, StopIteration):
        return None
    return height > width


def cut_second(folder: Path, size: tuple[int, int], scene: tuple[int, Scene]) -> Second | None:
    """Cut one second of a clip into files of a folder; None if it cannot be read."""
    place, (clip, start_s, caption) = scene[0], vars(scene[1]).values()
    video, sound = folder / f"{place}.mp4", folder / f"{place}.npy"
    try:
        with watchdog.watch(clip, ""):
            frames = list(second_of(clip, start_s, size, caption))
            samples = sound_of(clip, start_s)
    except Exception as error:  # one clip must not stop the others; it is named
        if is_machine_fault(error):
            raise
        return None
    frames += frames[-1:] * (FPS - len(frames))  # of a clip that ends before
    with av.open(str(video), "w") as file:
        stream = file.add_stream("libx264", FPS, options=X264)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    if samples is not None:
        np.save(sound, samples)
    return Second(video, None if samples is None else sound)


def second_of(
    clip: Path, start_s: float, size: tuple[int, int], caption: str
) -> Iterator[np.ndarray]:
    """Yield up to `FPS` frames, (H, W, 3) uint8 RGB, of a second that begins at or before a time.

    The last frame of a shorter clip is yielded once.
    """
    video = Video(clip)
    first, last, count = round(start_s * FPS), None, 0
    pictures = ((picture.time_s, picture) for picture in video.pictures())
    drawn: tuple[object, np.ndarray] | None = None  # a frame may repeat
    for number, picture in number_frames(pictures, "time", video.fps):
        last = picture
        if number < first:
            continue
        if drawn is None or drawn[0] is not picture:
            drawn = picture, draw_scene(picture.rgb(), size, caption)
        yield drawn[1]
        count += 1
        if count == FPS:
            return
    if count == 0:
        yield draw_scene(last.rgb(), size, caption)


def draw_scene(frame: np.ndarray, size: tuple[int, int], caption: str) -> np.ndarray:
    """Fit (H, W, 3) uint8 RGB into a picture of a size, (width, height), with a caption."""
    image = Image.fromarray(frame)
    scale = min(size[0] / image.width, size[1] / image.height)
    fitted = image.resize(
        tuple(max(1, round(side * scale)) for side in image.size), Image.Resampling.BICUBIC
    )
    canvas = Image.new("RGB", size)
    canvas.paste(fitted, tuple((a - b) // 2 for a, b in zip(size, fitted.size, strict=True)))
    margin = round(MARGIN * min(size))
    place = margin, size[1] - margin
    letters = font(margin * 1.1)
    ImageDraw(canvas).text(
        place, caption, "white", letters, "ls", stroke_width=2, stroke_fill="black"
    )
    return np.asarray(canvas)


def sound_of(clip: Path, start_s: float) -> np.ndarray | None:
    """Return the sound of a second, (2, SOUND_HZ) float32; None if the clip has none."""
    open_stream(clip).container.close()  # raises what is wrong with it
    resampler = AudioResampler("fltp", "stereo", SOUND_HZ)
    samples = np.zeros((2, SOUND_HZ), np.float32)
    try:
        with av.open(str(clip), options=ONLY_CLIPS) as container:
            if not container.streams.audio:
                return None
            zero_s = float((container.start_time or 0) / av.time_base)
            for frame in container.decode(audio=0):
                watchdog.progress()
                if frame.time is None:
                    continue
                begin = round((frame.time - zero_s - start_s) * SOUND_HZ)
                if begin >= SOUND_HZ:
                    break
                for part in resampler.resample(frame):
                    values = part.to_ndarray()  # (2, N)
                    low, high = max(0, begin), min(SOUND_HZ, begin + values.shape[1])
                    if low < high:
                        samples[:, low:high] = values[:, low - begin : high - begin]
                    begin += values.shape[1]
    except (av.FFmpegError, IndexError, ValueError):  # damaged: what was decoded so far
        pass
    fade = np.linspace(0, 1, round(FADE_S * SOUND_HZ), dtype=np.float32)
    samples[:, : len(fade)] *= fade
    samples[:, -len(fade) :] *= fade[::-1]
    return np.nan_to_num(samples).clip(-1, 1)


def join(seconds: Sequence[Second], path: Path) -> None:
    """Join seconds to a film, with sound if one of them has it, atomically."""
    has_sound = any(second.sound for second in seconds)
    with unfinished(path) as temporary, av.open(str(temporary), "w", options=FASTSTART) as film:
        with av.open(str(seconds[0].video)) as first:
            video = film.add_stream_from_template(first.streams.video[0])
        if has_sound:
            sound = film.add_stream("aac", SOUND_HZ, layout="stereo")
        waiting = np.zeros((2, 0), np.float32)
        written = 0  # samples
        for place, second in enumerate(seconds):
            with av.open(str(second.video)) as file:
                stream = file.streams.video[0]
                offset = round(place / stream.time_base)
                for packet in file.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = video
                    film.mux(packet)
            if not has_sound:
                continue
            samples = np.load(second.sound) if second.sound else np.zeros((2, SOUND_HZ), np.float32)
            waiting = np.concatenate([waiting, samples], axis=1)
            is_last = place == len(seconds) - 1
            while waiting.shape[1] >= SAMPLES or (is_last and waiting.shape[1]):
                part = np.ascontiguousarray(waiting[:, :SAMPLES])
                waiting = waiting[:, SAMPLES:]
                frame = av.AudioFrame.from_ndarray(part, "fltp", "stereo")
                frame.sample_rate, frame.pts = SOUND_HZ, written
                frame.time_base = Fraction(1, SOUND_HZ)
                written += part.shape[1]
                film.mux(sound.encode(frame))
        if has_sound:
            film.mux(sound.encode(None))
