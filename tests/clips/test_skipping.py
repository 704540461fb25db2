"""Frames that are not sampled are skipped; the decoded frames are the same byte for byte."""

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from emotion.clips.video import Video

LENGTH = 48
B_FRAMES = {"preset": "veryfast", "crf": "23", "b_strategy": "0", "bf": "3", "g": "24"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:b-adapt=0:bframes=4:keyint=24"}
CODECS = {
    "h264": {"codec": "libx264", **B_FRAMES},
    "h264 without B-frames": {"codec": "libx264", **B_FRAMES, "bf": "0"},
    "h264, B-frames never referred to": {"codec": "libx264", **B_FRAMES, "b-pyramid": "none"},
    "h264, open GOP": {"codec": "libx264", **B_FRAMES, "g": "12", "flags": "-cgop"},
    "h264, interlaced": {"codec": "libx264", **B_FRAMES, "flags": "+ilme+ildct"},
    "hevc": {"codec": "libx265", **X265},
    "hevc, closed GOP": {"codec": "libx265", **X265, "x265-params": "log-level=none:open-gop=0"},
    "hevc, temporal layers": {
        "codec": "libx265",
        **X265,
        "x265-params": X265["x265-params"] + ":temporal-layers=1",
    },
    "vp8": {"codec": "libvpx", "deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "16"},
    "vp9": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {"codec": "mpeg4", "bf": "2"},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
SKIPPING = tuple(name for name in CODECS if name.startswith("h") and "without" not in name)
FILES = [
    *((f"clip{suffix}", "h264") for suffix in (".mov", ".mkv", ".flv", ".ts", ".avi", ".h264")),
    *(("clip.mp4", codec) for codec in CODECS if not codec.startswith("vp8")),
    *((f"clip{suffix}", "hevc") for suffix in (".mkv", ".ts")),
    *((f"clip{suffix}", "mpeg4") for suffix in (".avi", ".mkv")),
    *(("clip.avi", "mjpeg"), ("clip.webm", "vp8"), ("clip.webm", "vp9")),
]


def scenes() -> list[np.ndarray]:
    """Make frames, (64, 96, 3) uint8 RGB, of a texture that moves smoothly behind a disc."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    texture = cv2.resize(noise, (160, 96), interpolation=cv2.INTER_CUBIC)
    frames = [texture[number // 2 :][:64, number : number + 96].copy() for number in range(LENGTH)]
    return [cv2.circle(f, (90 - n, 32), 12, (255, 40, 0), -1) for n, f in enumerate(frames)]


@pytest.fixture
def encode(tmp_path: Path, encode_video: Callable[..., Path]) -> Callable[..., Path]:
    """Give a function that writes the scenes to a file."""

    def write(name: str, codec: str, **options: object) -> Path:
        return encode_video(tmp_path / name, scenes(), **CODECS[codec] | options)

    return write


def every_fifth(times_s: list[float], _fps: float) -> range:
    return range(0, len(times_s), 5)


def num_skipped(path: Path) -> int:
    """Check that a clip is the same with and without skipping; count the frames skipped."""
    every, some = (list(Video(path, wanted).pictures()) for wanted in (None, every_fifth))
    assert [picture.time_s for picture in some] == [picture.time_s for picture in every]
    for number, (expected, found) in enumerate(zip(every, some, strict=True)):
        if number % 5 == 0 or found.frame is not None:
            np.testing.assert_array_equal(found.rgb(), expected.rgb(), str(number))
    return sum(picture.frame is None for picture in some)


@pytest.mark.parametrize(("name", "codec"), FILES)
def test_the_same_frames_in_any_file(encode: Callable[..., Path], name: str, codec: str):
    path = encode(name, codec)
    skipped = num_skipped(path)
    without_times = name.endswith((".avi", ".h264"))
    assert (skipped >= LENGTH // 5) == (codec in SKIPPING and not without_times)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_same_frames_at_a_variable_rate(encode: Callable[..., Path], codec: str):
    gaps_s = np.random.default_rng(1).choice([0.01, 0.033, 0.05, 0.4], LENGTH)
    path = encode("clip.mp4", codec, times_s=np.cumsum(gaps_s).tolist())
    assert num_skipped(path) >= LENGTH // 5


def test_the_same_frames_if_the_clip_is_turned(
    encode: Callable[..., Path], turn: Callable[[Path, int], None]
):
    path = encode("clip.mp4", "h264")
    turn(path, 90)
    assert num_skipped(path) and next(Video(path, every_fifth).pictures()).rgb().shape[:2] == (
        96,
        64,
    )


def packets(path: Path) -> list[tuple[int, int]]:
    """Give the place in the file and the size of each packet."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("number", range(1, 9))  # three of four are B-frames
@pytest.mark.parametrize("part", ["header", "middle", "all"])
def test_the_same_frames_if_a_packet_is_damaged(
    encode: Callable[..., Path], codec: str, number: int, part: str
):
    path = encode("clip.mp4", codec)
    place, size = packets(path)[number]
    start, length = {"header": (5, 6), "middle": (size // 2, 12), "all": (0, size)}[part]
    content = bytearray(path.read_bytes())
    content[place + start : place + start + length] = bytes(length)
    path.write_bytes(content)
    num_skipped(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.flv"])
def test_the_same_frames_if_the_file_is_truncated(encode: Callable[..., Path], name: str):
    path = encode(name, "h264", movflags="faststart" if name.endswith("mp4") else "")
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    num_skipped(path)


def remuxed(path: Path, name: str, shift: int = 0, drop: int = 0, step: int = 1) -> Path:
    """Copy a clip's packets, but for the first ones, under shifted or rounded timestamps."""
    copy = path.with_name(name)
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(path)) as old, av.open(str(copy), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in [packet for packet in old.demux(video=0) if packet.size][drop:]:
            packet.pts = (packet.pts + shift) // step * step
            packet.dts = packet.dts + shift - 10 * step
            packet.stream = stream
            new.mux(packet)
    return copy


def test_the_same_frames_if_timestamps_are_double(encode: Callable[..., Path]):
    path = encode("clip.mp4", "h264")
    assert num_skipped(remuxed(path, "same.mkv")) > 0
    assert num_skipped(remuxed(path, "double.mkv", step=2000)) == 0


@pytest.mark.parametrize("codec", ["h264, open GOP", "hevc"])
@pytest.mark.parametrize("drop", [1, 12])
def test_the_same_frames_if_the_first_ones_are_cut_off(
    encode: Callable[..., Path], codec: str, drop: int
):
    """Frames may then refer to what is missing, and are not decoded."""
    num_skipped(remuxed(encode("clip.mp4", codec), "cut.mp4", drop=drop))


def test_the_same_frames_if_an_edit_list_hides_the_first_ones(encode: Callable[..., Path]):
    path = encode("clip.mp4", "h264")
    fifth = sorted(packet.pts for packet in av.open(str(path)).demux(video=0) if packet.size)[5]
    edited = remuxed(path, "edited.mp4", shift=-fifth)
    assert len(list(Video(edited).pictures())) == LENGTH - 5
    assert num_skipped(edited) >= LENGTH // 5


def test_a_skipped_frame_is_counted(encode: Callable[..., Path]):
    video = Video(encode("clip.mp4", "h264"), every_fifth)
    assert len(list(video.pictures())) == video.num_frames == LENGTH
