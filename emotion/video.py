"""clips ──read──> the frames that were asked for, and nothing else.

The third step of the way of the data. PyAV decodes, in 0.93 to 1.18 times the time that OpenCV
takes on one core (python -m benchmarks.preprocess), and gives the same pixels, but for clips tagged
BT.709, a tag that OpenCV ignores. What decided is this:

- `sampling.by=time` needs each frame's presentation timestamp, and the frame before it when the
  next one turns out to be farther from the moment that is looked for. PyAV keeps a decoded frame
  and converts its colours if it is wanted after all.
- OpenCV opens a sound file with a cover picture as a video, and says of no file why it can't.
"""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

av.logging.set_level(av.logging.PANIC)  # what matters of damage is a VideoError, or too few frames

MAX_FPS = 1000.0  # a header that declares more is wrong
AHEAD = 8  # frames that are decoded while the one before is worked on; of 4K, 100 MB
# What a clip's file may be, whatever its name, and the sounds and pictures that we know as such.
# FFmpeg reads lists of other files too (ffconcat, HLS), but no clip may send us elsewhere.
FORMATS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v"),
    *("mjpeg", "ogg", "mxf", "ivf", "gif", "mp3", "wav", "aac", "flac"),
    *("image2", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "gif_pipe"),
)


class VideoError(ValueError):
    """A file that is no video, or one without a frame that decodes."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame; its colours are converted only if somebody asks for them.

    Attributes:
        frame: as the decoder gave it.
        time_s: when it is shown, in seconds by the clip's clock; None where the clip does not say.
    """

    frame: av.VideoFrame
    time_s: float | None
    _converter: VideoReformatter

    def rgb(self) -> np.ndarray:
        """Give the picture, upright, as (H, W, 3) uint8 RGB."""
        converted = self._converter.reformat(self.frame, format="rgb24").to_ndarray()
        quarter_turns = round(self.frame.rotation / 90)  # counter-clockwise, by the metadata
        return np.ascontiguousarray(np.rot90(converted, quarter_turns))


class Pictures(Protocol):
    """What shows one frame after another: a clip, or a camera.

    Attributes:
        fps: frames per second, roughly.
    """

    fps: float

    def pictures(self) -> Iterator[Picture]:
        """Give the frames, in the order of presentation."""


class Video:
    """One pass over a clip.

    Attributes:
        path: the file.
        fps: frames per second by the header, 30 where it says nothing or nonsense.
        num_frames: frames decoded so far. Headers lie about the count, so it is known only once
            `pictures` has come to its end.
    """

    def __init__(self, path: Path) -> None:
        """Open a clip.

        Raises:
            VideoError: it can't be opened, or has no moving picture; says which.
        """
        self.path = path
        try:
            self._container = av.open(
                str(path),
                options={"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"},
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoError(why_unreadable(path, error)) from None
        try:
            self._stream = moving_picture(self._container)
        except VideoError:
            self._container.close()
            raise
        self._stream.thread_type = "NONE"  # the cores are shared out among processes already
        self._stream.codec_context.thread_count = 1
        rate = float(self._stream.average_rate or 0)
        self.fps = rate if 0 < rate <= MAX_FPS else 30.0
        self.num_frames = 0

    def pictures(self) -> Iterator[Picture]:
        """Decode the clip from its start to its end, in the order of presentation.

        A damaged packet costs its own frames.

        Raises:
            VideoError: not a single frame decodes.
        """
        converter = VideoReformatter()
        with self._container:
            for packet in whole_packets(self._container, self._stream):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    continue
                for frame in frames:
                    yield Picture(frame, self._time_of(frame), converter)
                    self.num_frames += 1
        if self.num_frames == 0:
            raise VideoError("not a single frame can be decoded")

    def _time_of(self, frame: av.VideoFrame) -> float | None:
        # AVI keeps no presentation timestamps. Those that FFmpeg makes up for it are out of order
        # where H.264 has B-frames; its decoding timestamps, in the order of the output, are not.
        is_avi = self._container.format.name == "avi"
        ticks = frame.dts if is_avi else frame.pts
        return None if ticks is None else float(ticks * frame.time_base)


class ReadAhead:
    """Reads a clip or a camera in a thread of its own, while its frames are worked on.

    Attributes:
        fps: as the source says.
        num_dropped: frames that nobody got, because they waited for too long.
    """

    def __init__(self, source: Pictures, frames: int = AHEAD, drop_late: bool = False) -> None:
        """Read nothing yet.

        Args:
            source: a clip, not read yet, or a camera.
            frames: how many may wait.
            drop_late: of more, drop the oldest, as a camera that waits for nobody; else the source
                waits.
        """
        self.fps = source.fps
        self.num_dropped = 0
        self._source = source
        self._drop_late = drop_late
        self._waiting: Queue[Picture | Exception | None] = Queue(frames)
        self._stopped = Event()

    def pictures(self) -> Iterator[Picture]:
        """Give the frames, in the order of presentation; raises what the source raises."""
        thread = Thread(target=self._read, daemon=True)  # a camera may never answer again
        thread.start()
        try:
            while (item := self._waiting.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._stopped.set()
            thread.join(timeout=1.0)

    def _read(self) -> None:
        """Let the source's frames wait in line; the last in it is an exception or None."""
        end = None
        try:
            with closing(self._source.pictures()) as pictures:
                for picture in pictures:
                    if self._drop_late and self._waiting.full():
                        with suppress(Empty):
                            self._waiting.get_nowait()
                            self.num_dropped += 1
                    self._put(picture)
                    if self._stopped.is_set():
                        return
        except Exception as error:  # whatever it is, `pictures` raises it
            end = error
        self._put(end)

    def _put(self, item: Picture | Exception | None) -> None:
        """Wait for a place in line, or until nobody wants the frames any more."""
        while not self._stopped.is_set():
            with suppress(Full):
                self._waiting.put(item, timeout=0.1)
                return


def whole_packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet]:
    """Read a stream's packets up to its end, or up to where the file breaks off."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None:
            return
        yield packet


def moving_picture(container: av.container.InputContainer) -> av.VideoStream:
    """Find the stream of a file that is a video.

    Raises:
        VideoError: there is none; says what there is.
    """
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise VideoError("it is a picture, no video")
    streams = container.streams.video
    moving = [s for s in streams if not s.disposition & av.stream.Disposition.attached_pic]
    if moving:
        return moving[0]
    if container.streams.audio:
        raise VideoError("it has sound, but no video")
    raise VideoError("there is no video in it")


def why_unreadable(path: Path, error: Exception) -> str:
    """Say in words that many files may share why one can't be opened."""
    if path.is_symlink() and not path.exists():
        return "it is a symbolic link to a file that is not there"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return "permission to read it is denied"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    return "no video, or damaged beyond reading"
