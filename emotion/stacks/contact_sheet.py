"""Contact sheets: the stacks of a class in one picture, to check them before training."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emotion.files import unfinished
from emotion.stacks.arrays import read_array
from emotion.stacks.blendshapes import stand_out
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import read_stack

MAX_ROWS = 60  # 60 rows of 56 px fill a tall screen twice
IMAGES = 9
TILE_PX = 56
CLIP_PX = 192  # width of the names of clips beside the rows
NAME_PX = CLIP_PX + 108  # and of the blendshapes; the longest name has 98 px
FONT = ImageFont.load_default(11)


def write_sheet(path: Path, directory: Path, rows: Sequence[StackRow], typical: np.ndarray) -> None:
    """Write the contact sheet of stacks (at least one) as a PNG, atomically.

    A row shows nine images of a stack and names the three blendshapes that stand out from the
    `typical` ones, (52,), of `typical_blendshapes`; or it shows nine stills. Of more than 60 rows,
    60 are shown, evenly spaced.
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
        if in_row == 1:
            below = f"segment {group[0].segment}"
            blendshapes = read_array(directory / group[0].blendshapes).mean(axis=0)
            movements = "\n".join(stand_out(blendshapes, typical))
            draw.text((CLIP_PX, top + 4), movements, fill=160, font=FONT)
        else:
            below = f"to {last}"
        draw.text((6, top + 4), f"{first}\n{below}", fill=255, font=FONT)
        images = np.concatenate([read_stack(directory / row.stack) for row in group])
        if in_row == 1:
            images = images[np.linspace(0, len(images) - 1, IMAGES).round().astype(int)]
        sheet.paste(Image.fromarray(strip(images, TILE_PX)), (NAME_PX, top))
    with unfinished(path) as temporary:
        sheet.save(temporary)


def typical_blendshapes(directory: Path, rows: Sequence[StackRow]) -> np.ndarray:
    """Return the mean blendshapes, (52,), of stacks; of more than 300, 300 evenly spaced ones."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), 300)).round().astype(int)
    read = (read_array(directory / rows[place].blendshapes) for place in places)
    return np.mean([blendshapes.mean(axis=0) for blendshapes in read], axis=0)


def shorten(name: str) -> str:
    """Return a name that fits beside a row; of a long one the end, which tells clips apart."""
    while FONT.getlength(name) > CLIP_PX - 24:
        name = "..." + name.removeprefix("...")[1:]
    return name


def strip(stack: np.ndarray, tile_px: int = 96) -> np.ndarray:
    """Draw the images of a stack, (T, H, W) uint8, side by side, (tile_px, T * tile_px) uint8."""
    size = (tile_px, tile_px)
    return np.hstack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in stack])
