"""Draw answers: the annotated clip, the timeline, and the cover frame."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFont
from PIL.ImageDraw import ImageDraw as Draw

from emotion.clips.still import open_clip
from emotion.escape import for_terminal
from emotion.files import unfinished
from emotion.inference.answer import (
    Answer,
    Probabilities,
    Window,
    in_words,
    summary,
    top_label,
)
from emotion.stacks.blendshapes import BLENDSHAPES
from emotion.stacks.face_crop import Box
from emotion.stacks.sampling import number_frames
from emotion.stacks.settings import CacheSettings

ANNOTATED, TIMELINE, COVER = "annotated.mp4", "timeline.png", "cover.jpg"
HEAT_MAP = "blendshapes.png"
SHORT_SIDE_PX = 480  # smaller clips are enlarged: text needs as much
LONG_SIDE_PX = 1920  # larger clips are reduced
NEAR_PEAK = 0.25  # fraction of a window on each side of its middle
THUMBNAILS = 9
THUMBNAIL_PX = 160
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}
FASTSTART = {"movflags": "faststart"}  # a browser can play the clip while it loads
COLORS = (  # RGB; distinct for color-blind readers (Okabe and Ito), and readable on dark
    (230, 97, 1), (240, 200, 40), (150, 160, 170), (86, 180, 233), (204, 121, 167),
    (0, 158, 115), (0, 114, 178), (213, 94, 0),
)  # fmt: skip
Color = tuple[int, int, int]
DARK, LIGHT, FAINT = (24, 26, 30), (240, 240, 240), (62, 66, 74)


def render(answer: Answer, settings: CacheSettings, unsure_below: float, folder: Path) -> None:
    """Decode a clip again and write its pictures, each atomically; the cover if it has a label.

    The answer has windows and was made with these settings.

    Raises:
        VideoError: the clip cannot be read any more.
    """
    video = open_clip(Path(answer.clip))
    cover = cover_frame(answer)
    shown = np.linspace(0, answer.num_frames - 1, THUMBNAILS).round().astype(int).tolist()
    thumbnails: dict[int, np.ndarray] = {}
    boxes = {face.frame: face.box for face in answer.faces}
    why = f"{answer.label}: {in_words(answer.why)}" if answer.why else ""
    pictures = ((picture.time_s, picture) for picture in video.pictures())
    with write_clip(folder / ANNOTATED, answer.fps) as write:
        for number, picture in number_frames(pictures, settings.by, video.fps):
            frame = picture.rgb()
            if number in shown:
                width = max(1, round(frame.shape[1] * THUMBNAIL_PX / frame.shape[0]))
                thumbnails[number] = cv2.resize(
                    frame, (width, THUMBNAIL_PX), interpolation=cv2.INTER_AREA
                )
            if number == cover:
                with unfinished(folder / COVER) as temporary:
                    Image.fromarray(frame).save(temporary, quality=95)
            box = box_at(boxes, number, settings.interval)
            probabilities = probabilities_at(answer.windows, number)
            write(annotate(frame, box, probabilities, unsure_below, why=why))
    with unfinished(folder / TIMELINE) as temporary:
        figure = timeline(answer, list(thumbnails.values()), unsure_below)
        figure.savefig(temporary, dpi=110)
    if answer.faces:
        with unfinished(folder / HEAT_MAP) as temporary:
            heat_map(answer).savefig(temporary, dpi=110)


def cover_frame(answer: Answer) -> int | None:
    """Return the number of the frame with the sharpest face near the peak of the clip's emotion.

    None if the answer has no label or no window has probabilities.
    """
    label = answer.label
    windows = [window for window in answer.windows if window.probabilities]
    if label is None or not windows:
        return None
    peak = max(windows, key=lambda window: window.probabilities[label])
    inside = [f for f in answer.faces if peak.first_frame <= f.frame < peak.stop_frame]
    near = [face for face in inside if abs(face.frame - peak.middle) <= NEAR_PEAK * peak.num_frames]
    return max(near or inside, key=lambda face: face.sharpness).frame


def probabilities_at(windows: Sequence[Window], frame: float) -> Probabilities | None:
    """Interpolate probabilities linearly between the middles of windows.

    They are constant before the first middle and after the last one, and None if the nearest window
    has none.
    """
    nearest = min(windows, key=lambda window: abs(window.middle - frame), default=None)
    if nearest is None or nearest.probabilities is None:
        return None
    known = [window for window in windows if window.probabilities]
    middles = [window.middle for window in known]
    return {
        label: float(np.interp(frame, middles, [w.probabilities[label] for w in known]))
        for label in nearest.probabilities
    }


def box_at(boxes: Mapping[int, Box], frame: int, interval: int) -> Box | None:
    """Interpolate the boxes of the sampled frames that show a face; None without a face.

    The last box before a sampled frame without a face is kept until that frame.
    """
    past = frame % interval
    box, after = (boxes.get(frame - past + ahead) for ahead in (0, interval))
    if box is None or after is None:
        return box
    share = past / interval
    return tuple(round((1 - share) * b + share * a) for b, a in zip(box, after, strict=True))


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
    why: str = "",
) -> np.ndarray:
    """Draw the face's box on a frame, (H, W, 3) uint8 RGB, and a bar for each probability below it.

    Without probabilities, `note` is written in place of the bars. A line below has `why`, unless it
    is empty. The result, (H', W', 3) uint8 RGB, has an even height and width, and its short side
    has at least 480 px.
    """
    height, width = frame.shape[:2]
    scale = max(1.0, SHORT_SIDE_PX / min(height, width))
    scale = min(scale, LONG_SIDE_PX / max(height, width))
    width, height = (2 * round(side * scale / 2) for side in (width, height))
    if (height, width) != frame.shape[:2]:
        smaller = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame = cv2.resize(frame, (width, height), interpolation=smaller)
    text_px = max(13, width // 48)
    bars = 2 * round(1.9 * text_px)
    line = 2 * round(0.8 * text_px) if why else 0
    strip = np.full((bars + line, width, 3), DARK, np.uint8)
    picture = Image.fromarray(np.vstack([frame, strip]))
    draw = Draw(picture)
    label = top_label(probabilities)
    sure = label is not None and probabilities[label] >= unsure_below
    if box is not None:
        corners = tuple(round(edge * scale) for edge in box)
        color = COLORS[list(probabilities).index(label) % len(COLORS)] if sure else LIGHT
        draw.rectangle(corners, outline=color, width=max(2, text_px // 7))
        if label is not None:
            draw_tag(draw, corners, summary(probabilities, unsure_below), color, text_px)
    if probabilities is None:
        place = (width / 2, height + bars / 2)
        draw.text(place, note, fill=LIGHT, font=font(text_px), anchor="mm")
    else:
        draw_bars(draw, probabilities, width, height, text_px)
    if why:
        letters = font(text_px)
        letters = font(text_px * min(1, 0.96 * width / draw.textlength(why, font=letters)))
        draw.text((width / 2, height + bars), why, fill=LIGHT, font=letters, anchor="ma")
    return np.asarray(picture)


def draw_tag(draw: Draw, corners: Box, text: str, color: Color, text_px: int) -> None:
    """Write a text above a box, or inside it if there is no room."""
    letters = font(text_px, bold=True)
    left, top = corners[:2]
    _, _, right, bottom = draw.textbbox((0, 0), text, font=letters)
    pad = letters.size // 4
    if top - bottom - 2 * pad >= 0:
        top -= bottom + 2 * pad
    draw.rectangle((left, top, left + right + 2 * pad, top + bottom + 2 * pad), fill=color)
    draw.text((left + pad, top + pad), text, fill=DARK, font=letters)


def draw_bars(
    draw: Draw, probabilities: Probabilities, width: int, height: int, text_px: int
) -> None:
    """Draw each label's name, percentage and bar below a frame of this width and height."""
    cell = width / len(probabilities)
    gap = cell * 0.07
    names = font(min(text_px, cell / 8.5))  # "Neutral 100%" takes 8 times its height
    line, low, high = (height + part * text_px for part in (0.6, 2.2, 2.9))
    for place, (label, probability) in enumerate(probabilities.items()):
        left, right = place * cell + gap, (place + 1) * cell - gap
        color = LIGHT if label == top_label(probabilities) else (170, 174, 180)
        draw.text((left, line), label, fill=color, font=names)
        draw.text((right, line), f"{probability:.0%}", fill=color, font=names, anchor="ra")
        draw.rectangle((left, low, right, high), fill=FAINT)
        stop = left + (right - left) * probability
        draw.rectangle((left, low, stop, high), fill=COLORS[place % len(COLORS)])


def timeline(answer: Answer, thumbnails: Sequence[np.ndarray], unsure_below: float) -> Figure:
    """Draw the probabilities over the time of a clip, and the threshold if it is above 0.

    The thumbnails, (h, w, 3) uint8 RGB, are of evenly spaced frames; at least one. Lines are
    interrupted where there is no face.
    """
    labels = answer.probabilities or {}
    height_px, width_px = thumbnails[0].shape[:2]
    strip = 9.0 / len(thumbnails) * height_px / width_px
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, strip + 3.0), layout="constrained")
        film, axis = figure.subplots(2, 1, height_ratios=[strip, 2.7])
        film.imshow(np.hstack(thumbnails), aspect="auto")
        film.axis("off")
        text = summary(labels, unsure_below) if labels else "; ".join(answer.reasons)
        title = for_terminal(f"{Path(answer.clip).name}: {text}")
        if answer.why:
            title += f" | {in_words(answer.why)}"
        film.set_title(title, fontsize=11, loc="left")
        end_s = answer.seconds(answer.num_frames)
        middles = [answer.seconds(window.middle) for window in answer.windows]
        for label, color in zip(labels, cycle(COLORS)):
            values = [w.probabilities[label] if w.probabilities else np.nan for w in answer.windows]
            axis.plot(
                [0, *middles, end_s],
                [values[0], *values, values[-1]],
                "o-",
                markevery=slice(1, -1),  # the windows
                markersize=3,
                color=tuple(part / 255 for part in color),
                linewidth=2.6 if label == answer.label else 1.4,
                label=label,
            )
        if unsure_below > 0:
            axis.axhline(unsure_below, color="0.4", linewidth=0.8, linestyle=":")
            axis.text(end_s, unsure_below, " unsure below", va="center", fontsize=8, color="0.4")
        cover = cover_frame(answer)
        if cover is not None:
            axis.axvline(answer.seconds(cover), color="0.2", linewidth=0.8, linestyle="--")
            axis.text(answer.seconds(cover), 1.05, "cover", ha="center", fontsize=8)
        axis.set(xlim=(0, end_s), ylim=(-0.02, 1.02), xlabel="seconds", ylabel="probability")
        axis.spines[["top", "right"]].set_visible(False)
        if labels:
            figure.legend(loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def heat_map(answer: Answer) -> Figure:
    """Draw the blendshapes of a clip's faces, at least one, over time; gray where there is none."""
    frames = [face.frame for face in answer.faces]
    step = int(np.gcd.reduce(np.diff(frames))) or answer.num_frames
    places = (np.array(frames) - frames[0]) // step
    values = np.full((len(BLENDSHAPES), places[-1] + 1), np.nan)
    values[:, places] = np.transpose([face.blendshapes for face in answer.faces])
    start_s, stop_s = answer.seconds(frames[0]), answer.seconds(frames[-1] + step)
    names = BLENDSHAPES[1:]  # the first is unused
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 8}):
        figure = Figure(figsize=(9.0, 8.0), layout="constrained")
        axis = figure.subplots()
        axis.set_facecolor("0.85")
        extent = (start_s, stop_s, len(names) - 0.5, -0.5)
        options = {"aspect": "auto", "cmap": "magma", "vmin": 0, "vmax": 1}
        shown = axis.imshow(values[1:], extent=extent, interpolation="nearest", **options)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set(xlabel="seconds", xlim=(0, max(stop_s, answer.seconds(answer.num_frames))))
        axis.set_title(f"{Path(answer.clip).name}: blendshapes", fontsize=11, loc="left")
        figure.colorbar(shown, pad=0.01, fraction=0.03)
    return figure


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
