"""Stacks: which crop stands where, against plain loops, and a TIFF that any reader opens."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import tifffile

from emotion.clips.video import Picture, Video, VideoError
from emotion.stacks.arrays import read_array, write_array
from emotion.stacks.cutter import open_sampled
from emotion.stacks.face_crop import Face
from emotion.stacks.segment import Segment, crop_segments
from emotion.stacks.stack import (
    fill_gaps,
    read_stack,
    source_images,
    take_images,
    write_stack,
)
from tests.stacks.standard import STANDARD

RNG = np.random.default_rng(0)


class NumberReader:
    """Stands in for the face cropper: reads a frame's number; there is no face from 60 on."""

    def __init__(self, tracking: str, first_face: int = 0) -> None:
        self.tracking = tracking
        self.first_face = first_face
        self.seen: list[int] = []
        self.clips = 0
        self.num_seen = 0

    def start_clip(self) -> None:
        self.clips += 1

    def observe(self, frame: np.ndarray) -> None:
        eights, ones = (round(half.mean() / 32) for half in np.hsplit(frame, 2))
        self.seen.append(8 * eights + ones)

    def crop(self, frame: np.ndarray) -> Face | None:
        self.observe(frame)
        has_face = self.first_face <= self.seen[-1] < 60
        self.num_seen = int(has_face)
        return numbered_face(self.seen[-1]) if has_face else None


def numbered_face(number: float) -> Face:
    """Give a face whose values are all this number."""
    values = np.full((468, 3), number, np.float32), np.full(52, number, np.float32)
    return Face(np.full((2, 2), number), (0, 0, 1, 1), *values)


def fill_by_hand(crops: list[int | None]) -> list[int]:
    """Say which place's crop stands at each place, as the issue words it."""
    images = []
    for place in range(len(crops)):
        before = [i for i in range(place + 1) if crops[i] is not None]
        after = [i for i in range(place, len(crops)) if crops[i] is not None]
        images.append(before[-1] if before else after[0])
    return images


@pytest.fixture
def counting_clip(tmp_path: Path, write_video: Callable[..., Path]) -> Callable[..., Path]:
    def write(num_frames: int) -> Path:
        frames = np.zeros((num_frames, 32, 64, 3), np.uint8)
        for number, frame in enumerate(frames):
            frame[:, :32], frame[:, 32:] = 32 * (number // 8), 32 * (number % 8)
        return write_video(tmp_path / "clip.mp4", frames)

    return write


@pytest.mark.parametrize(
    ("has_face", "expected"),
    [
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([1, 0, 0, 1], [0, 0, 0, 3]),
        ([0, 0, 1, 1], [2, 2, 2, 3]),
        ([0, 1, 0, 1, 0], [1, 1, 1, 3, 3]),
        ([0, 0, 1], [2, 2, 2]),
        ([1, 0, 0], [0, 0, 0]),
        ([1], [0]),
    ],
)
def test_missing_faces_take_the_crop_before_and_leading_ones_the_first(
    has_face: list[int], expected: list[int]
):
    assert source_images([bool(flag) for flag in has_face]).tolist() == expected


def test_faces_stay_in_order_and_a_tail_repeats_its_last():
    found = [None, 1, None, 2, 3, None]
    filled = fill_gaps(found, num_images=8)
    assert filled == [1, 1, 1, 2, 3, 3, 3, 3]
    has_face = [place is not None for place in [*found, None, None]]
    taken = {step: [filled[i] for i in take_images(has_face, step)] for step in (1, 2, 3)}
    assert taken == {
        1: [1, 1, 1, 2, 3, 3, 3, 3],
        2: [3, 3, 3, 3],  # of place 4
        3: [2, 2, 2],  # of place 3
    }


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 12])
def test_taken_images_are_what_cutting_at_that_interval_gives(step: int):
    for has_face in product([False, True], repeat=12):
        crops = [place if found else None for place, found in enumerate(has_face)]
        if not any(has_face[::step]):
            continue
        cached = fill_by_hand(crops)  # at each place of the cache, the crop that stands there
        cut_directly = [step * place for place in fill_by_hand(crops[::step])]
        assert [cached[i] for i in take_images(has_face, step)] == cut_directly


@pytest.mark.parametrize(("step", "places"), [(2, [0, 2, 4]), (3, [0, 3])])
def test_without_a_face_in_the_taken_frames_they_are_taken_as_they_are(
    step: int, places: list[int]
):
    has_face = [place % step == 1 for place in range(6)]
    assert take_images(has_face, step).tolist() == places


@pytest.mark.parametrize(
    ("num_frames", "lengths"), [(60, [20, 20, 20]), (50, [20, 20, 10]), (41, [20, 20, 1]), (7, [7])]
)
@pytest.mark.parametrize("tracking", ["every_frame", "sampled"])
def test_segments_hold_the_sampled_frames_of_the_clip(
    counting_clip: Callable[..., Path], num_frames: int, lengths: list[int], tracking: str
):
    cropper = NumberReader(tracking)
    segments = list(crop_segments(Video(counting_clip(num_frames)), cropper, 20, 5))
    assert [segment.number for segment in segments] == list(range(1, len(lengths) + 1))
    assert [segment.num_frames for segment in segments] == lengths
    numbers = [[face.crop.mean() for face in segment.faces] for segment in segments]
    assert numbers == [
        list(range(start, start + length, 5))
        for start, length in zip((0, 20, 40), lengths, strict=False)
    ]


@pytest.mark.parametrize("start", ["clip", "first_face"])
def test_segments_hold_the_values_of_each_crop(counting_clip: Callable[..., Path], start: str):
    reader = NumberReader("none", first_face=12)
    segments = list(crop_segments(Video(counting_clip(64)), reader, 30, 5, start=start))
    for segment in segments:
        for part in ("landmarks", "blendshapes"):
            values = [face and getattr(face, part).ravel()[9] for face in segment.faces]
            assert values == numbers_of(segment)
    assert any(number is not None for number in numbers_of(segments[0]))


def test_tracking_decides_which_frames_the_mesh_sees(counting_clip: Callable[..., Path]):
    clip = counting_clip(23)
    for tracking, seen in [
        ("every_frame", list(range(23))),
        ("sampled", [0, 5, 10, 15, 20]),
        ("none", [0, 5, 10, 15, 20]),
    ]:
        cropper = NumberReader(tracking)
        list(crop_segments(Video(clip), cropper, 20, 5))
        assert cropper.seen == seen
        assert cropper.clips == 1


def test_a_sampled_frame_without_a_face_keeps_its_place(counting_clip: Callable[..., Path]):
    (segment,) = crop_segments(Video(counting_clip(64)), NumberReader("none"), 90, 10)
    assert [face is not None for face in segment.faces] == [True] * 6 + [False]
    assert segment.face_frames == 6


def test_a_clip_that_does_not_decode_makes_no_segment(tmp_path: Path):
    (tmp_path / "clip.mp4").write_text("no video")
    with pytest.raises(VideoError):
        list(crop_segments(Video(tmp_path / "clip.mp4"), NumberReader("none"), 90, 5))


@pytest.mark.parametrize("num_images", [1, 2, 3, 4, 6, 9, 18])
def test_tiff_gives_the_stack_back(tmp_path: Path, num_images: int):
    stack = RNG.integers(0, 256, (num_images, 16, 24), np.uint8)
    path = tmp_path / "deep" / "folder" / "Happy_0001_0001.tiff"
    write_stack(path, stack)
    np.testing.assert_array_equal(read_stack(path), stack)
    assert read_stack(path).dtype == np.uint8
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_stack_is_mapped_and_cannot_be_written_to(tmp_path: Path):
    path = tmp_path / "Happy_0001_0001.tiff"
    write_stack(path, RNG.integers(0, 256, (18, 16, 24), np.uint8))
    stack = read_stack(path)
    assert isinstance(stack, np.memmap) and stack.filename == str(path)
    with pytest.raises(ValueError, match="read-only"):
        stack[0, 0, 0] = 1


def test_a_compressed_stack_of_somebody_else_is_read_too(tmp_path: Path):
    stack = RNG.integers(0, 256, (6, 16, 24), np.uint8)
    tifffile.imwrite(tmp_path / "a.tiff", stack, compression="zlib")
    np.testing.assert_array_equal(read_stack(tmp_path / "a.tiff"), stack)


def test_tiff_is_an_uncompressed_imagej_stack_that_others_read(tmp_path: Path):
    stack = RNG.integers(0, 256, (18, 224, 224), np.uint8)
    path = tmp_path / "Happy_0001_0001.tiff"
    write_stack(path, stack)
    read, pages = cv2.imreadmulti(str(path), flags=cv2.IMREAD_UNCHANGED)
    assert read
    np.testing.assert_array_equal(pages, stack)
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert file.imagej_metadata["images"] == 18
        assert {page.compression for page in file.pages} == {tifffile.COMPRESSION.NONE}
        assert file.asarray().shape == (18, 224, 224)
    assert stack.nbytes < path.stat().st_size < stack.nbytes + 10_000


def test_seeds_stacks_are_read_as_image_height_width(shared_data: Path):
    stacks = sorted((shared_data / "golden").glob("*.tiff"))
    assert len(stacks) == 5
    for path in stacks:
        stack = read_stack(path)
        assert stack.shape == (18, 224, 224)
        np.testing.assert_array_equal(stack, tifffile.imread(path).squeeze())


def test_landmarks_come_back_and_any_reader_opens_them(tmp_path: Path):
    landmarks = RNG.normal(size=(18, 468, 3)).astype(np.float32)
    path = tmp_path / "deep" / "Happy_0001_0001.npy"
    write_array(path, landmarks)
    np.testing.assert_array_equal(read_array(path), landmarks)
    np.testing.assert_array_equal(np.load(path), landmarks)
    assert read_array(path).dtype == np.float32
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_landmarks_that_would_run_code_are_not_read(tmp_path: Path):
    np.save(tmp_path / "bad.npy", np.array([{"an": "object"}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_array(tmp_path / "bad.npy")


def test_landmarks_that_fail_half_way_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fill_the_disk(file: Path, content: bytes) -> None:
        file.touch()
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        write_array(tmp_path / "a.npy", np.zeros((18, 468, 3), np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exists", [False, True])
def test_a_write_that_fails_half_way_leaves_no_half_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
):
    path = tmp_path / "Happy_0001_0001.tiff"
    old = RNG.integers(0, 256, (3, 8, 8), np.uint8)
    if exists:
        write_stack(path, old)

    write = Path.write_bytes

    def fill_the_disk(file: Path, content: bytes) -> None:
        write(file, bytes(content[:10]))
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        write_stack(path, np.zeros((3, 8, 8), np.uint8))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path] * exists
    if exists:
        np.testing.assert_array_equal(read_stack(path), old)


def test_a_stack_appears_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "Happy_0001_0001.tiff"
    write, seen = Path.write_bytes, []

    def write_and_look(file: Path, content: bytes) -> None:
        write(file, content)
        seen.append((path.exists(), file.name.startswith(".")))

    monkeypatch.setattr(Path, "write_bytes", write_and_look)
    write_stack(path, np.zeros((3, 8, 8), np.uint8))
    assert seen == [(False, True)]  # not under its name yet, and hidden
    assert path.exists()


def numbers_of(segment) -> list[int | None]:
    return [face and int(face.crop[0, 0]) for face in segment.faces]


def test_segments_may_begin_at_the_first_face(counting_clip: Callable[..., Path]):
    reader = NumberReader("none", first_face=7)  # the first sampled frame with a face is then 10
    segments = list(crop_segments(Video(counting_clip(40)), reader, 20, 5, start="first_face"))
    assert [(s.number, s.num_frames) for s in segments] == [(1, 20), (2, 10)]
    assert [numbers_of(s) for s in segments] == [[10, 15, 20, 25], [30, 35]]


def test_segments_begin_with_the_clip_by_default(counting_clip: Callable[..., Path]):
    reader = NumberReader("none", first_face=7)
    segments = list(crop_segments(Video(counting_clip(40)), reader, 20, 5))
    assert [numbers_of(s) for s in segments] == [[None, None, 10, 15], [20, 25, 30, 35]]


def test_clip_without_a_face_gives_a_segment_without_a_crop(counting_clip: Callable[..., Path]):
    reader = NumberReader("none", first_face=99)
    (segment,) = crop_segments(Video(counting_clip(30)), reader, 90, 5, start="first_face")
    assert (segment.num_frames, numbers_of(segment)) == (30, [None] * 6)


# The same moments at any rate

SPEED_PX = 200  # a second: by so much a bar moves, so that a picture tells its moment


def picture_of(moment_s: float) -> np.ndarray:
    """Draw a white bar at 10 + 200 px for every second, to a hundredth of a pixel."""
    bar = np.zeros((16, 672), np.float32)
    edge = 10 + SPEED_PX * moment_s
    pixels = np.arange(672)
    bar[:] = 255 * np.clip(pixels + 1 - edge, 0, 1) * np.clip(edge + 8 - pixels, 0, 1)
    return np.repeat(bar.round().astype(np.uint8)[..., None], 3, axis=2)


class MomentReader:
    """Stands in for the face cropper: a crop is the moment that a picture shows, in seconds."""

    tracking = "none"
    num_seen = 1

    def start_clip(self) -> None:
        pass

    def crop(self, frame: np.ndarray) -> Face:
        assert frame.shape == (16, 672, 3)
        light = frame.mean(axis=(0, 2))
        light[light < 60] = 0
        middle = (light * (np.arange(672) + 0.5)).sum() / light.sum()
        return numbered_face((middle - 4 - 10) / SPEED_PX)


def moments_of(segment: Segment) -> list[float]:
    return [float(face.crop[0, 0]) for face in segment.faces]


def shown_moments(path: Path, interval: int = 5) -> list[list[float]]:
    """Give the moments that the images of each segment show."""
    video = open_sampled(path, replace(STANDARD, by="time", interval=interval))
    segments = crop_segments(video, MomentReader(), 90, interval, by="time")
    return [moments_of(segment) for segment in segments]


READING_S = 0.001  # how far the moment read off a compressed picture may be wrong


def nearest_of(times_s: np.ndarray, moments_s: np.ndarray) -> np.ndarray:
    """Give for each moment the time of the frame nearest to it."""
    return times_s[np.abs(times_s[None] - moments_s[:, None]).argmin(axis=1)]


@pytest.mark.parametrize("fps", [15, 24, 25, 30000 / 1001, 30, 50, 60, 120])
def test_any_rate_shows_the_same_moments(tmp_path: Path, encode_video: Callable, fps: float):
    frames = [picture_of(number / fps) for number in range(round(3 * fps))]
    (shown,) = shown_moments(encode_video(tmp_path / "clip.mp4", frames, fps=fps))
    moments_s = np.arange(0, 90, 5) / 30
    np.testing.assert_allclose(shown, moments_s, rtol=0, atol=0.5 / fps + READING_S)
    if fps in (30, 60, 120):  # a frame falls on each moment
        np.testing.assert_allclose(shown, moments_s, rtol=0, atol=READING_S)


def ways_of_showing() -> dict[str, np.ndarray]:
    """Give the times of the frames of clips of three seconds whose rate varies."""
    rng = np.random.default_rng(0)
    regular = np.arange(180) / 60
    kept = np.sort(rng.choice(np.arange(1, 180), 90, replace=False))
    return {
        "half of the frames dropped": regular[np.r_[0, kept]],
        "jitter": np.r_[0, regular[1:] + rng.uniform(-0.008, 0.008, 179)],
        "holds": np.r_[0, 0.02, 0.9, 0.95, 1.0, 1.5, 1.52, 2.2, 2.25, 2.96],
        "from 60 fps down to 10": np.r_[regular[:60], 1 + np.arange(48) / 24],
        "one frame a second": np.array([0.0, 1.0, 2.0, 2.99]),
    }


@pytest.mark.parametrize("start_s", [0.0, 10.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("way", ways_of_showing())
def test_variable_rate_shows_the_same_moments(
    tmp_path: Path, encode_video: Callable, way: str, suffix: str, start_s: float
):
    times_s = ways_of_showing()[way]
    frames = [picture_of(time_s) for time_s in times_s]
    path = encode_video(tmp_path / f"clip{suffix}", frames, start_s + times_s)
    shown, *_ = shown_moments(path)
    assert len(shown) == 18
    moments_s = np.arange(18) / 6
    # A container may round times to a millisecond, and so turn half-way to the other side.
    distance = np.abs(nearest_of(times_s, moments_s) - moments_s)
    assert (np.abs(shown - moments_s) <= distance + 0.001 + READING_S).all()


def test_file_that_starts_late_shows_the_same_moments(tmp_path: Path, encode_video: Callable):
    times_s = np.arange(72) / 24
    frames = [picture_of(time_s) for time_s in times_s]
    (expected,) = shown_moments(encode_video(tmp_path / "at_once.mkv", frames, times_s))
    for start_s in (0.5, 10.0, 3600.0):
        path = encode_video(tmp_path / f"{start_s}.mkv", frames, start_s + times_s)
        (shown,) = shown_moments(path)
        np.testing.assert_allclose(shown, expected, atol=READING_S)


def retimed(source: Path, path: Path, times_s: list[float | None]) -> Path:
    """Copy a clip's packets, which are in the order of presentation, under other timestamps."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        assert len(packets) == len(times_s)
        for number, (packet, time_s) in enumerate(zip(packets, times_s, strict=True)):
            packet.time_base = Fraction(1, 1000)
            packet.dts = number - 10_000_000  # decoding comes first whatever the timestamp
            packet.pts = round(1000 * time_s)
            packet.stream = stream
            new.mux(packet)
    return path


def scrambles() -> dict[str, np.ndarray]:
    """Give the wrong timestamps of clips of 90 frames at 30 a second."""
    true_s = np.arange(90) / 30
    pairs = true_s.reshape(-1, 2)[:, ::-1].ravel()
    some_pairs = np.where(np.arange(90) // 2 % 5 == 3, pairs, true_s)
    backwards = np.where(np.arange(90) % 7 == 3, true_s - 0.2, true_s)
    return {
        "neighbours changed places": some_pairs,
        "each with its neighbour": pairs,
        "single ones far back": np.maximum(backwards, 0),
        "single ones far ahead": np.where(np.arange(90) % 7 == 3, true_s + 60, true_s),
        "the clock starts anew": true_s - 1.5 * (true_s >= 1.5),
        "the clock jumps ahead": true_s + 1000 * (true_s >= 1.5),
        "the clock stands still for a while": np.where((true_s > 1) & (true_s < 1.3), 1, true_s),
    }


@pytest.mark.parametrize("way", scrambles())
def test_wrong_timestamps_show_the_same_moments(tmp_path: Path, encode_video: Callable, way: str):
    frames = [picture_of(number / 30) for number in range(90)]
    clip = encode_video(tmp_path / "clip.mkv", frames)
    path = retimed(clip, tmp_path / "retimed.mkv", scrambles()[way].tolist())
    stored_s = [picture.time_s for picture in Video(path).pictures()]
    np.testing.assert_allclose(stored_s, scrambles()[way], atol=0.0006)  # as meant to be wrong
    (shown,) = shown_moments(path)
    np.testing.assert_allclose(shown, np.arange(18) / 6, rtol=0, atol=1 / 30 + READING_S)


def test_missing_timestamps_are_those_of_the_headers_rate(tmp_path: Path, encode_video: Callable):
    frames = [picture_of(number / 25) for number in range(75)]
    path = encode_video(tmp_path / "clip.mp4", frames, fps=25, file_format="h264")
    assert {picture.time_s for picture in Video(path).pictures()} == {None}  # nothing but packets
    (shown,) = shown_moments(path)
    np.testing.assert_allclose(shown, np.arange(18) / 6, rtol=0, atol=0.5 / 25 + READING_S)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(suffix, "libx264") for suffix in (".mp4", ".mov", ".mkv", ".avi", ".flv", ".m4v")]
    + [(".avi", "mpeg4"), (".avi", "mjpeg"), (".webm", "libvpx"), (".mov", "mpeg4")],
)
def test_any_container_shows_the_same_moments(
    tmp_path: Path, encode_video: Callable, suffix: str, codec: str
):
    """B-frames, where the codec has them, are decoded in another order than shown."""
    options = {
        "libx264": {"preset": "veryfast", "bf": "2"},
        "mpeg4": {"bf": "2", "qmax": "4"},
        "mjpeg": {"qmax": "4"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "2M"},
    }[codec]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    frames = [picture_of(number / 25) for number in range(75)]
    path = tmp_path / f"clip{suffix}"
    encode_video(path, frames, fps=25, codec=codec, pix_fmt=pix_fmt, **options)
    (shown,) = shown_moments(path)
    np.testing.assert_allclose(shown, np.arange(18) / 6, rtol=0, atol=0.5 / 25 + READING_S)


def test_by_frames_shows_every_fifth_frame_whatever_its_time(
    tmp_path: Path, encode_video: Callable
):
    times_s = ways_of_showing()["half of the frames dropped"]
    path = encode_video(tmp_path / "clip.mp4", [picture_of(time_s) for time_s in times_s], times_s)
    first, *_ = crop_segments(Video(path), MomentReader(), 90, 5, by="frames")
    np.testing.assert_allclose(np.array(moments_of(first)), times_s[:90:5], atol=READING_S)


def test_only_sampled_frames_have_their_colours_converted(
    tmp_path: Path, encode_video: Callable, monkeypatch: pytest.MonkeyPatch
):
    path = encode_video(tmp_path / "clip.mp4", [picture_of(i / 60) for i in range(180)], fps=60)
    converted, convert = [], Picture.rgb
    monkeypatch.setattr(Picture, "rgb", lambda self: converted.append(self.time_s) or convert(self))
    list(crop_segments(Video(path), MomentReader(), 90, 5, by="time"))
    assert converted == pytest.approx([number / 6 for number in range(18)])


@pytest.mark.parametrize("tracking", ["sampled", "none", "every_frame"])
def test_frames_are_skipped_unless_the_mesh_sees_every_one(
    tmp_path: Path, encode_video: Callable, tracking: str
):
    frames = [picture_of(number / 30) for number in range(30)]
    path = encode_video(tmp_path / "a.mp4", frames, preset="veryfast", b_strategy="0", bf="3")
    video = open_sampled(path, replace(STANDARD, tracking=tracking, interval=10))
    decoded = [n for n, picture in enumerate(video.pictures()) if picture.frame is not None]
    assert {0, 10, 20} <= set(decoded)
    assert (len(decoded) == video.num_frames == 30) == (tracking == "every_frame")
