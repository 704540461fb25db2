"""Reading clips: the right frames, their true number, and a clear error for what is no video."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.video import Video, VideoError

STEP = 8  # gray levels from one frame to the next: more than compression can blur


def numbered_frames(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), STEP * number, np.uint8) for number in range(count)]


def number_of(frame: np.ndarray) -> int:
    return round(frame.mean() / STEP)


@pytest.fixture
def numbered(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    return write_video(tmp_path / "numbered.mp4", numbered_frames(31))


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, list(range(31))),
        (5, [0, 5, 10, 15, 20, 25, 30]),
        (10, [0, 10, 20, 30]),
        (15, [0, 15, 30]),
        (31, [0]),
        (90, [0]),
    ],
)
def test_reads_every_nth_frame_and_no_other(numbered: Path, every: int, expected: list[int]):
    read = [(index, number_of(frame)) for index, frame in Video(numbered).frames(every)]
    assert read == [(number, number) for number in expected]


@pytest.mark.parametrize("every", [1, 5, 7, 90])
def test_counts_the_frames_between_as_well(numbered: Path, every: int):
    video = Video(numbered)
    for _ in video.frames(every):
        pass
    assert video.num_frames == 31


def test_frames_are_uint8_pictures_of_the_clips_size(numbered: Path):
    _, frame = next(Video(numbered).frames(1))
    assert frame.shape == (48, 64, 3)
    assert frame.dtype == np.uint8


def test_colours_are_blue_green_red(tmp_path: Path, write_video: Callable[..., Path]):
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0] = 200
    _, frame = next(Video(write_video(tmp_path / "blue.mp4", [blue] * 3)).frames(1))
    assert frame[..., 0].mean() > 150
    assert frame[..., 1:].mean() < 50


@pytest.mark.parametrize("fps", [25.0, 30.0, 29.97])
def test_frame_rate_is_the_headers(tmp_path: Path, write_video: Callable[..., Path], fps: float):
    path = write_video(tmp_path / "clip.mp4", numbered_frames(3), fps)
    assert Video(path).fps == pytest.approx(fps, abs=0.01)


@pytest.mark.parametrize(
    ("name", "declared", "decoded"), [("corrupted.mp4", 50, 28), ("no_face.mp4", 98, 95)]
)
@pytest.mark.parametrize("every", [1, 5])
def test_counts_what_decodes_not_what_the_header_declares(
    shared_data: Path, name: str, declared: int, decoded: int, every: int
):
    path = shared_data / "odd" / name
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == declared
    video = Video(path)
    indices = [index for index, _ in video.frames(every)]
    assert video.num_frames == decoded
    assert indices == list(range(0, decoded, every))


def test_rotation_in_the_metadata_is_obeyed(shared_data: Path):
    path = shared_data / "odd" / "video_90.mov"
    stored = cv2.VideoCapture(str(path))
    stored.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    _, lying = stored.read()
    # The track header's matrix (a, b, c, d) = (0, 1, -1, 0): a quarter turn clockwise.
    quarter_turn = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -1 << 16, 0))
    assert quarter_turn in path.read_bytes()
    _, upright = next(Video(path).frames(1))
    np.testing.assert_array_equal(upright, cv2.rotate(lying, cv2.ROTATE_90_CLOCKWISE))


@pytest.mark.parametrize("content", [b"", b"this is no video, only its name says so\n" * 50])
def test_file_that_is_no_video_is_an_error(tmp_path: Path, content: bytes):
    path = tmp_path / "Happy_0001.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="can't open"):
        Video(path)


def test_missing_file_and_folder_are_errors(tmp_path: Path):
    for path in (tmp_path / "nowhere.mp4", tmp_path):
        with pytest.raises(VideoError):
            Video(path)


def test_video_without_a_frame_that_decodes_is_an_error(numbered: Path):
    content = numbered.read_bytes()
    start = content.index(b"mdat") + 4
    stop = content.index(b"moov") - 4
    assert start < stop
    numbered.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    video = Video(numbered)
    with pytest.raises(VideoError, match="not a single frame"):
        list(video.frames(5))


def test_damage_is_told_by_the_error_alone(shared_data: Path, tmp_path: Path, capfd):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError):
        Video(tmp_path / "text.mp4")
    list(Video(shared_data / "odd" / "corrupted.mp4").frames(5))
    assert capfd.readouterr() == ("", "")
