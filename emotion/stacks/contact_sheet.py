"""Contact sheets: the stacks of a class in one picture, to check them before training."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion.files import unfinished
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import read_stack

MAX_ROWS = 60  # 60 rows of 56 px fill a tall screen twice
IMAGES = 9
TILE_PX = 56
NAME_PX = 200  # width of the names beside the rows
FONT = ImageFont.load_default(11)


def write_sheet(path: Path, directory: Path, rows: Sequence[StackRow]) -> None:
    """Write the contact sheet of stacks (at least one) as a PNG, atomically.

    A row shows nine images of a stack, or nine stills. Of more than 60 rows, 60 are shown, evenly
    spaced.
    """
    in_row = IMAGES if len(read_stack(directory / rows[0].stack)) == 1 else 1
    places = np.linspace(0, len(rows) - 1, MAX_ROWS * in_row).round().astype(int)
    shown = [rows[place] for place in np.unique(places)]
    groups = [shown[start : start + in_row] for start in range(0, len(shown), in_row)]
    sheet = Image.new("L", (NAME_PX + IMAGES * TILE_PX, len(groups) * TILE_PX))
    draw = ImageDraw.Draw(sheet)
    for number, group in enumerate(groups):
        top = number * TILE_PX
        first, last = (shorten(row.clip) for row in (group[0], group[-1]))
        below = f"segment {group[0].segment}" if len(group) == 1 else f"to {last}"
        draw.text((6, top + 14), f"{first}\n{below}", fill=255, font=FONT)
        images = np.concatenate([read_stack(directory / row.stack) for row in group])
        if in_row == 1:
            images = images[np.linspace(0, len(images) - 1, IMAGES).round().astype(int)]
        sheet.paste(Image.fromarray(strip(images, TILE_PX)), (NAME_PX, top))
    with unfinished(path) as temporary:
        sheet.save(temporary)


def shorten(name: str) -> str:
    """Return a name that fits beside a row; of a long one the end, which tells clips apart."""
    while FONT.getlength(name) > NAME_PX - 24:
        name = "..." + name.removeprefix("...")[1:]
    return name


def strip(stack: np.ndarray, tile_px: int = 96) -> np.ndarray:
    """Draw the images of a stack, (T, H, W) uint8, side by side, (tile_px, T * tile_px) uint8."""
    size = (tile_px, tile_px)
    return np.hstack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in stack])
