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
import warnings
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
from PIL import Image, ImageOps

from emotion.clips.naming import STILL_SUFFIXES

av.logging.set_level(av.logging.PANIC)  # what matters of damage is a VideoError, or too few frames

MAX_FPS = 1000.0  # a header that declares more is wrong
MAX_STILL_PIXELS = 50_000_000  # 0.7 GB while it is read and framed
STILL_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")  # whatever the name; GIF is common
AHEAD = 8  # frames that are decoded while the one before is worked on; of 4K, 100 MB
# What a clip's file may be, whatever its name, and the sounds and pictures that we know as such.
# FFmpeg reads lists of other files too (ffconcat, HLS), but no clip may send us elsewhere.
FORMATS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v"),
    *("mjpeg", "ogg", "mxf", "ivf", "gif", "mp3", "wav", "aac", "flac"),
    *("image2", "jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "gif_pipe"),
)


class VideoError(ValueError):
    """A file that is no video or picture, or one without a frame that decodes."""


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
    """What shows one frame after another: a clip, a still, or a camera.

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
            raise VideoError(why_unreadable(path, error, "video")) from None
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


class Still:
    """A picture, as a clip of one frame.

    Faces fill the pictures of data sets such as FER2013. So the frame is the picture in a black
    border: of 300 (60 of each class of muxspace/facial_expressions) the face is found in 297, in
    291 without it, in 294 if the edge goes on instead. And in all of them the crop, whose margin
    goes with the face, reaches into the border, with 15 % of its area; without one it would be cut
    off there, and stretched. The boxes of faces are places in the frame, border included.

    Attributes:
        path: the file.
        fps: 30, of no meaning.
        num_frames: 1 once it has been read, else 0.
    """

    fps = 30.0

    def __init__(self, path: Path) -> None:
        """Take a file, not read yet."""
        self.path = path
        self.num_frames = 0

    def pictures(self) -> Iterator[Picture]:
        """Give the picture in its border.

        Raises:
            VideoError: it can't be read; says why.
        """
        framed = with_border(read_still(self.path))
        yield Picture(av.VideoFrame.from_ndarray(framed, "rgb24"), 0.0, VideoReformatter())
        self.num_frames = 1


def open_clip(path: Path) -> Video | Still:
    """Open a clip, or a still, which its suffix tells.

    Raises:
        VideoError: see `Video`; what is wrong with a still, reading it says.
    """
    return Still(path) if path.suffix.lower() in STILL_SUFFIXES else Video(path)


def read_still(path: Path) -> np.ndarray:
    """Read a picture, upright; of one with several frames, the first.

    Args:
        path: a file in one of `STILL_FORMATS`.

    Returns:
        (H, W, 3) uint8 RGB; black where it is transparent.

    Raises:
        VideoError: it can't be read; says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of damage is an error
            with Image.open(path, formats=STILL_FORMATS) as image:
                if image.width * image.height > MAX_STILL_PIXELS:
                    raise VideoError(f"it has more than {MAX_STILL_PIXELS:,} pixels")
                return as_rgb(ImageOps.exif_transpose(image))
    except (VideoError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise VideoError(f"it has more than {MAX_STILL_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        if str(error).lower().startswith(("image file is truncated", "truncated file")):
            raise VideoError("the picture breaks off") from None
        raise VideoError(why_unreadable(path, error, "picture")) from None


def as_rgb(image: Image.Image) -> np.ndarray:
    """Give a picture of any mode as (H, W, 3) uint8 RGB.

    Raises:
        VideoError: its levels have no known range.
    """
    if image.mode == "F":
        raise VideoError("its gray levels are floating-point numbers, of no known range")
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip to 8
        levels = np.asarray(image).clip(0, 65535) / 257
        return np.repeat(levels.round().astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.asarray(image.convert("RGB"))


def with_border(picture: np.ndarray) -> np.ndarray:
    """Put a black border around a picture, of a quarter of its longer side.

    Args:
        picture: (H, W, 3) uint8.

    Returns:
        (H + 2 B, W + 2 B, 3) uint8.
    """
    border_px = max(picture.shape[:2]) // 4
    return np.pad(picture, ((border_px, border_px), (border_px, border_px), (0, 0)))


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


def why_unreadable(path: Path, error: Exception, noun: str) -> str:
    """Say in words that many files may share why one can't be opened.

    Args:
        path: the file.
        error: what went wrong.
        noun: what the file should be.
    """
    if path.is_symlink() and not path.exists():
        return "it is a symbolic link to a file that is not there"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return "permission to read it is denied"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    return f"no {noun}, or damaged beyond reading"
