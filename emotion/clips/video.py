"""Decode the frames of a clip with PyAV, which, unlike OpenCV, gives their timestamps.

It also converts colors on demand, and reports why a file cannot be read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emotion.watchdog import watchdog

av.logging.set_level(av.logging.PANIC)  # damage is reported as VideoError or as too few frames

MAX_FPS = 1000.0  # higher frame rates in a header are wrong
MAX_PIXELS = 50_000_000  # of a frame or a picture: 0.7 GB while it is read
# Formats that are opened whatever the file's name; sounds and pictures are then refused by name.
# Not in it are lists of other files (ffconcat, HLS): no clip may open other paths or addresses.
FORMATS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v"),
    *("mjpeg", "ogg", "mxf", "ivf", "gif", "mp3", "wav", "aac", "flac"),
    *("image2", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "gif_pipe"),
)
SMALL = {"max_pixels": str(MAX_PIXELS)}  # makes decoders refuse larger frames
ONLY_CLIPS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file", **SMALL}
TOO_LARGE = f"its frames have more than {MAX_PIXELS:,} pixels, or no size"


class VideoError(ValueError):
    """A file that is not a video or picture, or of which no frame can be decoded."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame, whose colors are converted on demand."""

    frame: av.VideoFrame
    time_s: float | None  # presentation time by the clip's clock; None if the clip lacks it
    _converter: VideoReformatter

    def rgb(self) -> np.ndarray:
        """Return the upright picture, (H, W, 3) uint8 RGB."""
        converted = self._converter.reformat(self.frame, format="rgb24").to_ndarray()
        quarter_turns = round(self.frame.rotation / 90)  # counter-clockwise, by the metadata
        return np.ascontiguousarray(np.rot90(converted, quarter_turns))


class Pictures(Protocol):
    """A source of frames: a clip, a still, or a camera."""

    fps: float  # approximate

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames in presentation order."""


class Video:
    """One pass over a clip.

    Attributes:
        fps: frames per second by the header; 30 if it is missing or invalid.
        num_frames: frames decoded so far; headers can be wrong about the total.
    """

    def __init__(self, path: Path) -> None:
        """Open a clip, or raise a VideoError."""
        self.path = path
        if not os.path.isfile(path):
            raise VideoError(why_unreadable(path, FileNotFoundError(), "video"))
        try:
            self._container = av.open(str(path), options=ONLY_CLIPS)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(why_unreadable(path, error, "video")) from None
        try:
            self._stream = video_stream(self._container)
        except VideoError:
            self._container.close()
            raise
        self._stream.thread_type = "NONE"  # one process per core already uses all cores
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = SMALL
        rate = float(self._stream.average_rate or 0)
        self.fps = rate if 0 < rate <= MAX_FPS else 30.0
        self.num_frames = 0

    def pictures(self) -> Iterator[Picture]:
        """Decode the whole clip in presentation order, skipping damaged packets."""
        converter = VideoReformatter()
        # AVI has no presentation timestamps. Those that FFmpeg derives are out of order for H.264
        # with B-frames; its decoding timestamps, in output order, are correct.
        is_avi = self._container.format.name == "avi"
        with self._container:
            for packet in readable_packets(self._container, self._stream):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    continue
                except av.ArgumentError:
                    raise VideoError(TOO_LARGE) from None
                for frame in frames:
                    ticks = frame.dts if is_avi else frame.pts
                    time_s = None if ticks is None else float(ticks * frame.time_base)
                    watchdog.progress()
                    yield Picture(frame, time_s, converter)
                    self.num_frames += 1
        if self.num_frames == 0:
            raise VideoError("not a single frame can be decoded")


def readable_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet]:
    """Yield a stream's packets up to its end, or up to where the file is truncated."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        return


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Return the first video stream that is not cover art, or raise a VideoError."""
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise VideoError("it is a picture, not a video")
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    if container.streams.audio:
        raise VideoError("it has sound, but no video")
    raise VideoError("it has no video")


def why_unreadable(path: Path, error: Exception, noun: str) -> str:
    """Return why opening a file, which should be a `noun`, raised an error; names no file."""
    if path.is_symlink() and not path.exists():
        return "it is a symbolic link to a file that does not exist"
    if os.path.exists(path) and not os.path.isfile(path):
        return "it is a folder, a pipe or a device, not a file"
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return "permission to read it is denied"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    return f"it is not a {noun}, or is damaged beyond reading"
