import numpy as np
import pytest
from PIL import Image

from emotion.stacks.arrays import write_array
from emotion.stacks.blendshapes import BLENDSHAPES, stand_out
from emotion.stacks.contact_sheet import (
    IMAGES,
    NAME_PX,
    TILE_PX,
    typical_blendshapes,
    write_sheet,
)
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import write_stack


@pytest.fixture
def sheet(tmp_path):
    """Write stacks of uniform images, draw their sheet, and return names and images."""

    def draw(clips, levels):
        rows = []
        for number, (clip, of_images) in enumerate(zip(clips, levels, strict=True)):
            images = np.asarray(of_images, np.uint8)[:, None, None]
            path = f"stacks/{number}.tiff"
            write_stack(tmp_path / path, np.broadcast_to(images, (len(images), 8, 8)).copy())
            blendshapes = np.random.default_rng(number).random((len(images), 52), np.float32)
            write_array(tmp_path / f"blendshapes/{number}.npy", blendshapes)
            rows.append(
                StackRow(path, clip, 1, "Happy", "", "train", 90, 1, "1" * 18, 18, 18, 30, *"abc")
            )
        path = tmp_path / "sheets" / "Happy.png"
        write_sheet(path, tmp_path, rows, typical_blendshapes(tmp_path, rows))
        pixels = np.asarray(Image.open(path))
        assert pixels.dtype == np.uint8 and pixels.shape[1] == NAME_PX + IMAGES * TILE_PX
        return pixels[:, :NAME_PX], pixels[
            TILE_PX // 2 :: TILE_PX, NAME_PX + TILE_PX // 2 :: TILE_PX
        ]

    return draw


def test_row_shows_a_stack_from_its_first_image_to_its_last_beside_its_name(sheet):
    levels = [number + 9 * np.arange(18) for number in range(3)]
    names, images = sheet(["a", "bb", "W" * 200], levels)
    assert images[:, 0].tolist() == [0, 1, 2] and images[:, -1].tolist() == [153, 154, 155]
    drawn = names.reshape(3, TILE_PX, NAME_PX).max(axis=1) > 100  # columns with ink
    widths = [int(np.flatnonzero(of_row)[-1]) for of_row in drawn]
    assert widths[2] < NAME_PX - 1  # a long name does not run into the images
    one, two, _ = names.reshape(3, TILE_PX, NAME_PX)
    assert (one != two).any()


def test_of_many_stacks_60_are_shown_from_first_to_last(sheet):
    _, images = sheet(["clip"] * 80, [np.full(18, number) for number in range(80)])
    shown = images[:, 0].tolist()
    assert len(shown) == 60 == len(set(shown)) and (shown[0], shown[-1]) == (0, 79)


def test_nine_stills_make_a_row(sheet):
    _, images = sheet(["still"] * 11, [[number] for number in range(1, 12)])
    assert images[0].tolist() == list(range(1, 10))
    assert images[1].tolist() == [10, 11, *[0] * 7]
    _, images = sheet(["still"] * 541, [[number % 251] for number in range(541)])
    assert images.shape == (60, 9) and images[-1, -1] == 540 % 251


def test_movements_that_stand_out_are_named_once_for_both_sides():
    typical = np.linspace(0.1, 0.5, 52)
    face = typical.copy()
    strongest = {"mouthSmileRight": 0.4, "jawOpen": 0.3, "mouthSmileLeft": 0.35, "cheekPuff": 0.1}
    for name, more in strongest.items():
        face[BLENDSHAPES.index(name)] += more
    assert stand_out(face, typical) == ["mouthSmile", "jawOpen", "cheekPuff"]
