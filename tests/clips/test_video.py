"""Reading clips: the right frames, their true number, and a clear error for what is no video."""

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from emotion.clips.read_ahead import ReadAhead
from emotion.clips.still import Still, open_clip
from emotion.clips.video import MAX_FPS, Picture, Video, VideoError

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


# Stills


@pytest.fixture
def colours() -> np.ndarray:
    """Give (48, 64, 3) uint8 RGB, lit from the left and red at the top."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:] = np.linspace(60, 250, 64, dtype=np.uint8)[None, :, None]
    picture[:24, :, 1:] //= 2
    return picture


def shown(path: Path) -> np.ndarray:
    """Give the one frame of a still, without its border."""
    (picture,) = Still(path).pictures()
    framed = picture.rgb()
    border_px = max(framed.shape[:2]) // 6  # a quarter of the longer side, on both sides of it
    assert not framed[:border_px].any() and not framed[:, -border_px:].any()
    return framed[border_px:-border_px, border_px:-border_px]


@pytest.mark.parametrize(
    "suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG", ".webp", ".jpg", ".jpeg"]
)
def test_a_still_is_one_frame_in_a_black_border(tmp_path: Path, colours: np.ndarray, suffix: str):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(colours).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    still = open_clip(path)
    assert isinstance(still, Still) and (still.num_frames, still.fps) == (0, 30)
    (picture,) = still.pictures()
    framed = picture.rgb()
    assert still.num_frames == 1 and picture.time_s == 0
    assert framed.shape == (48 + 32, 64 + 32, 3) and framed.dtype == np.uint8
    expected = np.zeros_like(framed)
    expected[16:64, 16:80] = colours
    loss = 25 if suffix.startswith(".j") else 0  # JPEG blurs the red edge
    assert np.abs(framed.astype(int) - expected).max() <= loss


def test_other_suffixes_are_clips(numbered: Path):
    assert isinstance(open_clip(numbered), Video)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", ".png"), ("1", ".png"), ("LA", ".png"), ("P", ".png"), ("L", ".jpg")]
)
def test_pictures_of_few_colours_are_rgb(
    tmp_path: Path, colours: np.ndarray, mode: str, suffix: str
):
    image = Image.fromarray(colours).convert("L").convert(mode)
    image.save(tmp_path / f"a{suffix}")
    expected = np.asarray(image.convert("L"))[..., None]
    found = shown(tmp_path / f"a{suffix}")
    assert np.abs(found.astype(int) - expected).max() <= (12 if suffix == ".jpg" else 1)


def test_what_is_transparent_is_black(tmp_path: Path, colours: np.ndarray):
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "a.png")
    found = shown(tmp_path / "a.png").astype(int)
    assert not found[:, :20].any()
    assert np.abs(found[:, 20:40] - colours[:, 20:40] * (128 / 255)).max() <= 1
    np.testing.assert_array_equal(found[:, 40:], colours[:, 40:])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_eight_bits_not_white(tmp_path: Path, colours: np.ndarray, suffix: str):
    gray = colours[..., 0].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"gray{suffix}"), gray)
    np.testing.assert_array_equal(shown(tmp_path / f"gray{suffix}")[..., 1], colours[..., 0])
    wide = colours[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"rgb{suffix}"), wide)
    np.testing.assert_array_equal(shown(tmp_path / f"rgb{suffix}"), colours)


def test_the_four_inks_of_print_are_rgb(tmp_path: Path, colours: np.ndarray):
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert np.abs(shown(tmp_path / "a.jpg").astype(int) - colours).mean() < 6


@pytest.mark.parametrize(  # EXIF 2.3, 4.6.4 A: which side of the scene row 0 and column 0 show
    ("orientation", "stored"),
    [
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.transpose(1, 0, 2)),  # left, top
        (6, lambda upright: np.rot90(upright, 1)),  # right, top: the camera was turned
        (8, lambda upright: np.rot90(upright, -1)),  # left, bottom
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_stored_lying_is_upright(
    tmp_path: Path, colours: np.ndarray, orientation: int, stored: Callable, suffix: str
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored(colours)))
    image.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    found = shown(tmp_path / f"a{suffix}")
    assert found.shape == colours.shape
    assert np.abs(found.astype(int) - colours).mean() < 3


def test_a_name_that_lies_about_the_format_does_not_matter(tmp_path: Path, colours: np.ndarray):
    for name, form in (("a.jpg", "PNG"), ("b.png", "GIF")):
        Image.fromarray(colours).quantize(64).convert("RGB").save(tmp_path / name, form)
        assert np.abs(shown(tmp_path / name).astype(int) - colours).mean() < 3


def test_one_pixel_is_a_picture(tmp_path: Path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "a.png")
    (picture,) = Still(tmp_path / "a.png").pictures()
    assert picture.rgb().tolist() == [[[255, 0, 0]]]


def spoil(path: Path, colours: np.ndarray, how: str) -> None:
    """Write a picture that can't be read."""
    if how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("this is no picture, only its name says so, truncated\n" * 50)
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(path.with_name("nowhere.png"))
    elif how in ("huge", "huger"):
        side_px = {"huge": 7100, "huger": 20_000}[how]  # a bomb to Pillow is the second alone
        Image.new("1", (side_px, side_px)).save(path)
    elif how == "floats":
        Image.fromarray(colours[..., 0].astype(np.float32)).save(path, "TIFF")
    elif how != "missing":
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(path, "PNG" if how == "cut PNG" else "JPEG")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "no picture, or damaged beyond reading"),
        ("folder", "no picture, or damaged beyond reading"),
        ("link", "it is a symbolic link to a file that is not there"),
        ("missing", "there is no such file"),
        ("cut PNG", "the picture breaks off"),
        ("cut JPEG", "the picture breaks off"),
        ("huge", "it has more than 50,000,000 pixels"),
        ("huger", "it has more than 50,000,000 pixels"),
        ("floats", "its gray levels are floating-point numbers, of no known range"),
    ],
)
def test_a_picture_that_cannot_be_read_says_why_and_nothing_else(
    tmp_path: Path, colours: np.ndarray, how: str, reason: str, capfd
):
    spoil(tmp_path / "a.png", colours, how)
    still = Still(tmp_path / "a.png")
    with pytest.raises(VideoError, match=f"^{reason}$"):
        list(still.pictures())
    assert still.num_frames == 0 and capfd.readouterr() == ("", "")


def test_a_video_is_no_picture_whatever_its_name(tmp_path: Path, numbered: Path):
    path = numbered.rename(tmp_path / "a.jpg")
    with pytest.raises(VideoError, match="no picture"):
        list(Still(path).pictures())


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
