"""Cutting one clip: what settings name, which clips are cut again, and what a broken one costs."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.clips.demo.render import Format, render_frames
from emotion.clips.naming import Clip
from emotion.clips.video import Video
from emotion.errors import DamagedFile
from emotion.stacks.arrays import read_array
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter, face_cropper
from emotion.stacks.settings import CacheSettings
from emotion.stacks.stack import read_stack
from tests.stacks.standard import STANDARD


def clip_of(path: Path) -> Clip:
    return Clip(path, path.stem, "Happy", "", "train")


def stacks_of(cutter: Cutter, path: Path) -> list[np.ndarray]:
    """Cut a clip and read its stacks."""
    clip = clip_of(path)
    record = cutter.cut(clip)
    return [read_stack(cutter.cache.stack_path(clip.id, s.number)) for s in record.segments]


@pytest.fixture
def cutter(tmp_path: Path) -> Callable[..., Cutter]:
    """Give a function that makes a cutter with these settings and the standard ones."""

    def make(**settings: object) -> Cutter:
        changed = replace(STANDARD, **settings)
        return Cutter(Cache(tmp_path / "cache" / changed.folder, changed))

    return make


@pytest.fixture
def happy(demo_cache: Cache, tmp_path: Path) -> Path:
    """Give a copy of a clip of 90 frames with one face."""
    return Path(shutil.copy(demo_cache.root / "Happy_0001.mp4", tmp_path / "Happy_0001.mp4"))


# Settings


def another(value: float | str | bool) -> float | str | bool:
    """Give another legal value of a setting: `sampled` -> `none`, 5 -> 10 and so on."""
    others = {
        "sampled": "none", "clip": "first_face", "frames": "time", "largest": "central",
        "box": "features",
        90: 180, 75: 80, False: True,
    }  # fmt: skip
    if value in others:
        return others[value]
    assert not isinstance(value, str), value
    return 2 * value if isinstance(value, int) else value / 2


def test_settings_are_those_of_the_config(compose: Callable):
    standard = compose("preprocess", ["data=demo"])
    keys = {"min_frames", *standard.sampling, *standard.face} - {"model"}
    assert keys == {field.name for field in fields(CacheSettings)}
    assert CacheSettings.from_config(standard) == STANDARD
    other = compose("preprocess", ["data=demo", "face.margin=0.2"])
    assert Cache.from_config(other).directory.name != Cache.from_config(standard).directory.name


@pytest.mark.parametrize("field", fields(CacheSettings), ids=lambda field: field.name)
def test_every_setting_gives_the_folder_another_name(field: object):
    changed = replace(STANDARD, **{field.name: another(getattr(STANDARD, field.name))})
    assert changed.folder != STANDARD.folder
    assert changed.folder.isascii() and "/" not in changed.folder and " " not in changed.folder


# The same moments


@pytest.fixture(scope="module")
def film() -> list[np.ndarray]:
    """Give three seconds of a drawn face at 120 fps, as RGB."""
    frames = render_frames("Shock", 0, 7, Format(num_frames=360, fps=120))
    return [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames]


@pytest.fixture(scope="module")
def shown_at(
    film: list[np.ndarray], encode_video: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Give a function that writes the film at a rate: which of its frames are shown."""
    rng = np.random.default_rng(0)
    frames = {
        "120": np.arange(360),
        "60": np.arange(0, 360, 2),
        "30": np.arange(0, 360, 4),
        "24": np.arange(0, 360, 5),
        "varying": np.r_[0, np.sort(rng.choice(np.arange(1, 360), 99, replace=False))],
    }

    def write(rate: str) -> Path:
        path = tmp_path_factory.getbasetemp() / f"film{rate}.mp4"
        if not path.exists():
            encode_video(path, [film[i] for i in frames[rate]], frames[rate] / 120)
        return path

    return write


@pytest.mark.parametrize("tracking", ["sampled", pytest.param("none", marks=pytest.mark.slow)])
def test_by_time_any_rate_gives_stacks_of_the_same_moments(
    shown_at: Callable, cutter: Callable, tracking: str
):
    by_time = cutter(by="time", tracking=tracking)
    (expected,) = stacks_of(by_time, shown_at("120"))
    assert expected.shape == (18, 224, 224)
    changing = np.abs(expected[1:].astype(float) - expected[:-1]).mean()
    for rate in ("60", "30", "24", "varying"):
        (stack,) = stacks_of(by_time, shown_at(rate))
        difference = np.abs(stack.astype(float) - expected).mean()
        assert difference < 3 < 6 < changing, rate  # 2 are compression and the box's jitter


@pytest.mark.slow
def test_by_frames_a_clip_of_twice_the_rate_gives_twice_the_stacks(
    shown_at: Callable, cutter: Callable
):
    by_frames, by_time = cutter(by="frames"), cutter(by="time")
    assert [len(stacks_of(by_frames, shown_at(rate))) for rate in ("120", "60", "30", "24")] == [
        4, 2, 1, 0,
    ]  # fmt: skip
    assert [len(stacks_of(by_time, shown_at(rate))) for rate in ("120", "60", "30", "24")] == [
        1, 1, 1, 1,
    ]  # fmt: skip


# Rotation and headers


@pytest.mark.slow
@pytest.mark.parametrize("clockwise_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_clip_stored_lying_gives_the_crops_of_the_upright_one(
    happy: Path, cutter: Callable, encode_video: Callable, turn: Callable, suffix: str,
    clockwise_deg: int,
):  # fmt: skip
    frames = [picture.rgb()[:, 20:] for picture in Video(happy).pictures()]  # (256, 236, 3)
    upright = encode_video(happy.with_name("upright.mp4"), frames)
    lying = [np.rot90(frame, clockwise_deg // 90) for frame in frames]  # counter-clockwise
    lying = encode_video(happy.with_name(f"lying{suffix}"), lying)
    turn(lying, clockwise_deg)
    (expected,), (found,) = (stacks_of(cutter(), path) for path in (upright, lying))
    assert np.abs(found.astype(float) - expected).mean() < 2
    assert np.abs(np.rot90(found, 2, axes=(1, 2)).astype(float) - expected).mean() > 20


@pytest.mark.parametrize("declared", [0, 1, 91, 10_000])
def test_wrong_frame_count_in_the_header_does_not_matter(
    happy: Path, cutter: Callable, declared: int
):
    (expected,) = stacks_of(cutter(), happy)
    content = happy.read_bytes()
    place = content.index(b"stts") + 12  # version, number of entries, then frames and duration
    assert content[place : place + 4] == (90).to_bytes(4, "big")
    path = happy.with_name("lying.mp4")
    path.write_bytes(content[:place] + declared.to_bytes(4, "big") + content[place + 4 :])
    (stack,) = stacks_of(cutter(), path)
    np.testing.assert_array_equal(stack, expected)
    assert cutter().record(clip_of(path)).num_frames == 90


# Landmarks


def test_every_image_has_the_values_of_its_own_face(
    happy: Path, cutter: Callable, encode_video: Callable
):
    frames = [picture.rgb() for picture in Video(happy).pictures()]
    black = np.zeros_like(frames[0])
    path = encode_video(happy.with_name("late.mp4"), [black] * 12 + frames[12:80])
    (stack,) = stacks_of(cutter(tracking="none"), path)
    cache = cutter(tracking="none").cache
    landmarks = read_array(cache.landmarks_path("late", 1))
    blendshapes = read_array(cache.blendshapes_path("late", 1))
    assert blendshapes.shape == (18, 52) and blendshapes.dtype == np.float32
    assert landmarks.shape == (18, 468, 3) and landmarks.dtype == np.float32
    cropper = face_cropper(cutter(tracking="none").cache.settings)
    cropper.start_clip()
    for place, picture in enumerate(list(Video(path).pictures())[::5]):
        face = cropper.crop(picture.rgb())
        assert (face is None) == (place < 3)
        if face is not None:
            np.testing.assert_array_equal(stack[place], face.crop)
            np.testing.assert_array_equal(landmarks[place], face.landmarks)
            np.testing.assert_array_equal(blendshapes[place], face.blendshapes)
    assert (landmarks[:3] == landmarks[3]).all()  # as the crops: the first one leads
    assert (landmarks[16:] == landmarks[15]).all()  # and the last one pads the tail
    assert (landmarks[3] != landmarks[15]).any()


def test_smiles_are_wider_than_sad_mouths_in_landmarks(demo_cache: Cache):
    def mouth(name: str) -> float:  # the distance of its corners in units of that of the eyes
        landmarks = read_array(demo_cache.landmarks_path(name, 1))
        return np.linalg.norm(landmarks[:, 291] - landmarks[:, 61], axis=1).max()

    for number in ("0001", "0002"):
        assert mouth(f"Happy_{number}") > 1.05 * mouth(f"Sad_{number}")


# What is cut again, and what is not


@pytest.fixture
def cutting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of the clips that are opened from now on."""
    opened = []

    def note(self: Video, path: Path, *arguments: object) -> None:
        opened.append(path.name)
        original(self, path, *arguments)

    original = Video.__init__
    monkeypatch.setattr(Video, "__init__", note)
    return opened


def test_a_clip_is_cut_once(happy: Path, cutter: Callable, cutting: list[str]):
    first, second = (cutter().cut(clip_of(happy)) for _ in range(2))
    assert first == second and cutting == ["Happy_0001.mp4"]
    assert (first.num_frames, first.fps, first.failed, first.dropped) == (90, 30, False, [])
    (segment,) = first.segments
    assert (segment.number, segment.num_frames, segment.num_faces) == (1, 90, 1)
    assert segment.has_face == "1" * 18
    assert list(segment.files) == [
        "stacks/Happy_0001_0001.tiff",
        "landmarks/Happy_0001_0001.npy",
        "blendshapes/Happy_0001_0001.npy",
    ]
    for name, stamp in segment.files.items():
        content = (cutter().cache.directory / name).read_bytes()
        assert stamp.digest == hashlib.sha256(content).hexdigest()
        assert stamp.size_bytes == len(content)


def test_other_content_of_the_same_size_and_dates_is_noticed(
    demo_cache: Cache, happy: Path, cutter: Callable, cutting: list[str]
):
    content = (demo_cache.root / "Sad_0001.mp4").read_bytes()
    size = max(len(content), happy.stat().st_size)
    happy.write_bytes(happy.read_bytes().ljust(size, b"\0"))  # zeros at the end say nothing
    before = happy.stat()
    (old,) = stacks_of(cutter(), happy)
    happy.write_bytes(content.ljust(size, b"\0"))
    os.utime(happy, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = happy.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    (new,) = stacks_of(cutter(), happy)
    assert cutting == ["Happy_0001.mp4"] * 2
    expected = read_stack(demo_cache.directory / "stacks" / "Sad_0001_0001.tiff")
    np.testing.assert_array_equal(new, expected)
    assert not np.array_equal(old, expected)


@pytest.mark.parametrize("way", ["touched", "copied", "moved away and back", "made read-only"])
def test_the_same_content_is_not_cut_again_whatever_its_dates(
    happy: Path, cutter: Callable, cutting: list[str], way: str
):
    record = cutter().cut(clip_of(happy))
    (tiff,) = cutter().cache.directory.rglob("*.tiff")
    written = tiff.stat().st_mtime_ns
    if way == "touched":
        os.utime(happy, (1e9, 1e9))
    elif way == "copied":
        content = happy.read_bytes()
        happy.unlink()
        happy.write_bytes(content)
    elif way == "moved away and back":
        happy.rename(happy.with_name("away.mp4")).rename(happy)
    else:
        happy.chmod(0o444)
    again = cutter().cut(clip_of(happy))
    assert cutting == ["Happy_0001.mp4"] and tiff.stat().st_mtime_ns == written
    assert again.segments == record.segments
    dates = happy.stat()
    assert again.source.modified_ns == dates.st_mtime_ns
    kept = json.loads(cutter().cache.record_path("Happy_0001").read_text())
    # so that it is not read again for the next run
    assert kept["source"]["changed_ns"] == again.source.changed_ns == dates.st_ctime_ns


def test_link_whose_file_comes_later_is_cut_then(happy: Path, cutter: Callable, cutting: list[str]):
    link = happy.with_name("Happy_0002.mp4")
    link.symlink_to("later.mp4")
    for _ in range(2):
        record = cutter().cut(clip_of(link))
        assert record.failed and record.segments == []
        assert "symbolic link" in record.dropped[0].reason
    happy.rename(happy.with_name("later.mp4"))
    assert len(stacks_of(cutter(), link)) == 1


def test_clip_that_shrinks_leaves_no_stack_of_what_it_was(
    happy: Path, cutter: Callable, encode_video: Callable
):
    frames = [picture.rgb() for picture in Video(happy).pictures()]
    encode_video(happy, frames + frames)
    assert len(stacks_of(cutter(), happy)) == 2
    encode_video(happy, frames)
    assert len(stacks_of(cutter(), happy)) == 1
    assert [p.name for p in cutter().cache.directory.rglob("*.tiff")] == ["Happy_0001_0001.tiff"]
    assert [p.name for p in cutter().cache.directory.rglob("*.npy")] == 2 * ["Happy_0001_0001.npy"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("part", ["write_stack", "write_array", "open_clip"])
def test_fault_of_the_machine_is_no_clips(
    happy: Path, cutter: Callable, monkeypatch: pytest.MonkeyPatch, part: str, code: int
):
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"emotion.stacks.cutter.{part}", fail)
        with pytest.raises(OSError):
            cutter().cut(clip_of(happy))
    assert cutter().record(clip_of(happy)) is None
    assert len(stacks_of(cutter(), happy)) == 1


def test_folder_that_cannot_be_written_is_no_clips_fault(happy: Path, cutter: Callable):
    folder = cutter().cache.stack_path("Happy_0001", 1)
    (folder / "thesis").mkdir(parents=True)
    with pytest.raises(OSError) as failure:
        cutter().cut(clip_of(happy))
    assert str(folder) in str(failure.value) and (folder / "thesis").is_dir()


def test_record_of_another_clip_is_not_believed(happy: Path, cutter: Callable):
    other = Path(shutil.copy(happy, happy.with_name("Happy_0002.mp4")))
    records = [cutter().cache.record_path(path.stem) for path in (happy, other)]
    cutter().cut(clip_of(happy))
    shutil.copy(*records)
    with pytest.raises(DamagedFile, match=re.escape(str(records[1]))):
        cutter().record(clip_of(other))
    assert len(stacks_of(cutter(), other)) == 1
    assert cutter().record(clip_of(other)).clip == "Happy_0002"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read as somebody else")
def test_clip_that_may_not_be_read_is_named_so_and_cut_once_it_may(
    happy: Path, cutter: Callable, tmp_path: Path
):
    happy.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    os.seteuid(65534)
    try:
        record = cutter().cut(clip_of(happy))
    finally:
        os.seteuid(0)
    assert record.failed
    assert [drop.reason for drop in record.dropped] == ["permission to read it is denied"]
    happy.chmod(0o644)
    assert len(stacks_of(cutter(), happy)) == 1


def test_clip_that_is_gone_since_it_was_listed_costs_itself_alone(happy: Path, cutter: Callable):
    cutter().cut(clip_of(happy))
    happy.unlink()
    assert cutter().record(clip_of(happy)) is None
    record = cutter().cut(clip_of(happy))
    assert record.failed and "does not exist" in record.dropped[0].reason


# Faces


@pytest.mark.slow
def test_record_says_how_many_faces_were_seen(
    happy: Path, cutter: Callable, encode_video: Callable
):
    frames = [picture.rgb() for picture in Video(happy).pictures()]
    alone = [np.hstack([frame, np.full_like(frame, 90)]) for frame in frames]
    both = [np.hstack([frame, frame[:, ::-1]]) for frame in frames]
    two = encode_video(happy.with_name("two.mp4"), alone + both)
    record = cutter().cut(clip_of(two))
    assert [segment.num_faces for segment in record.segments] == [1, 2]
