"""Read a still picture as a clip of one frame."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps

from emotion.clips.naming import STILL_SUFFIXES
from emotion.clips.video import (
    MAX_PIXELS,
    Picture,
    Video,
    VideoError,
    Wanted,
    why_unreadable,
)

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")  # whatever the name; GIF is common


def open_clip(path: Path, wanted: Wanted | None = None) -> "Video | Still":
    """Open a video or, by its suffix, a still; an unreadable still raises when it is read."""
    return Still(path) if path.suffix.lower() in STILL_SUFFIXES else Video(path, wanted)


@dataclass
class Still:
    """A picture as a clip of one frame, surrounded by a black border.

    Faces fill the pictures of data sets such as FER2013. Of 300 pictures (60 of each class of
    muxspace/facial_expressions), the face is found in 297 with a black border, in 291 without one;
    and the crop's margin would be cut off. Face boxes are relative to the frame, border included.
    """

    path: Path
    num_frames: int = 0  # read so far, as of `Video`
    fps: float = 30.0  # without meaning

    def pictures(self) -> Iterator[Picture]:
        """Yield the picture in its border, or raise a VideoError."""
        framed = with_border(read_still(self.path))
        yield Picture(av.VideoFrame.from_ndarray(framed, "rgb24"), 0.0, VideoReformatter())
        self.num_frames = 1


def read_still(path: Path) -> np.ndarray:
    """Read an upright picture, or the first frame of an animation, or raise a VideoError.

    Returns:
        (H, W, 3) uint8 RGB; transparent pixels are black.
    """
    too_large = VideoError(f"it has more than {MAX_PIXELS:,} pixels")
    if not os.path.isfile(path):
        raise VideoError(why_unreadable(path, FileNotFoundError(), "picture"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damage that matters raises an error
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large
                return as_rgb(ImageOps.exif_transpose(image))
    except (VideoError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception as error:  # damaged files make Pillow raise errors of any type
        if str(error).lower().startswith(("image file is truncated", "truncated file")):
            raise VideoError("the picture is truncated") from None
        raise VideoError(why_unreadable(path, error, "picture")) from None


def as_rgb(image: Image.Image) -> np.ndarray:
    """Convert a picture of any mode to (H, W, 3) uint8 RGB, or raise a VideoError."""
    if image.mode == "F":
        raise VideoError("its gray levels are floating-point numbers, whose range is unknown")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip to 8 bits
        levels = np.asarray(image).clip(0, 65535) / 257
        return np.repeat(levels.round().astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return np.asarray(image.convert("RGB"))


def with_border(picture: np.ndarray) -> np.ndarray:
    """Pad (H, W, 3) uint8 to (H + 2 B, W + 2 B, 3) with black, B a quarter of the longer side."""
    border = (max(picture.shape[:2]) // 4,) * 2
    return np.pad(picture, (border, border, (0, 0)))
