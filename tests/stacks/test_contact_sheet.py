import cv2
import numpy as np
import pytest

from emotion.stacks.contact_sheet import contact_sheet, write_sheet
from emotion.stacks.stack import write_stack


@pytest.fixture
def stacks(tmp_path):
    """Eighty stacks of 18 images; stack s has the gray level s, plus 9 per image."""
    paths = []
    for number in range(80):
        levels = number + 9 * np.arange(18, dtype=np.uint8)
        paths.append(tmp_path / f"{number:02d}.tiff")
        write_stack(paths[-1], np.broadcast_to(levels[:, None, None], (18, 24, 24)).copy())
    return paths


def test_a_row_shows_a_stack_from_its_first_image_to_its_last(stacks):
    sheet = contact_sheet(stacks[:3])
    assert sheet.shape == (3 * 56, 9 * 56) and sheet.dtype == np.uint8
    assert sheet[28::56, 28].tolist() == [0, 1, 2]
    assert sheet[28::56, 8 * 56 + 28].tolist() == [153, 154, 155]


def test_of_many_stacks_every_few_are_shown_from_first_to_last(stacks):
    sheet = contact_sheet(stacks)
    shown = sheet[28::56, 28].tolist()
    assert len(shown) == 60 == len(set(shown)) and (shown[0], shown[-1]) == (0, 79)


def test_nine_stills_make_a_row(tmp_path):
    paths = []
    for number in range(1300):
        paths.append(tmp_path / f"{number:04d}.tiff")
        write_stack(paths[-1], np.full((1, 8, 8), number % 251, np.uint8))
    sheet = contact_sheet(paths[1:12])
    assert sheet.shape == (2 * 56, 9 * 56)
    assert sheet[28, 28::56].tolist() == list(range(1, 10))
    assert sheet[56 + 28, 28::56].tolist() == [10, 11, *[0] * 7]  # the rest is blank
    sheet = contact_sheet(paths)
    assert sheet.shape == (60 * 56, 9 * 56) and sheet[-28, -28] == 1299 % 251


def test_picture_is_written(stacks, tmp_path):
    write_sheet(tmp_path / "sheets" / "Happy.png", stacks[:2])
    picture = cv2.imread(str(tmp_path / "sheets" / "Happy.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(picture, contact_sheet(stacks[:2]))
