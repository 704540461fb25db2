"""Frames that a program has decoded itself, as a clip."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from emotion.clips.video import MAX_FPS, Picture
from emotion.errors import UserError


@dataclass
class Frames:
    """RGB arrays as a clip; implements `Pictures`.

    Attributes:
        arrays: upright frames in order, (H, W, 3) uint8 RGB each, of one size; read once.
        fps: frames per second, more than 0 and at most 1000.
    """

    arrays: Iterable[NDArray[Any]]
    fps: float

    def __post_init__(self) -> None:
        """Convert the frame rate, such as a Fraction of PyAV; raise UserError if it is wrong."""
        given = self.fps
        try:
            self.fps = float(given)
        except (TypeError, ValueError):
            raise UserError(f"fps must be a number of frames per second, got {given!r}") from None
        if not 0 < self.fps <= MAX_FPS:
            raise UserError(f"fps must be more than 0 and at most {MAX_FPS:g}, got {given}")

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames.

        Raises:
            UserError: there is none, one is no RGB array, or its size is not that of the first.
        """
        converter = VideoReformatter()
        first: tuple[int, ...] = ()
        number = -1
        for number, array in enumerate(self.arrays):
            shape: tuple[int, ...] = getattr(array, "shape", ())
            dtype = getattr(array, "dtype", type(array))
            if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
                raise UserError(
                    f"frame {number} must be an (H, W, 3) uint8 RGB array, got {shape} {dtype}"
                )
            first = first or shape
            if shape != first:
                raise UserError(
                    f"frame {number} has the shape {shape}, frame 0 has {first}: resize all frames "
                    "to one size"
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            yield Picture(frame, number / self.fps, converter)
        if number < 0:
            raise UserError("there are no frames to predict")
