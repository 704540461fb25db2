"""Contact sheets: the stacks of a class in one picture, to look over before training on them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from emotion.stacks.stack import read_stack

MAX_ROWS = 60  # 60 rows of 56 px fill a tall screen twice; of more stacks every n-th is shown
IMAGES = 9
TILE_PX = 56


def contact_sheet(paths: Sequence[Path]) -> np.ndarray:
    """Draw stacks, a row each, with nine of their images from left to right.

    Of stacks that have but one image, such as those of stills, nine make a row.

    Args:
        paths: TIFFs of stacks, at least one.

    Returns:
        (rows * 56, 9 * 56) uint8 gray; at most 60 rows, evenly chosen from all.
    """
    in_row = IMAGES if len(read_stack(paths[0])) == 1 else 1
    numbers = np.linspace(0, len(paths) - 1, MAX_ROWS * in_row).round().astype(int)
    stacks = [read_stack(paths[number]) for number in np.unique(numbers)]
    if in_row > 1:
        images = np.concatenate(stacks)
        blank = np.zeros((-len(images) % in_row, *images.shape[1:]), np.uint8)
        stacks = np.concatenate([images, blank]).reshape(-1, in_row, *images.shape[1:])
    places = [np.linspace(0, len(stack) - 1, IMAGES).round().astype(int) for stack in stacks]
    return np.vstack([strip(stack[p], TILE_PX) for stack, p in zip(stacks, places, strict=True)])


def strip(stack: np.ndarray, tile_px: int = 96) -> np.ndarray:
    """Draw the images of a stack side by side.

    Args:
        stack: (T, H, W) uint8.
        tile_px: height and width of each image drawn.

    Returns:
        (tile_px, T * tile_px) uint8.
    """
    size = (tile_px, tile_px)
    return np.hstack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in stack])


def write_sheet(path: Path, stacks: Sequence[Path]) -> None:
    """Write the contact sheet of stacks as PNG.

    Args:
        path: the file; its folder is made.
        stacks: TIFFs of stacks, at least one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), contact_sheet(stacks))
