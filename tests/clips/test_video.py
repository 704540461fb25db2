"""Decoding clips: the right frames, their true number, and an error for other files."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.clips.video import MAX_FPS, Picture, Video, VideoError

STEP = 8  # gray levels between frames: more than compression can blur


def numbered_frames(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), STEP * number, np.uint8) for number in range(count)]


def number_of(picture: Picture) -> int:
    return round(picture.rgb().mean() / STEP)


@pytest.fixture
def numbered(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    return write_video(tmp_path / "numbered.mp4", numbered_frames(31))


@pytest.fixture
def scene() -> np.ndarray:
    """Give (64, 96, 3) uint8 RGB: a different color in each quarter."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48] = (200, 40, 40), (40, 200, 40), 180
    return cv2.GaussianBlur(picture, (0, 0), 3)


def test_every_frame_comes_in_order_with_its_time(numbered: Path):
    video = Video(numbered)
    pictures = list(video.pictures())
    assert [number_of(picture) for picture in pictures] == list(range(31))
    times_s = [picture.time_s for picture in pictures]
    assert times_s == pytest.approx([number / 30 for number in range(31)], abs=1e-4)
    assert video.num_frames == 31


def test_earlier_frames_can_be_converted_later(numbered: Path):
    video = Video(numbered)
    pictures = video.pictures()
    first, second, third = (next(pictures) for _ in range(3))
    assert [number_of(picture) for picture in (third, first, second, first)] == [2, 0, 1, 0]
    assert video.num_frames == 2  # and one in hand


def test_pixels_equal_those_of_opencv(tmp_path: Path, write_video: Callable, scene: np.ndarray):
    blue_green_red = scene[..., ::-1]
    path = write_video(tmp_path / "a.mp4", [np.roll(blue_green_red, n, axis=1) for n in range(9)])
    capture = cv2.VideoCapture(str(path))
    for picture in Video(path).pictures():
        expected = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(picture.rgb(), expected)
        assert np.abs(picture.rgb().mean(axis=(0, 1)) - scene.mean(axis=(0, 1))).max() < 5
    assert not capture.read()[0]


@pytest.mark.parametrize("fps", [25.0, 29.97, 120.0, 2 * MAX_FPS])
def test_frame_rate_is_the_headers_unless_impossible(
    tmp_path: Path, write_video: Callable[..., Path], fps: float
):
    path = write_video(tmp_path / "clip.mp4", numbered_frames(3), fps)
    assert Video(path).fps == pytest.approx(fps if fps < MAX_FPS else 30, abs=0.01)


def test_truncated_clip_counts_what_decodes_not_what_the_header_declares(
    tmp_path: Path, encode_video: Callable[..., Path], capfd
):
    frames = [np.full((64, 96, 3), 8 * number, np.uint8) for number in range(30)]
    path = encode_video(tmp_path / "a.mp4", frames, movflags="faststart", g="10", bf="0")
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 4])
    declared = cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)
    capfd.readouterr()
    video = Video(path)
    decoded = list(video.pictures())
    assert declared == 30 > video.num_frames == len(decoded) > 5
    assert capfd.readouterr() == ("", "")  # FFmpeg prints nothing


@pytest.mark.parametrize("clockwise_deg", [90, 180, 270])
def test_rotation_in_the_metadata_is_applied(
    tmp_path: Path,
    encode_video: Callable[..., Path],
    turn: Callable[[Path, int], None],
    scene: np.ndarray,
    clockwise_deg: int,
):
    path = encode_video(tmp_path / "a.mp4", [scene] * 3)
    turn(path, clockwise_deg)
    expected = np.rot90(scene, -clockwise_deg // 90)
    found = next(Video(path).pictures()).rgb()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("how", ["empty", "text", "missing", "folder", "link"])
def test_other_file_raises_one_line(tmp_path: Path, how: str):
    path = tmp_path / "Happy_0001.mp4"
    if how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("not a video\n" * 50)
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(VideoError) as error:
        Video(path)
    words = {"empty": "empty", "text": "damaged", "missing": "exist", "link": "link"}
    assert words.get(how, "") in str(error.value) and "\n" not in str(error.value)


def test_video_without_a_frame_that_decodes_raises(numbered: Path):
    content = numbered.read_bytes()
    start = content.index(b"mdat") + 4
    stop = content.index(b"moov") - 4
    assert start < stop
    numbered.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    video = Video(numbered)
    with pytest.raises(VideoError):
        list(video.pictures())
