"""Draw answers: the annotated clip, the timeline, and the cover frame."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from emotion.clips.still import open_clip
from emotion.files import unfinished
from emotion.inference.answer import (
    Answer,
    Probabilities,
    SampledFace,
    Window,
    summary,
    top_label,
)
from emotion.stacks.sampling import number_frames
from emotion.stacks.segment import Box

ANNOTATED, TIMELINE, COVER = "annotated.mp4", "timeline.png", "cover.jpg"
SHORT_SIDE_PX = 480  # smaller clips are enlarged: text needs as much
LONG_SIDE_PX = 1920  # larger clips are reduced
NEAR_PEAK = 0.25  # fraction of a window on each side of its middle
THUMBNAILS = 9
THUMBNAIL_PX = 160
FASTSTART = {"movflags": "faststart"}  # a browser can play the clip while it loads
COLORS = (  # RGB; distinct for color-blind readers (Okabe and Ito), and readable on dark
    (230, 97, 1), (240, 200, 40), (150, 160, 170), (86, 180, 233), (204, 121, 167),
    (0, 158, 115), (0, 114, 178), (213, 94, 0),
)  # fmt: skip
DARK, LIGHT, FAINT = (24, 26, 30), (240, 240, 240), (62, 66, 74)


def render(answer: Answer, by: str, unsure_below: float, folder: Path) -> None:
    """Decode a clip again and write its pictures, each atomically.

    Args:
        answer: with windows.
        by: how its frames are numbered, `sampling.by`.
        unsure_below: threshold of the top probability.
        folder: for `annotated.mp4`, `timeline.png` and, if there is a label, `cover.jpg`.

    Raises:
        VideoError: the clip cannot be read any more.
    """
    video = open_clip(Path(answer.clip))
    cover = cover_frame(answer)
    shown = np.linspace(0, answer.num_frames - 1, THUMBNAILS).round().astype(int).tolist()
    thumbnails: dict[int, np.ndarray] = {}
    boxes = FaceTrack(answer.faces)
    pictures = ((picture.time_s, picture) for picture in video.pictures())
    with write_clip(folder / ANNOTATED, answer.fps) as write:
        for number, picture in number_frames(pictures, by, video.fps):
            frame = picture.rgb()
            if number in shown:
                thumbnails[number] = thumbnail(frame)
            if number == cover:
                write_picture(folder / COVER, frame)
            running = probabilities_at(answer.windows, number)
            write(annotate(frame, boxes.at(number), running, unsure_below))
    with unfinished(folder / TIMELINE) as temporary:
        figure = timeline(answer, list(thumbnails.values()), unsure_below)
        figure.savefig(temporary, dpi=110)


def cover_frame(answer: Answer) -> int | None:
    """Return the number of the frame with the sharpest face near the peak of the clip's emotion.

    None if the answer has no label or no window has probabilities.
    """
    label = answer.label
    windows = [window for window in answer.windows if window.probabilities]
    if label is None or not windows:
        return None
    peak = max(windows, key=lambda window: window.probabilities[label])
    inside = [
        face
        for face in answer.faces
        if peak.first_frame <= face.frame < peak.first_frame + peak.num_frames
    ]
    near = [face for face in inside if abs(face.frame - peak.middle) <= NEAR_PEAK * peak.num_frames]
    return max(near or inside, key=lambda face: face.sharpness).frame


def probabilities_at(windows: Sequence[Window], frame: float) -> Probabilities | None:
    """Interpolate probabilities linearly between the middles of windows.

    Args:
        windows: in the order of time.
        frame: the frame's number. Before the first middle and after the last one, the
            probabilities are constant.

    Returns:
        The probabilities; None if the nearest window has none.
    """
    if not windows:
        return None
    after = next((i for i, window in enumerate(windows) if window.middle > frame), len(windows))
    left, right = windows[max(0, after - 1)], windows[min(after, len(windows) - 1)]
    if left is right or left.probabilities is None or right.probabilities is None:
        nearest = min(left, right, key=lambda window: abs(window.middle - frame))
        return nearest.probabilities
    share = (frame - left.middle) / (right.middle - left.middle)
    return {
        label: (1 - share) * probability + share * right.probabilities[label]
        for label, probability in left.probabilities.items()
    }


class FaceTrack:
    """The box of the person's face in every frame, interpolated between the sampled frames."""

    def __init__(self, faces: Sequence[SampledFace]) -> None:
        """Use the faces of a clip, in the order of time."""
        self._frames = np.array([face.frame for face in faces])
        self._boxes = np.array([face.box for face in faces], dtype=float).reshape(-1, 4)
        gaps = np.diff(self._frames)
        self._interval = int(gaps.min()) if gaps.size else 1

    def at(self, frame: int) -> Box | None:
        """Interpolate the box at a frame; None without a face.

        A sampled frame without a face ends a track at the sampled frame before it.
        """
        after = int(np.searchsorted(self._frames, frame))
        if after < len(self._frames) and self._frames[after] == frame:
            return tuple(self._boxes[after].astype(int).tolist())
        if after == 0:
            return None
        before = after - 1
        if after == len(self._frames):  # the last frames of a clip, between samples
            close = frame - self._frames[before] < self._interval
            return tuple(self._boxes[before].astype(int).tolist()) if close else None
        if self._frames[after] - self._frames[before] > self._interval:
            return None
        share = (frame - self._frames[before]) / (self._frames[after] - self._frames[before])
        moved = (1 - share) * self._boxes[before] + share * self._boxes[after]
        return tuple(moved.round().astype(int).tolist())


def colors_of(labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Assign an RGB color to each label."""
    return {label: COLORS[i % len(COLORS)] for i, label in enumerate(labels)}


def font(size_px: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load the font that comes with Matplotlib, which has non-ASCII letters."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(folder / name), max(8, round(size_px)))


def annotate(
    frame: np.ndarray,
    box: Box | None,
    probabilities: Probabilities | None,
    unsure_below: float,
    note: str = "no face",
) -> np.ndarray:
    """Draw the face's box on a frame, and a bar for each probability below it.

    Args:
        frame: (H, W, 3) uint8 RGB.
        box: of the face, or None.
        probabilities: of each label, or None.
        unsure_below: threshold of the top probability.
        note: text below a frame without probabilities.

    Returns:
        (H', W', 3) uint8 RGB, of even height and width, its short side at least 480 px.
    """
    height, width = frame.shape[:2]
    scale = max(1.0, SHORT_SIDE_PX / min(height, width))
    scale = min(scale, LONG_SIDE_PX / max(height, width))
    width, height = (2 * round(side * scale / 2) for side in (width, height))
    if (height, width) != frame.shape[:2]:
        smaller = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame = cv2.resize(frame, (width, height), interpolation=smaller)
    text_px = max(13, width // 48)
    strip = np.full((2 * round(1.9 * text_px), width, 3), DARK, np.uint8)
    picture = Image.fromarray(np.vstack([frame, strip]))
    draw = ImageDraw.Draw(picture)
    colors = colors_of(list(probabilities or ()))
    label = top_label(probabilities)
    sure = label is not None and probabilities[label] >= unsure_below
    if box is not None:
        corners = tuple(round(edge * scale) for edge in box)
        color = colors[label] if sure else LIGHT
        draw.rectangle(corners, outline=color, width=max(2, text_px // 7))
        if label is not None:
            text = summary(probabilities, unsure_below)
            draw_tag(draw, corners, text, color, font(text_px, bold=True))
    if probabilities is None:
        place = (width / 2, height + strip.shape[0] / 2)
        draw.text(place, note, fill=LIGHT, font=font(text_px), anchor="mm")
    else:
        draw_bars(draw, probabilities, colors, (width, height), text_px)
    return np.asarray(picture)


def draw_tag(
    draw: ImageDraw.ImageDraw,
    corners: Box,
    text: str,
    color: tuple[int, int, int],
    letters: ImageFont.FreeTypeFont,
) -> None:
    """Write a text above a box, or inside it if there is no room."""
    left, top = corners[:2]
    _, _, right, bottom = draw.textbbox((0, 0), text, font=letters)
    pad = letters.size // 4
    if top - bottom - 2 * pad >= 0:
        top -= bottom + 2 * pad
    draw.rectangle((left, top, left + right + 2 * pad, top + bottom + 2 * pad), fill=color)
    draw.text((left + pad, top + pad), text, fill=DARK, font=letters)


def draw_bars(
    draw: ImageDraw.ImageDraw,
    probabilities: Probabilities,
    colors: Mapping[str, tuple[int, int, int]],
    size: tuple[int, int],
    text_px: int,
) -> None:
    """Draw each label's name, percentage and bar below a frame of `size`, (width, height)."""
    width, height = size
    cell = width / len(probabilities)
    gap = cell * 0.07
    names = font(min(text_px, cell / 8.5))  # "Neutral 100%" takes 8 times its height
    for place, (label, probability) in enumerate(probabilities.items()):
        left, right = place * cell + gap, (place + 1) * cell - gap
        line = height + 0.6 * text_px
        top = label == top_label(probabilities)
        color = LIGHT if top else (170, 174, 180)
        draw.text((left, line), label, fill=color, font=names)
        draw.text((right, line), f"{probability:.0%}", fill=color, font=names, anchor="ra")
        low, high = height + 2.2 * text_px, height + 2.9 * text_px
        draw.rectangle((left, low, right, high), fill=FAINT)
        draw.rectangle((left, low, left + (right - left) * probability, high), fill=colors[label])


def timeline(answer: Answer, thumbnails: Sequence[np.ndarray], unsure_below: float) -> Figure:
    """Draw the probabilities over the time of a clip.

    Args:
        answer: with windows.
        thumbnails: (h, w, 3) uint8 RGB, of evenly spaced frames, at least one.
        unsure_below: drawn as a line, if above 0.
    """
    colors = colors_of(list(answer.probabilities or ()))
    height_px, width_px = thumbnails[0].shape[:2]
    strip = 9.0 / len(thumbnails) * height_px / width_px
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=(9.0, strip + 3.0), layout="constrained")
        film, axis = figure.subplots(2, 1, height_ratios=[strip, 2.7])
        film.imshow(np.hstack(thumbnails), aspect="auto")
        film.axis("off")
        text = summary(answer.probabilities, unsure_below)
        if answer.label is None:
            text = "; ".join(answer.reasons)
        title = f"{Path(answer.clip).name}: {text}"
        film.set_title(title, fontsize=11, loc="left")
        end_s = answer.seconds(answer.num_frames)
        for span in spans_without(answer.windows, answer.num_frames):
            start_s, stop_s = map(answer.seconds, span)
            axis.axvspan(start_s, stop_s, color="0.92", zorder=0)
            axis.text((start_s + stop_s) / 2, 0.9, "no face", ha="center", color="0.4", fontsize=8)
        for label, color in colors.items():
            draw_line(axis, answer, label, tuple(part / 255 for part in color))
        if unsure_below > 0:
            axis.axhline(unsure_below, color="0.4", linewidth=0.8, linestyle=":")
            axis.text(end_s, unsure_below, " unsure below", va="center", fontsize=8, color="0.4")
        cover = cover_frame(answer)
        if cover is not None:
            axis.axvline(answer.seconds(cover), color="0.2", linewidth=0.8, linestyle="--")
            axis.text(answer.seconds(cover), 1.05, "cover", ha="center", fontsize=8)
        axis.set(xlim=(0, end_s), ylim=(-0.02, 1.02), xlabel="seconds", ylabel="probability")
        axis.spines[["top", "right"]].set_visible(False)
        if colors:
            figure.legend(loc="outside lower center", ncols=len(colors), frameon=False)
    return figure


def draw_line(axis: Axes, answer: Answer, label: str, color: tuple[float, float, float]) -> None:
    """Draw one label's probability: a point at each window's middle, thin lines to both ends."""
    windows = answer.windows
    middles = [answer.seconds(window.middle) for window in windows]
    values = [w.probabilities[label] if w.probabilities else np.nan for w in windows]
    winner = label == answer.label
    width = 2.6 if winner else 1.4
    axis.plot(middles, values, "o-", color=color, linewidth=width, markersize=3, label=label)
    ends = [0.0, answer.seconds(answer.num_frames)]
    for end, middle, value in (
        (ends[0], middles[0], values[0]),
        (ends[1], middles[-1], values[-1]),
    ):
        axis.plot([end, middle], [value, value], color=color, linewidth=0.5 * width, alpha=0.6)


def spans_without(windows: Sequence[Window], num_frames: int) -> Iterator[tuple[float, float]]:
    """Yield the first and the last frame of each part of a clip without probabilities.

    Neighboring windows, in the order of time, share the frames between their middles equally.
    """
    middles = [window.middle for window in windows]
    between = [(left + right) / 2 for left, right in pairwise(middles)]
    edges = [0.0, *between, float(num_frames)]
    spans = zip(windows, pairwise(edges), strict=True)
    for has_answer, group in groupby(spans, key=lambda each: each[0].probabilities is not None):
        if not has_answer:
            lengths = [span for _, span in group]
            yield lengths[0][0], lengths[-1][1]


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """Resize a frame, (H, W, 3) uint8 RGB, for the timeline."""
    width = max(1, round(frame.shape[1] * THUMBNAIL_PX / frame.shape[0]))
    return cv2.resize(frame, (width, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)


def write_picture(path: Path, frame: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as JPEG, atomically."""
    with unfinished(path) as temporary:
        Image.fromarray(frame).save(temporary, quality=95)


@contextmanager
def write_clip(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a clip as H.264 in MP4, atomically.

    Yields:
        A function that takes the next frame, (H, W, 3) uint8 RGB, of even height and width.
    """
    with unfinished(path) as temporary, av.open(str(temporary), "w", options=FASTSTART) as film:
        rate = Fraction(fps).limit_denominator(1001)
        stream = film.add_stream("libx264", rate, options={"crf": "20", "preset": "fast"})
        stream.pix_fmt = "yuv420p"  # every player supports it

        def write(frame: np.ndarray) -> None:
            if not stream.codec_context.is_open:
                stream.height, stream.width = frame.shape[:2]
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

        yield write
        film.mux(stream.encode(None))
