"""Reading stills as clips of one frame."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from emotion.clips.still import Still, open_clip
from emotion.clips.video import Video, VideoError


@pytest.fixture
def colors() -> np.ndarray:
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
def test_a_still_is_one_frame_in_a_black_border(tmp_path: Path, colors: np.ndarray, suffix: str):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(colors).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    still = open_clip(path)
    assert isinstance(still, Still) and (still.num_frames, still.fps) == (0, 30)
    (picture,) = still.pictures()
    framed = picture.rgb()
    assert still.num_frames == 1 and picture.time_s == 0
    assert framed.shape == (48 + 32, 64 + 32, 3) and framed.dtype == np.uint8
    expected = np.zeros_like(framed)
    expected[16:64, 16:80] = colors
    loss = 25 if suffix.startswith(".j") else 0  # JPEG blurs the red edge
    assert np.abs(framed.astype(int) - expected).max() <= loss


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", ".png"), ("1", ".png"), ("LA", ".png"), ("P", ".png"), ("L", ".jpg")]
)
def test_gray_and_palette_pictures_are_rgb(
    tmp_path: Path, colors: np.ndarray, mode: str, suffix: str
):
    image = Image.fromarray(colors).convert("L").convert(mode)
    image.save(tmp_path / f"a{suffix}")
    expected = np.asarray(image.convert("L"))[..., None]
    found = shown(tmp_path / f"a{suffix}")
    assert np.abs(found.astype(int) - expected).max() <= (12 if suffix == ".jpg" else 1)


def test_transparent_pixels_are_black(tmp_path: Path, colors: np.ndarray):
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    Image.fromarray(np.dstack([colors, alpha])).save(tmp_path / "a.png")
    found = shown(tmp_path / "a.png").astype(int)
    assert not found[:, :20].any()
    assert np.abs(found[:, 20:40] - colors[:, 20:40] * (128 / 255)).max() <= 1
    np.testing.assert_array_equal(found[:, 40:], colors[:, 40:])


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, colors: np.ndarray, suffix: str):
    gray = colors[..., 0].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"gray{suffix}"), gray)
    np.testing.assert_array_equal(shown(tmp_path / f"gray{suffix}")[..., 1], colors[..., 0])
    wide = colors[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"rgb{suffix}"), wide)
    np.testing.assert_array_equal(shown(tmp_path / f"rgb{suffix}"), colors)


def test_cmyk_is_rgb(tmp_path: Path, colors: np.ndarray):
    Image.fromarray(colors).convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert np.abs(shown(tmp_path / "a.jpg").astype(int) - colors).mean() < 6


@pytest.mark.parametrize(  # EXIF 2.3, 4.6.4 A: the side of the scene in row 0 and column 0
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
def test_exif_orientation_is_applied(
    tmp_path: Path, colors: np.ndarray, orientation: int, stored: Callable, suffix: str
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored(colors)))
    image.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    found = shown(tmp_path / f"a{suffix}")
    assert found.shape == colors.shape
    assert np.abs(found.astype(int) - colors).mean() < 3


def test_format_is_detected_whatever_the_suffix(tmp_path: Path, colors: np.ndarray):
    for name, form in (("a.jpg", "PNG"), ("b.png", "GIF")):
        Image.fromarray(colors).quantize(64).convert("RGB").save(tmp_path / name, form)
        assert np.abs(shown(tmp_path / name).astype(int) - colors).mean() < 3


def test_one_pixel_is_a_picture(tmp_path: Path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "a.png")
    (picture,) = Still(tmp_path / "a.png").pictures()
    assert picture.rgb().tolist() == [[[255, 0, 0]]]


def spoil(path: Path, colors: np.ndarray, how: str) -> None:
    """Write a picture that cannot be read."""
    if how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("not a picture, truncated\n" * 50)
    elif how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(path.with_name("nowhere.png"))
    elif how in ("huge", "huger"):
        side_px = {"huge": 7100, "huger": 13_500}[how]  # Pillow itself refuses only the second
        Image.new("1", (side_px, side_px)).save(path)
    elif how == "floats":
        Image.fromarray(colors[..., 0].astype(np.float32)).save(path, "TIFF")
    elif how != "missing":
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(path, "PNG" if how == "cut PNG" else "JPEG")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("empty", "empty"),
        ("text", "damaged"),
        ("folder", "folder"),
        ("link", "link"),
        ("missing", "exist"),
        ("cut PNG", "truncated"),
        ("cut JPEG", "truncated"),
        ("huge", "50,000,000"),
        ("huger", "50,000,000"),
        ("floats", "floating-point"),
    ],
)
def test_unreadable_picture_raises_one_line_and_prints_nothing(
    tmp_path: Path, colors: np.ndarray, how: str, word: str, capfd
):
    spoil(tmp_path / "a.png", colors, how)
    still = Still(tmp_path / "a.png")
    with pytest.raises(VideoError) as error:
        list(still.pictures())
    assert word in str(error.value) and "\n" not in str(error.value)
    assert still.num_frames == 0 and capfd.readouterr() == ("", "")


def test_video_with_a_pictures_name_raises(tmp_path: Path, write_video: Callable[..., Path]):
    path = write_video(tmp_path / "a.mp4", [np.zeros((48, 64, 3), np.uint8)] * 3)
    assert isinstance(open_clip(path), Video)
    with pytest.raises(VideoError):
        list(Still(path.rename(tmp_path / "a.jpg")).pictures())
