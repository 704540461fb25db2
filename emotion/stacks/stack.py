"""Stacks: (T, H, W) arrays of face crops, one TIFF for each segment.

The cached stack of a still holds its one image, which stands for all T images; only the first of
these counts as a crop of its own frame.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import tifffile

from emotion.files import unfinished

Face = TypeVar("Face")


def source_images(has_face: Sequence[bool]) -> np.ndarray:
    """Return which crop is used for each image of a stack, (T,) int64; at least one has a face.

    An image without a face repeats the last crop before it; images before the first crop repeat
    the first. (The original notebook inserts black images. Where some classes begin with black
    frames more often than others, a model learns the label from them.)

    >>> source_images([False, True, False, True]).tolist()
    [1, 1, 1, 3]
    """
    found = np.flatnonzero(has_face)
    before = np.searchsorted(found, np.arange(len(has_face)), side="right") - 1
    return found[np.maximum(before, 0)]


def fill_gaps(faces: Sequence[Face | None], num_images: int) -> list[Face]:
    """Return the faces of a stack's T images; fill gaps as `source_images` does.

    Args:
        faces: of each sampled frame; fewer in a tail.
        num_images: T.
    """
    return [faces[i] for i in source_images(own_crops(faces, num_images))]


def own_crops(faces: Sequence[object | None], num_images: int) -> list[bool]:
    """Return which of a stack's images are crops of their own frames; a tail lacks the last."""
    found = [face is not None for face in faces]
    return found + [False] * (num_images - len(found))


def take_images(has_face: Sequence[bool], step: int) -> np.ndarray:
    """Return which of T cached images make the stack of a longer interval, (ceil(T / step),) int64.

    The result is what cutting the clip at that interval would give: a crop from a frame that the
    longer interval does not sample is never used, not even in place of a missing face. If no taken
    image has a face, every `step`-th image is used as it is.

    Args:
        has_face: for each of the T cached images, whether it is a crop of its own frame.
        step: the longer interval in cached images.

    >>> take_images([True, True, False, True, False, False], step=2).tolist()
    [0, 0, 0]
    """
    taken = list(has_face)[::step]
    if not any(taken):
        return np.arange(0, len(has_face), step)
    return source_images(taken) * step


def model_images(
    stack: np.ndarray, has_face: Sequence[bool], step: int, image_px: int
) -> np.ndarray:
    """Convert a cached stack to the images that a model takes, selected by `take_images`.

    From (T, H, W) uint8, (1, H, W) of a still, to (ceil(T / step), image_px, image_px) uint8 with
    channels last in memory.
    """
    taken = stack[take_images(has_face, step)]
    if taken.shape[-1] != image_px:
        size = (image_px, image_px)
        taken = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in taken]
    images = cv2.merge(list(taken)).reshape(image_px, image_px, -1)  # (H, W, T)
    return images.transpose(2, 0, 1)  # (T, H, W)


def write_stack(path: Path, stack: np.ndarray) -> None:
    """Write a stack, (T, H, W) uint8, as an uncompressed ImageJ TIFF, atomically."""
    assert stack.ndim == 3 and stack.dtype == np.uint8
    tiff = io.BytesIO()  # in memory first: NumPy's own writer ignores a full disk
    tifffile.imwrite(tiff, stack, imagej=True, metadata={"axes": "CYX", "mode": "grayscale"})
    with unfinished(path) as temporary:
        temporary.write_bytes(tiff.getbuffer())


def read_stack(path: Path) -> np.ndarray:
    """Map the TIFF of a stack, (T, H, W) uint8, into memory; read a compressed one."""
    try:
        stack = tifffile.memmap(path, mode="r")
    except ValueError:
        stack = tifffile.imread(path)
    return stack.reshape(-1, *stack.shape[-2:])  # the notebook's files have axes of length 1
