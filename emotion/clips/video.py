"""Decode the frames of a clip with PyAV, which, unlike OpenCV, gives their timestamps.

It also converts colors on demand, and reports why a file cannot be read.
"""

import logging
import os
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from emotion.watchdog import watchdog

# Damage is reported as VideoError or as too few frames. FFmpeg's messages serve `Video` alone.
av.logging.set_level(av.logging.INFO)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").setLevel(logging.CRITICAL + 1)

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
# From the times of all frames, in seconds, and the frame rate: the numbers of the frames to decode.
Wanted = Callable[[list[float], float], Collection[int]]
TimedFrame = tuple[av.VideoFrame | None, float | None]


class VideoError(ValueError):
    """A file that is not a video or picture, or of which no frame can be decoded."""


@dataclass(frozen=True)
class Picture:
    """A frame, whose colors are converted on demand."""

    frame: av.VideoFrame | None  # None if it was skipped, see `Video`
    time_s: float | None  # presentation time by the clip's clock; None if the clip lacks it
    _converter: VideoReformatter

    def rgb(self) -> np.ndarray:
        """Return the upright picture, (H, W, 3) uint8 RGB."""
        converted = self._converter.reformat(self.frame, format="rgb24", threads=1).to_ndarray()
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
        num_frames: frames so far; headers can be wrong about the total.
    """

    def __init__(self, path: Path, wanted: Wanted | None = None) -> None:
        """Open a clip, or raise a VideoError.

        Args:
            path: of the clip.
            wanted: chooses the frames to decode; None for all. Others are skipped if no frame
                refers to them and `frame_ticks` can tell which ones they are.
        """
        self.path = path
        self._wanted = wanted
        self._stream = open_stream(path)
        rate = float(self._stream.average_rate or 0)
        self.fps = rate if 0 < rate <= MAX_FPS else 30.0
        self.num_frames = 0

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames of the whole clip in presentation order, without damaged packets."""
        converter = VideoReformatter()
        for frame, time_s in self._frames():
            yield Picture(frame, time_s, converter)
            self.num_frames += 1
        if self.num_frames == 0:
            raise VideoError("not a single frame can be decoded")

    def _frames(self) -> Iterator[TimedFrame]:
        with self._stream.container:
            ticks = frame_ticks(self._stream, self.path) if self._wanted else []
            if not ticks:
                yield from decoded_frames(self._stream)
                return
            is_complete = yield from self._wanted_frames(ticks)
        if not is_complete:
            stream = open_stream(self.path)
            with stream.container:
                yield from islice(decoded_frames(stream), self.num_frames, None)

    def _wanted_frames(self, ticks: list[int]) -> Generator[TimedFrame, None, bool]:
        """Decode the wanted frames and those that they need.

        Args:
            ticks: timestamps of all frames in presentation order.

        Returns:
            Whether all packets are intact and all wanted frames were among those decoded.
        """
        times_s = [float(tick * self._stream.time_base) for tick in ticks]
        wanted = set(self._wanted(times_s, self.fps))
        places = {tick: place for place, tick in enumerate(ticks)}
        following = 0  # the place of the next frame
        for packet in readable_packets(self._stream):
            needed = places.get(packet.pts) in wanted
            self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            try:
                with av.logging.Capture() as messages:  # of damage that the decoder conceals
                    frames = packet.decode()
            except av.FFmpegError:
                return False
            if messages:
                return False
            for frame in frames:
                place = places.get(frame.pts, -1)
                if place < following or not wanted.isdisjoint(range(following, place)):
                    return False
                yield from ((None, time_s) for time_s in times_s[following:place])
                yield frame, times_s[place]
                following = place + 1
        if not wanted.isdisjoint(range(following, len(ticks))):
            return False
        yield from ((None, time_s) for time_s in times_s[following:])
        return True


def open_stream(path: Path, **options: str) -> av.VideoStream:
    """Open a clip's video, to be decoded by one thread, or raise a VideoError."""
    if not os.path.isfile(path):
        raise VideoError(why_unreadable(path, FileNotFoundError(), "video"))
    try:
        container = av.open(str(path), options=ONLY_CLIPS | options)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(why_unreadable(path, error, "video")) from None
    try:
        stream = video_stream(container)
    except VideoError:
        container.close()
        raise
    if stream.codec_context is None:
        container.close()
        raise VideoError("its codec is unknown")
    stream.thread_type = "NONE"  # one process per core already uses all cores
    stream.codec_context.thread_count = 1
    stream.codec_context.options = SMALL
    return stream


def frame_ticks(stream: av.VideoStream, path: Path) -> list[int]:
    """Return the timestamps of a clip's frames in presentation order, by its packets.

    Empty if no frame can be skipped, or if it is uncertain that each packet gives one frame.
    """
    codec = stream.codec_context.name
    if codec not in ("h264", "hevc") or is_avi(stream):
        return []
    found: list[int | None] = []
    cut_away = set()  # by an edit list: decoded if others refer to them, but not shown
    again = open_stream(path, skip_frame="all")  # FFmpeg need not decode to find the frame rate
    with again.container, suppress(av.FFmpegError, IndexError):
        # It raises where a header is damaged, for which the decoder may give no frame.
        headers = av.BitStreamFilterContext(f"{codec}_metadata", again)
        for packet in again.container.demux(again):
            if packet.is_corrupt:
                return []
            if packet.is_discard:
                cut_away.add(packet.pts)
            found.append(packet.pts)
            headers.filter(packet)
        found.pop()  # of the empty packet at the end
        ticks = sorted(set(found) - {None})
        # Frames before the first key frame refer to what was cut off, and may not be decoded.
        if len(ticks) == len(found) and ticks[:1] == found[:1]:
            return [tick for tick in ticks if tick not in cut_away]
    return []


def decoded_frames(stream: av.VideoStream) -> Iterator[TimedFrame]:
    """Decode all frames in presentation order, skipping damaged packets."""
    for packet in readable_packets(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        except av.ArgumentError:
            raise VideoError(TOO_LARGE) from None
        for frame in frames:
            # AVI has no presentation timestamps. Those that FFmpeg derives are out of order for
            # H.264 with B-frames; its decoding timestamps, in output order, are correct.
            ticks = frame.dts if is_avi(stream) else frame.pts
            yield frame, None if ticks is None else float(ticks * frame.time_base)


def is_avi(stream: av.VideoStream) -> bool:
    """Return whether a stream is of an AVI file."""
    return stream.container.format.name == "avi"


def readable_packets(stream: av.VideoStream) -> Iterator[av.Packet]:
    """Yield a stream's packets up to its end, or up to where the file is truncated."""
    try:
        for packet in stream.container.demux(stream):
            watchdog.progress()
            yield packet
    except (av.FFmpegError, IndexError):  # IndexError: PyAV's, for a stream announced by damage
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
