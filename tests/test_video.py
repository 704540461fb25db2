"""Reading clips: the right frames, their true number, and a clear error for what is no video."""

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.video import MAX_FPS, Picture, ReadAhead, Video, VideoError

STEP = 8  # gray levels from one frame to the next: more than compression can blur


def numbered_frames(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), STEP * number, np.uint8) for number in range(count)]


def number_of(picture: Picture) -> int:
    return round(picture.rgb().mean() / STEP)


@pytest.fixture
def numbered(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    return write_video(tmp_path / "numbered.mp4", numbered_frames(31))


def test_reads_every_frame_in_order_with_its_time(numbered: Path):
    pictures = list(Video(numbered).pictures())
    assert [number_of(picture) for picture in pictures] == list(range(31))
    times_s = [picture.time_s for picture in pictures]
    assert times_s == pytest.approx([number / 30 for number in range(31)], abs=1e-4)


def test_counts_the_frames_as_they_are_read(numbered: Path):
    video = Video(numbered)
    pictures = video.pictures()
    for _ in range(8):
        next(pictures)
    assert video.num_frames == 7  # and one in hand
    assert len(list(pictures)) == 31 - 8
    assert video.num_frames == 31


def test_a_picture_may_be_asked_for_after_the_next_ones(numbered: Path):
    pictures = Video(numbered).pictures()
    first, second, third = (next(pictures) for _ in range(3))
    assert [number_of(picture) for picture in (third, first, second, first)] == [2, 0, 1, 0]


def test_pictures_are_uint8_of_the_clips_size(numbered: Path):
    picture = next(Video(numbered).pictures()).rgb()
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8


def test_colours_are_red_green_blue(tmp_path: Path, write_video: Callable[..., Path]):
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0] = 200  # write_video takes blue, green, red
    picture = next(Video(write_video(tmp_path / "blue.mp4", [blue] * 3)).pictures()).rgb()
    assert picture[..., 2].mean() > 150
    assert picture[..., :2].mean() < 50


def test_pixels_are_those_that_opencv_gives(shared_data: Path):
    path = shared_data / "javanese" / "01-02-03_01.mp4"
    capture = cv2.VideoCapture(str(path))
    for picture in Video(path).pictures():
        expected = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(picture.rgb(), expected)
    assert not capture.read()[0]


@pytest.mark.parametrize("fps", [25.0, 30.0, 29.97, 120.0])
def test_frame_rate_is_the_headers(tmp_path: Path, write_video: Callable[..., Path], fps: float):
    path = write_video(tmp_path / "clip.mp4", numbered_frames(3), fps)
    assert Video(path).fps == pytest.approx(fps, abs=0.01)


def test_frame_rate_that_no_camera_has_counts_as_none(tmp_path: Path, write_video: Callable):
    path = write_video(tmp_path / "clip.mp4", numbered_frames(3), fps=2 * MAX_FPS)
    assert Video(path).fps == 30


@pytest.mark.parametrize(
    # decoded: by ffprobe -count_frames; OpenCV stops at corrupted.mp4's damage, after 28 frames
    ("name", "declared", "decoded"),
    [("corrupted.mp4", 50, 49), ("no_face.mp4", 98, 95)],
)
def test_counts_what_decodes_not_what_the_header_declares(
    shared_data: Path, name: str, declared: int, decoded: int
):
    path = shared_data / "odd" / name
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == declared
    video = Video(path)
    assert len(list(video.pictures())) == decoded
    assert video.num_frames == decoded


def test_rotation_in_the_metadata_is_obeyed(shared_data: Path):
    path = shared_data / "odd" / "video_90.mov"
    stored = cv2.VideoCapture(str(path))
    stored.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    _, lying = stored.read()
    # The track header's matrix (a, b, c, d) = (0, 1, -1, 0): a quarter turn clockwise.
    quarter_turn = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -1 << 16, 0))
    assert quarter_turn in path.read_bytes()
    upright = cv2.cvtColor(cv2.rotate(lying, cv2.ROTATE_90_CLOCKWISE), cv2.COLOR_BGR2RGB)
    found = next(Video(path).pictures()).rgb()
    # OpenCV takes all colours for those of BT.601, and this clip's are BT.709's, as it says.
    np.testing.assert_allclose(found.astype(int), upright, atol=3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is no video, only its name says so\n" * 50, "no video, or damaged"),
    ],
)
def test_file_that_is_no_video_is_an_error(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "Happy_0001.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        Video(path)


def test_missing_file_folder_and_link_to_nowhere_are_errors(tmp_path: Path):
    for path in (tmp_path / "nowhere.mp4", tmp_path):
        with pytest.raises(VideoError):
            Video(path)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(VideoError, match="symbolic link to a file that is not there"):
        Video(tmp_path / "link.mp4")


def test_video_without_a_frame_that_decodes_is_an_error(numbered: Path):
    content = numbered.read_bytes()
    start = content.index(b"mdat") + 4
    stop = content.index(b"moov") - 4
    assert start < stop
    numbered.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    video = Video(numbered)
    with pytest.raises(VideoError, match="not a single frame"):
        list(video.pictures())


def test_damage_is_told_by_the_error_alone(shared_data: Path, tmp_path: Path, capfd):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError):
        Video(tmp_path / "text.mp4")
    list(Video(shared_data / "odd" / "corrupted.mp4").pictures())
    assert capfd.readouterr() == ("", "")


# Reading ahead


class Counter:
    """Stands in for a clip: its pictures are numbers."""

    fps = 30.0

    def __init__(self, num: int, pause_s: float = 0.0) -> None:
        self.num = num
        self.pause_s = pause_s
        self.closed = False

    def pictures(self):
        try:
            for number in range(self.num):
                time.sleep(self.pause_s)
                yield number
            raise VideoError("it breaks off")
        finally:
            self.closed = True


def test_reading_ahead_gives_every_picture_and_then_the_error():
    counter, read = Counter(40), []
    with pytest.raises(VideoError, match="it breaks off"):
        for number in ReadAhead(counter, frames=3).pictures():
            read.append(number)
    assert read == list(range(40)) and counter.closed


def test_reading_ahead_ends_when_nobody_wants_more():
    counter = Counter(10_000)
    ahead = ReadAhead(counter, frames=3)
    pictures = ahead.pictures()
    assert [next(pictures) for _ in range(5)] == [0, 1, 2, 3, 4]
    pictures.close()
    assert counter.closed and ahead.num_dropped == 0


def test_who_is_late_gets_the_latest_pictures():
    ahead = ReadAhead(Counter(60, pause_s=0.002), frames=3, drop_late=True)
    read = []
    with pytest.raises(VideoError):
        for number in ahead.pictures():
            read.append(number)
            time.sleep(0.02)
    assert read == sorted(read) and read[-3:] == [57, 58, 59]
    assert ahead.num_dropped == 60 - len(read) > 10
