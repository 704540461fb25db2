"""The cache: golden stacks, all intervals from one, nothing done twice, nothing lost unsaid."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from omegaconf import DictConfig

from emotion import REPOSITORY
from emotion.errors import DamagedFile, UserError
from emotion.executors import pixel_versions
from emotion.stacks.cache import Cache
from emotion.stacks.clip_record import read_clip_record, stamp_of, write_clip_record
from emotion.stacks.contact_sheet import NAME_PX
from emotion.stacks.stack import read_stack, take_images
from emotion.tables import read_table
from tests.caches import BuildableCache

# shared/data/README.md: which clip the seed's notebook made each golden stack of.
GOLDEN = {
    "01-02-03_01": "Happy_0001_0001_interval5.tiff",
    "06-02-06_01": "Anger_0016_0001_interval5.tiff",
    "02-01-02_01": "Sad_0002_0001_interval5.tiff",
    "07-01-04_01": "Shock_0003_0001_interval5.tiff",
    "03-01-01_01": "Neutral_0004_0001_interval5.tiff",
}
BLACK = np.zeros((256, 256, 3), np.uint8)

CutCache = Callable[..., BuildableCache]


@pytest.fixture
def clips(demo_cache: BuildableCache, tmp_path: Path) -> Path:
    """Give a folder of three clips with faces: two train, one val."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for source, name in [
        ("Happy_0001", "Happy_0001"),
        ("Sad_0001", "Sad_0001"),
        ("Shock_0001", "Shock_0016"),
    ]:
        shutil.copy(demo_cache.root / f"{source}.mp4", folder / f"{name}.mp4")
    return folder


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def stamps(cache: BuildableCache) -> dict[str, int]:
    return {path.stem[:-5]: path.stat().st_mtime_ns for path in cache.directory.rglob("*.tiff")}


def changed(cache: BuildableCache, before: dict[str, int]) -> list[str]:
    return sorted(clip for clip, stamp in stamps(cache).items() if before.get(clip) != stamp)


def dropped(cache: BuildableCache) -> dict[str, dict[str, str]]:
    return {row["clip"]: row for row in read_table(cache.directory / "dropped.csv")}


# Real clips


@pytest.fixture(scope="module")
def real_cache(
    shared_data: Path, compose: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., BuildableCache]:
    """Give a function that cuts real clips, each set of clips and settings once."""
    folder, built = tmp_path_factory.mktemp("real"), {}

    def build(names: Iterable[str], *overrides: str) -> BuildableCache:
        key = (*names, *overrides)
        if key not in built:
            root = folder / f"clips{len(built)}"
            root.mkdir()
            for name in names:
                (root / f"{name}.mp4").symlink_to(shared_data / "javanese" / f"{name}.mp4")
            paths = [f"data.root={root}", f"paths.cache={folder}/cache{len(built)}"]
            cfg = compose("preprocess", ["data=javanese", "num_workers=1", *paths, *overrides])
            built[key] = BuildableCache.from_config(cfg)
            built[key].build()
        return built[key]

    return build


def differences(cache: BuildableCache, golden: Path) -> dict[str, float]:
    """Compare with the golden stacks: mean difference in gray levels, on frames with a face."""
    compared = {}
    rows = {(row.clip, row.segment): row for row in cache.manifest()}
    for clip, name in GOLDEN.items():
        row = rows[clip, 1]
        assert name.startswith(row.label)
        theirs = tifffile.imread(golden / name).squeeze()
        ours = tifffile.imread(cache.directory / row.stack)
        assert ours.shape == theirs.shape == (18, 224, 224)
        faces = [place for place, letter in enumerate(row.has_face) if letter == "1"]
        assert len(faces) == row.face_frames >= 9
        compared[clip] = np.abs(ours[faces].astype(float) - theirs[faces]).mean()
    return compared


# Gray levels, docs/face_mesh.md: the golden stacks were cut with MediaPipe's old mesh.
BOUNDS = {"Happy": 9.0, "Anger": 6.0, "Sad": 9.0, "Shock": 9.0, "Neutral": 21.0}


@pytest.mark.slow
@pytest.mark.parametrize("tracking", ["every_frame", "sampled"])
def test_stacks_stay_near_the_golden_ones(real_cache: Callable, shared_data: Path, tracking: str):
    cache = real_cache(GOLDEN, f"face.tracking={tracking}")
    found = differences(cache, shared_data / "golden")
    bounds = {clip: BOUNDS[name.split("_")[0]] for clip, name in GOLDEN.items()}
    assert all(0 < found[clip] < bound for clip, bound in bounds.items()), found


@pytest.mark.slow
def test_golden_stacks_are_black_exactly_where_ours_repeat_the_first_crop(
    real_cache: Callable, shared_data: Path
):
    cache = real_cache(GOLDEN, "face.tracking=every_frame")
    leading = 0
    for row in cache.manifest():
        if row.clip in GOLDEN and row.segment == 1:
            theirs = tifffile.imread(shared_data / "golden" / GOLDEN[row.clip]).squeeze()
            ours = read_stack(cache.directory / row.stack)
            first = row.has_face.index("1")
            assert not theirs[:first].any() and theirs[first].any()
            assert (ours[:first] == ours[first]).all() and ours[first].any()
            leading += first
    assert leading > 0  # or this test shows nothing


@pytest.mark.slow
@pytest.mark.parametrize("interval", [10, 15])
def test_longer_intervals_are_what_cutting_at_them_gives(real_cache: Callable, interval: int):
    names = ["01-02-03_01", "07-01-04_01"]  # 89 and 75 frames, black ones among them
    cached = real_cache(names, "face.tracking=every_frame")
    direct = real_cache(names, "face.tracking=every_frame", f"sampling.interval={interval}")
    rows, direct_rows = cached.manifest(), direct.manifest()
    assert [row.clip for row in rows] == [row.clip for row in direct_rows] == names
    assert "0" in rows[0].has_face + rows[1].has_face
    for row, direct_row in zip(rows, direct_rows, strict=True):
        taken = take_images(row.crop_found, interval // 5)
        stack = tifffile.imread(cached.directory / row.stack)[taken]
        expected = tifffile.imread(direct.directory / direct_row.stack)
        assert expected.shape == (90 // interval, 224, 224)
        np.testing.assert_array_equal(stack, expected)


@pytest.mark.slow
def test_subjects_and_splits_come_from_the_names_of_real_clips(real_cache: Callable):
    rows = {row.clip: row for row in real_cache(GOLDEN).manifest()}
    assert {clip: (row.label, row.subject, row.split) for clip, row in rows.items()} == {
        "01-02-03_01": ("Happy", "01", "train"),
        "06-02-06_01": ("Anger", "06", "train"),
        "02-01-02_01": ("Sad", "02", "train"),
        "07-01-04_01": ("Shock", "07", "train"),
        "03-01-01_01": ("Neutral", "03", "val"),
    }
    # 163 frames make a segment and a tail of 73, too short; 134 and 102 likewise.
    assert {clip: row.num_frames for clip, row in rows.items()} == {
        "01-02-03_01": 89,
        "06-02-06_01": 90,
        "02-01-02_01": 90,
        "07-01-04_01": 75,
        "03-01-01_01": 90,
    }
    assert all(row.fps == pytest.approx(29.97, abs=0.01) for row in rows.values())
    tails = {
        clip: (row["segment"], row["detail"]) for clip, row in dropped(real_cache(GOLDEN)).items()
    }
    assert tails == {
        "06-02-06_01": ("2", "44 frames"),
        "02-01-02_01": ("2", "73 frames"),
        "03-01-01_01": ("2", "12 frames"),
    }


# What a build writes


def test_a_demo_stack_is_described_in_full(demo_cache: BuildableCache):
    rows = demo_cache.manifest()
    assert len(rows) == 30
    assert {
        split: sum(row.split == split for row in rows) for split in ("train", "val", "test")
    } == {
        "train": 10,
        "val": 10,
        "test": 10,
    }
    for row in rows:
        assert row.stack == f"stacks/{row.clip}_0001.tiff"
        assert row.label == row.clip.split("_")[0]
        assert (row.segment, row.subject, row.num_frames) == (1, "", 90)
        assert (row.has_face, row.face_frames, row.sampled_frames) == ("1" * 18, 18, 18)
        assert row.fps == 30
        stack = tifffile.imread(demo_cache.directory / row.stack)
        assert (stack.shape, stack.dtype) == ((18, 224, 224), np.uint8)
    assert read_table(demo_cache.directory / "dropped.csv") == []


def test_nothing_unfinished_is_left(demo_cache: BuildableCache):
    files = [p.relative_to(demo_cache.directory) for p in demo_cache.directory.rglob("*")]
    names = sorted(p.as_posix() for p in files if p.suffix not in ("", ".tiff", ".npy", ".json"))
    sheets = [f"sheets/{label}.png" for label in demo_cache.scheme.labels]
    assert names == ["dropped.csv", "manifest.csv", "report.csv", *sheets]
    assert not [p for p in files if p.name.startswith(".")]
    for kind, suffix in (("stacks", ".tiff"), ("landmarks", ".npy"), ("blendshapes", ".npy")):
        found = [p for p in files if p.parts[0] == kind and p.suffix]
        assert len(found) == 30 and {p.suffix for p in found} == {suffix}
    assert len([p for p in files if p.suffix == ".json"]) == 31  # one a clip, and the settings


def test_clips_in_folders_make_stacks_in_folders(cache_of: CutCache, clips: Path):
    (clips / "ann").mkdir()
    (clips / "Happy_0001.mp4").rename(clips / "ann" / "Happy.mp4")
    cache = cache_of(
        clips,
        r"data.pattern='(?P<subject>[a-z]+)/(?P<label>[A-Z][a-z]+)'",
        "data.split.by=subject",
    )
    cache.build()
    (row,) = cache.manifest()
    assert (row.clip, row.subject, row.stack) == ("ann/Happy", "ann", "stacks/ann/Happy_0001.tiff")
    assert (cache.directory / row.stack).is_file()


def test_long_clip_is_cut_and_its_tail_padded_or_named(
    cache_of: CutCache, clips: Path, write_video: Callable
):
    frames = frames_of(clips / "Happy_0001.mp4")
    write_video(clips / "Happy_0001.mp4", frames + frames[:76])
    write_video(clips / "Sad_0001.mp4", frames + frames[:74])
    cache = cache_of(clips)
    cache.build()
    rows = {(row.clip, row.segment): row for row in cache.manifest()}
    assert list(rows) == [("Happy_0001", 1), ("Happy_0001", 2), ("Sad_0001", 1), ("Shock_0016", 1)]
    tail = rows["Happy_0001", 2]
    assert (tail.num_frames, tail.sampled_frames, tail.face_frames) == (76, 16, 16)
    assert tail.has_face == "1" * 16 + "0" * 2
    stack = tifffile.imread(cache.directory / tail.stack)
    assert stack.shape == (18, 224, 224)
    assert (stack[15:] == stack[15]).all() and (stack[14] != stack[15]).any()
    tail = dropped(cache)["Sad_0001"]
    assert (tail["segment"], tail["detail"]) == ("2", "74 frames")
    assert "data.min_frames=75" in tail["reason"]


def test_too_short_clip_is_named_with_the_key_that_admits_it(
    cache_of: CutCache, clips: Path, write_video: Callable, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    frames = frames_of(clips / "Happy_0001.mp4")
    write_video(clips / "Happy_0001.mp4", frames[:60])
    cache = cache_of(clips)
    cache.build()
    assert "Happy_0001" not in {row.clip for row in cache.manifest()}
    row = dropped(cache)["Happy_0001"]
    assert "data.min_frames=75" in row["reason"] and row["detail"] == "60 frames"
    assert "Happy_0001 (60 frames)" in caplog.text and "data.min_frames=75" in caplog.text
    lower = cache_of(clips, "data.min_frames=60")
    lower.build()
    (row,) = (row for row in lower.manifest() if row.clip == "Happy_0001")
    assert row.has_face == "1" * 12 + "0" * 6


def test_clip_without_a_face_is_named_with_the_reason(
    cache_of: CutCache, clips: Path, write_video: Callable, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 160, 3), np.uint8)
    write_video(clips / "Happy_0001.mp4", noise)
    cache = cache_of(clips)
    cache.build()
    assert {row.clip for row in cache.manifest()} == {"Sad_0001", "Shock_0016"}
    row = dropped(cache)["Happy_0001"]
    assert "sampling.min_face_fraction=0.5" in row["reason"]
    assert row["detail"] == "in 0 of 18 sampled frames"
    assert "Happy_0001" in caplog.text


@pytest.mark.parametrize(("faceless", "kept"), [(9, True), (10, False)])
def test_segment_needs_a_face_in_half_of_its_sampled_frames(
    cache_of: CutCache, clips: Path, write_video: Callable, faceless: int, kept: bool
):
    frames = frames_of(clips / "Happy_0001.mp4")
    frames = [BLACK] * (5 * faceless) + frames[5 * faceless :]
    write_video(clips / "Happy_0001.mp4", frames)
    cache = cache_of(clips)
    cache.build()
    assert ("Happy_0001" in {row.clip for row in cache.manifest()}) == kept
    if not kept:
        assert dropped(cache)["Happy_0001"]["detail"] == "in 8 of 18 sampled frames"


def test_leading_frames_without_a_face_take_the_first_crop(
    cache_of: CutCache, clips: Path, write_video: Callable
):
    frames = frames_of(clips / "Happy_0001.mp4")
    write_video(clips / "Happy_0001.mp4", [BLACK] * 12 + frames[12:])
    cache = cache_of(clips)
    cache.build()
    row = cache.manifest()[0]
    assert row.has_face == "000" + "1" * 15  # frames 0, 5 and 10 are black
    stack = tifffile.imread(cache.directory / row.stack)
    assert (stack[:3] == stack[3]).all()
    assert stack[3].std() > 10 and (stack[3] != stack[4]).any()


# What can go wrong with clips


@pytest.mark.parametrize("break_clip", ["text", "empty", "dangling link", "folder"])
def test_broken_clip_is_named_and_the_good_ones_are_done(
    cache_of: CutCache, clips: Path, break_clip: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    broken = clips / "Happy_0002.mp4"
    if break_clip == "text":
        broken.write_text("this is no video\n" * 100)
    elif break_clip == "empty":
        broken.touch()
    elif break_clip == "dangling link":
        broken.symlink_to(clips / "nowhere.mp4")
    else:
        broken.mkdir()
    cache = cache_of(clips)
    cache.build()
    assert {row.clip for row in cache.manifest()} == {"Happy_0001", "Sad_0001", "Shock_0016"}
    if break_clip != "folder":  # which may as well be taken for no clip at all
        assert dropped(cache)["Happy_0002"]["reason"]
        assert "Happy_0002" in caplog.text


def test_nothing_but_broken_clips_is_an_error(cache_of: CutCache, tmp_path: Path):
    root = tmp_path / "broken"
    root.mkdir()
    for number in range(3):
        (root / f"Happy_{number:04d}.mp4").write_text("no video")
    cache = cache_of(root)
    with pytest.raises(UserError) as refusal:
        cache.build()
    assert str(root) in str(refusal.value)
    assert not (cache.directory / "manifest.csv").exists()
    assert len(read_table(cache.directory / "dropped.csv")) == 3


# What is done again, and what is not


def test_second_build_touches_no_stack(cache_of: CutCache, clips: Path):
    cache = cache_of(clips)
    cache.build()
    before, manifest = stamps(cache), cache.manifest()
    assert len(before) == 3
    cache_of(clips).build()
    assert stamps(cache) == before
    assert cache.manifest() == manifest


@pytest.mark.parametrize(
    "lost", ["stacks/Sad_0001_0001.tiff", "landmarks/Sad_0001_0001.npy", "clips/Sad_0001.json"]
)
def test_clip_whose_stack_or_record_is_lost_is_cut_alone(
    cache_of: CutCache, clips: Path, lost: str
):
    cache = cache_of(clips)
    cache.build()
    before, manifest = stamps(cache), cache.manifest()
    content = (cache.directory / "stacks" / "Sad_0001_0001.tiff").read_bytes()
    (cache.directory / lost).unlink()
    cache.build()
    assert changed(cache, before) == ["Sad_0001"]
    assert (cache.directory / lost).is_file()
    assert (cache.directory / "stacks" / "Sad_0001_0001.tiff").read_bytes() == content
    assert cache.manifest() == manifest


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Give a function that pretends that NumPy was upgraded, and returns the versions then."""

    def install() -> dict[str, str]:
        versions = pixel_versions() | {"numpy": "99.0"}
        monkeypatch.setattr("emotion.stacks.cutter.pixel_versions", lambda: versions)
        return versions

    return install


def test_after_an_upgrade_all_clips_are_cut_again(
    cache_of: CutCache, clips: Path, upgrade: Callable, caplog: pytest.LogCaptureFixture
):
    cache = cache_of(clips)
    cache.build()
    before = stamps(cache)
    versions = upgrade()
    with caplog.at_level("WARNING"):
        cache.ensure()
    (line,) = (record.message for record in caplog.records if "numpy" in record.message)
    assert "99.0" in line and "\n" not in line
    assert changed(cache, before) == ["Happy_0001", "Sad_0001", "Shock_0016"]
    for row in cache.manifest():
        assert read_clip_record(cache.record_path(row.clip), row.clip).packages == versions
    before = stamps(cache)
    cache.ensure()
    assert stamps(cache) == before


def test_build_that_an_upgrade_interrupted_has_no_stacks_of_two_versions(
    cache_of: CutCache, clips: Path, upgrade: Callable
):
    (clips / "Sad_0001.mp4").rename(clips.parent / "Sad_0001.mp4")
    cache = cache_of(clips)
    cache.build()
    cache.contents_path.unlink()  # as if it had not come to its end
    (clips.parent / "Sad_0001.mp4").rename(clips / "Sad_0001.mp4")
    versions = upgrade()
    cache.build()
    for clip in ("Happy_0001", "Sad_0001", "Shock_0016"):
        assert read_clip_record(cache.record_path(clip), clip).packages == versions


def test_upgrade_without_clips_is_refused_with_the_package(
    cache_of: CutCache, clips: Path, upgrade: Callable
):
    cache = cache_of(clips)
    cache.build()
    before = stamps(cache)
    shutil.rmtree(clips)
    upgrade()
    with pytest.raises(UserError, match=r"numpy"):
        cache.ensure()
    assert stamps(cache) == before


def first_beside(path: Path) -> Path:
    return min(path.parent.glob(f"*{path.suffix}"))


DAMAGES = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size)),
    "edited": lambda path: path.write_bytes(path.read_bytes().replace(b"1", b"2", 1)),
    "another's": lambda path: path.write_bytes(first_beside(path).read_bytes()),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "removed": lambda path: path.unlink(),
}
FILES = [
    *("stacks/Shock_0016_0001.tiff", "landmarks/Shock_0016_0001.npy", "clips/Shock_0016.json"),
    *("manifest.csv", "dropped.csv", "report.csv", "settings.json"),
]


@pytest.fixture(scope="module")
def whole_cache(
    demo_cache: BuildableCache, compose: Callable, tmp_path_factory: pytest.TempPathFactory
) -> BuildableCache:
    """Give the cache of two clips, small."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "clips").mkdir()
    for source, name in (("Sad_0001", "Sad_0001"), ("Shock_0001", "Shock_0016")):
        shutil.copy(demo_cache.root / f"{source}.mp4", folder / "clips" / f"{name}.mp4")
    paths = [f"data.root={folder}/clips", f"paths.cache={folder}/cache"]
    overrides = ["data=scrapping", "face.size_px=16", "num_workers=1", *paths]
    cache = BuildableCache.from_config(compose("preprocess", overrides))
    cache.build()
    return cache


def derived(cache: BuildableCache) -> dict[str, bytes]:
    """Read the files of a cache that hold no times."""
    paths = [path for path in cache.directory.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths if path.parent.name != "clips"}


@pytest.mark.parametrize("run", ["build", "ensure"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_damaged_file_is_made_again_with_one_warning(
    whole_cache: BuildableCache, caplog: pytest.LogCaptureFixture, file: str, damage: str, run: str
):
    before = derived(whole_cache)
    path = whole_cache.directory / file
    content = path.read_bytes()
    DAMAGES[damage](path)
    is_changed = not path.is_file() or path.read_bytes() != content
    with caplog.at_level("WARNING"):
        getattr(whole_cache, run)()
    assert derived(whole_cache) == before
    assert read_clip_record(whole_cache.record_path("Shock_0016"), "Shock_0016").segments
    warnings = [record.message for record in caplog.records]
    absent = damage == "removed" and file.endswith(".json")  # as if it had not been written yet
    assert len(warnings) == (is_changed and not absent)
    assert all("Shock_0016" in line or path.name in line for line in warnings)
    caplog.clear()
    getattr(whole_cache, run)()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_verify_finds_what_size_and_times_hide(whole_cache: BuildableCache, monkeypatch):
    path = whole_cache.directory / FILES[0]
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))
    record_path = whole_cache.record_path("Shock_0016")
    record = read_clip_record(record_path, "Shock_0016")
    stamp = record.segments[0].files[FILES[0]]
    hidden = replace(stamp_of(path), digest=stamp.digest)  # as if nothing had changed
    record.segments[0].files[FILES[0]] = hidden
    write_clip_record(record_path, record)
    whole_cache.build()
    assert path.read_bytes() != content
    (row,) = [row for row in whole_cache.manifest() if row.clip == "Shock_0016"]
    with pytest.raises(DamagedFile, match=re.escape(str(path))):
        whole_cache.stack(row)
    whole_cache.build(verify=True)
    assert path.read_bytes() == content
    assert whole_cache.stack(row).shape == (18, 16, 16)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES[:2])
def test_damaged_file_is_refused_when_it_is_read(
    whole_cache: BuildableCache, tmp_path: Path, file: str, damage: str
):
    folder = Path(shutil.copytree(whole_cache.directory, tmp_path / "copy"))
    cache = Cache(folder, whole_cache.settings)
    DAMAGES[damage](folder / file)
    (row,) = [row for row in cache.manifest() if row.clip == "Shock_0016"]
    read = cache.stack if file.startswith("stacks") else cache.landmarks
    with pytest.raises(DamagedFile, match=re.escape(str(folder / file))) as refusal:
        read(row)
    assert "verify=true" in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_is_damaged_without_clips_is_named(cache_of: CutCache, clips: Path):
    cache = cache_of(clips, "face.size_px=16")
    cache.build()
    shutil.rmtree(clips)
    cache.ensure()
    path = cache.directory / "stacks" / "Sad_0001_0001.tiff"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=re.escape(str(path))) as refusal:
        cache.ensure()
    assert str(clips) in str(refusal.value) and "\n" not in str(refusal.value)


def test_names_of_any_bytes_and_length_are_cut_once(cache_of: CutCache, clips: Path):
    long = "Sad_" + 243 * "1"
    (clips / "Sad_0001.mp4").rename(clips / f"{long}.mp4")
    source = os.fsencode(clips / "Happy_0001.mp4")
    os.rename(source, source.replace(b"0001", b"1\xff"))
    pattern = r"data.pattern='(?P<label>[A-Z][a-z]+)_(?P<id>.+)'"
    cache = cache_of(clips, "face.size_px=16", pattern)
    cache.build()
    assert [row.clip for row in cache.manifest()] == ["Happy_1\\udcff", long, "Shock_0016"]
    before = stamps(cache)
    cache.build()
    assert stamps(cache) == before and len(before) == 3


def test_what_is_no_file_is_named_and_not_opened(cache_of: CutCache, clips: Path):
    (clips / "Anger_0001.mp4").mkdir()
    os.mkfifo(clips / "Anger_0002.mp4")
    (clips / "Anger_0003.mp4").symlink_to("/dev/zero")
    cache = cache_of(clips, "face.size_px=16")
    cache.build()
    assert len(cache.manifest()) == 3
    reasons = {name: row["reason"] for name, row in dropped(cache).items()}
    assert reasons.keys() == {"Anger_0001", "Anger_0002", "Anger_0003"}
    assert all("a pipe or a device" in reason for reason in reasons.values())


def test_two_roots_of_one_name_do_not_share_stacks(
    cache_of: CutCache, clips: Path, demo_cache: BuildableCache, tmp_path: Path
):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(demo_cache.root / "Sad_0002.mp4", other / "Sad_0001.mp4")
    first, second = cache_of(clips), cache_of(other)
    assert first.directory != second.directory
    first.build()
    before, manifest = stamps(first), first.manifest()
    second.build()
    assert (stamps(first), first.manifest()) == (before, manifest)
    assert [row.clip for row in second.manifest()] == ["Sad_0001"]
    stacks = [cache.stack(cache.manifest()[-1]) for cache in (second, first)]
    assert not np.array_equal(*stacks)
    assert cache_of(clips).directory == first.directory


def test_build_names_the_contact_sheets_at_its_end(
    cache_of: CutCache, clips: Path, caplog: pytest.LogCaptureFixture
):
    cache = cache_of(clips, "face.size_px=16")
    with caplog.at_level("INFO"):
        cache.build()
    line = caplog.records[-1].message
    assert str(cache.directory / "sheets") in line
    assert all(f"{label}.png" in line for label in ("Happy", "Sad", "Shock"))
    assert "Anger.png" not in line


LIGHT = """
import sys
import emotion.stacks.cache
print(*sorted({"mediapipe", "torch", "av", "joblib", "hydra"} & set(sys.modules)))
"""


def test_locating_and_reading_a_cache_loads_nothing_that_builds_one():
    run = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


def test_new_clip_is_cut_alone(cache_of: CutCache, clips: Path):
    cache = cache_of(clips)
    cache.build()
    before = stamps(cache)
    shutil.copy(clips / "Sad_0001.mp4", clips / "Anger_0001.mp4")
    cache.build()
    assert changed(cache, before) == ["Anger_0001"]
    assert cache.manifest()[0].clip == "Anger_0001"


def test_removed_clip_leaves_the_manifest(cache_of: CutCache, clips: Path):
    cache = cache_of(clips)
    cache.build()
    (clips / "Sad_0001.mp4").unlink()
    cache.build()
    assert [row.clip for row in cache.manifest()] == ["Happy_0001", "Shock_0016"]


def test_changed_clip_is_cut_again(cache_of: CutCache, clips: Path, demo_cache: BuildableCache):
    cache = cache_of(clips)
    cache.build()
    before = stamps(cache)
    shutil.copy(demo_cache.root / "Sad_0002.mp4", clips / "Sad_0001.mp4")
    cache.build()
    assert changed(cache, before) == ["Sad_0001"]
    expected = tifffile.imread(demo_cache.directory / "stacks" / "Sad_0002_0001.tiff")
    found = tifffile.imread(cache.directory / "stacks" / "Sad_0001_0001.tiff")
    assert np.abs(found.astype(float) - expected).mean() < 1


def test_changed_split_and_label_map_rewrite_the_manifest_alone(cache_of: CutCache, clips: Path):
    cache = cache_of(clips)
    cache.build()
    before = stamps(cache)
    assert [row.split for row in cache.manifest()] == ["train", "train", "val"]
    changes = ["data.split.val=['0001']", "+data.label_map.Sad=Neutral"]
    cache_of(clips, *changes).ensure()
    assert [(row.label, row.split) for row in cache.manifest()] == [
        ("Happy", "val"),
        ("Neutral", "val"),
        ("Shock", "train"),
    ]
    assert stamps(cache) == before


def test_a_person_in_two_splits_is_told_and_cut_all_the_same(
    cache_of: CutCache, clips: Path, caplog: pytest.LogCaptureFixture
):
    pattern = r"data.pattern='(?P<label>[A-Z][a-z]+)_(?P<subject>00)(?P<id>\d+)'"
    told = "warning: data.split puts the same person into two splits: 00 in train and val"
    torn = cache_of(clips, pattern, "data.split.val=['16']")
    assert told in torn.plan()
    with caplog.at_level("INFO"):
        torn.build()
    assert told in caplog.text and len(torn.manifest()) == 3
    assert "same person" not in cache_of(clips, pattern, "data.split.val=[]").plan()


def test_standing_cache_needs_no_clips(cache_of: CutCache, clips: Path):
    cache_of(clips).build()
    before = stamps(cache_of(clips))
    shutil.rmtree(clips)
    cache_of(clips).ensure()
    assert stamps(cache_of(clips)) == before


def test_many_cached_clips_are_neither_opened_nor_cut_nor_hashed(
    cache_of: CutCache, demo_cache: BuildableCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clips = tmp_path / "many"
    clips.mkdir()
    shutil.copy(demo_cache.root / "Happy_0001.mp4", clips / "Happy_0000.mp4")
    cache = cache_of(clips, "face.size_px=16")
    cache.build()
    record = read_clip_record(cache.record_path("Happy_0000"), "Happy_0000")
    (segment,) = record.segments
    for number in range(1, 100):
        clip = f"Happy_{number:04d}"
        copy = Path(shutil.copy(clips / "Happy_0000.mp4", clips / f"{clip}.mp4"))
        files = {}
        for path_of in (cache.stack_path, cache.landmarks_path, cache.blendshapes_path):
            path = Path(shutil.copy(path_of("Happy_0000", 1), path_of(clip, 1)))
            files[path.relative_to(cache.directory).as_posix()] = stamp_of(path)
        changes = {
            "clip": clip,
            "source": stamp_of(copy),
            "segments": [replace(segment, files=files)],
        }
        write_clip_record(cache.record_path(clip), record.model_copy(update=changes))

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"there is nothing to do, but: {arguments}")

    before = stamps(cache)
    for name in (
        "emotion.stacks.cutter.open_clip",
        "emotion.stacks.clip_record.file_digest",
        "emotion.stacks.cutter.face_cropper",
        "emotion.stacks.cutter.write_stack",
        "emotion.stacks.cutter.write_array",
        "emotion.executors.LocalExecutor.run",
        "emotion.stacks.build.write_sheet",
    ):
        monkeypatch.setattr(name, refuse)
    cache.build()
    assert len(cache.manifest()) == 100 and stamps(cache) == before
    cache.ensure()
    monkeypatch.setattr("emotion.stacks.build.CacheBuilder.build", refuse)
    cache.ensure()


def test_deleted_clip_is_in_no_table_and_comes_back_without_being_cut(
    cache_of: CutCache, clips: Path
):
    cache = cache_of(clips)
    cache.build()
    before, content = stamps(cache), (clips / "Sad_0001.mp4").read_bytes()
    (clips / "Sad_0001.mp4").unlink()
    cache.build()
    for name in ("manifest.csv", "dropped.csv"):
        assert "Sad_0001" not in (cache.directory / name).read_text()
    (clips / "Sad_0001.mp4").write_bytes(content)
    cache.build()
    assert [row.clip for row in cache.manifest()] == ["Happy_0001", "Sad_0001", "Shock_0016"]
    assert stamps(cache) == before


def test_demo_clips_are_drawn_once(demo_cache: BuildableCache):
    before = {path: path.stat().st_mtime_ns for path in demo_cache.root.glob("*.mp4")}
    assert len(before) == 30
    stacks = stamps(demo_cache)
    demo_cache.build()
    assert {path: path.stat().st_mtime_ns for path in demo_cache.root.glob("*.mp4")} == before
    assert stamps(demo_cache) == stacks


def test_no_clips_are_drawn_among_a_users_own(tmp_path: Path, compose: Callable):
    own = tmp_path / "Happy_0001.mp4"
    own.write_bytes(b"mine")
    cache = BuildableCache.from_config(
        compose("train", ["data=demo", f"paths.cache={tmp_path}/cache", f"data.root={tmp_path}"])
    )
    with pytest.raises(UserError, match=r"data\.root"):
        cache.build()
    assert list(tmp_path.iterdir()) == [own] and own.read_bytes() == b"mine"


def test_demo_of_another_seed_is_another_folder_of_clips(compose: Callable, tmp_path: Path):
    roots = [
        BuildableCache.from_config(
            compose("train", ["data=demo", f"paths.cache={tmp_path}", f"data.render.seed={seed}"])
        ).root
        for seed in (0, 1)
    ]
    assert roots[0] != roots[1]


# Settings


def test_data_sets_and_limits_have_folders_of_their_own(compose: Callable):
    folders = {
        BuildableCache.from_config(
            compose("preprocess", ["data.root=/clips", *overrides])
        ).directory
        for overrides in (
            ["data=demo"],
            ["data=scrapping"],
            ["data=javanese"],
            ["data=demo", "data.max_clips_per_class=2"],
            ["data=demo", "data.max_clips_per_class=3"],
        )
    }
    assert len(folders) == 5


def test_training_and_preprocessing_name_the_same_cache(compose: Callable):
    for overrides in (["data=demo"], ["data=scrapping", "face.tracking=none"]):
        one, other = (
            BuildableCache.from_config(compose(name, overrides)) for name in ("train", "preprocess")
        )
        assert one.directory == other.directory and one.settings == other.settings
        assert one.builder.source == other.builder.source


@pytest.mark.parametrize("run", ["build", "ensure"])
def test_settings_that_are_not_the_folders_are_written_again(
    cache_of: CutCache, clips: Path, run: str
):
    cache = cache_of(clips)
    cache.build()
    before = stamps(cache)
    path = cache.directory / "settings.json"
    made = path.read_text()
    path.write_text(made.replace('"margin": 0.1', '"margin": 0.25'))
    assert path.read_text() != made
    getattr(cache, run)()
    assert path.read_text() == made and stamps(cache) == before


def test_without_clips_a_cache_of_other_settings_is_named(cache_of: CutCache, clips: Path):
    made = cache_of(clips, "sampling.interval=15")
    made.build()
    shutil.rmtree(clips)
    with pytest.raises(UserError) as refusal:
        cache_of(clips).ensure()
    message = str(refusal.value)
    assert str(clips) in message
    assert made.directory.name in message and cache_of(clips).directory.name in message
    assert "preprocess.py" in message


def test_without_clips_or_any_cache_the_folder_is_named(cache_of: CutCache, tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere") as refusal:
        cache_of(tmp_path / "nowhere").ensure()
    assert "other settings" not in str(refusal.value)


def test_data_set_without_a_folder_asks_for_it(compose: Callable):
    with pytest.raises(UserError, match=r"data\.root"):
        BuildableCache.from_config(compose("preprocess", ["data=javanese"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.interval=7", "sampling"),
        ("sampling.interval=0", "sampling"),
        ("sampling.segment_frames=0", r"sampling\.segment_frames|min_frames"),
        ("face.tracking=often", r"face\.tracking"),
        ("face.min_confidence=1.5", r"face\.min_confidence"),
        ("face.margin=-1", r"face\.margin"),
        ("face.size_px=0", r"face\.size_px"),
        ("sampling.min_face_fraction=50", r"sampling\.min_face_fraction"),
        ("data.min_frames=91", r"data\.min_frames"),
        ("data.pattern='(?P<label>'", r"data\.pattern"),
        ("data.split.by=actor", r"data\.pattern"),
    ],
)
def test_setting_that_cannot_work_is_refused_before_any_work(
    cache_of: CutCache, clips: Path, tmp_path: Path, override: str, message: str
):
    with pytest.raises(UserError, match=message):
        cache_of(clips, override)
    assert not (tmp_path / "cache").exists()


def test_parallel_and_single_builds_give_the_same_cache(
    cache_of: CutCache, clips: Path, demo_cache: BuildableCache
):
    cache = cache_of(clips)  # in this process; the demo's was cut in parallel ones
    cache.build()
    found = tifffile.imread(cache.directory / "stacks" / "Happy_0001_0001.tiff")
    expected = tifffile.imread(demo_cache.directory / "stacks" / "Happy_0001_0001.tiff")
    np.testing.assert_array_equal(found, expected)


# Stills


def test_stills_make_stacks_of_one_image_and_its_landmarks(cache_of: CutCache, stills: Path):
    (stills / "Sad" / "text.jpg").write_text("no picture")
    cv2.imwrite(str(stills / "Sad" / "gray.png"), np.full((90, 80), 127, np.uint8))
    cache = cache_of(stills, data="stills")
    cache.build()
    rows = cache.manifest()
    assert len(rows) == 8 and {row.clip.split("/")[0] for row in rows} == {"Happy", "Sad"}
    for row in rows:
        assert row.label == row.clip.split("/")[0]
        assert (row.stack, row.segment) == (f"stacks/{row.clip}_0001.tiff", 1)
        assert (row.num_frames, row.sampled_frames, row.face_frames) == (1, 1, 1)
        assert row.has_face == "1" + 17 * "0"
        stack = read_stack(cache.directory / row.stack)
        landmarks = np.load(cache.directory / row.landmarks)
        assert (stack.shape, stack.dtype) == ((1, 224, 224), np.uint8) and stack.std() > 10
        assert (landmarks.shape, landmarks.dtype) == ((1, 468, 3), np.float32)
        assert np.load(cache.directory / row.blendshapes).shape == (1, 52)
    reasons = {name: (row["reason"], row["detail"]) for name, row in dropped(cache).items()}
    assert set(reasons) == {"Sad/text", "Sad/gray"} and reasons["Sad/text"][0]
    assert "sampling.min_face_fraction=0.5" in reasons["Sad/gray"][0]
    report = {row["class"]: row for row in read_table(cache.directory / "report.csv")}
    assert (report["Sad"]["clips"], report["Sad"]["stacks"]) == ("6", "4")
    sheet = cv2.imread(str(cache.directory / "sheets" / "Sad.png"), cv2.IMREAD_GRAYSCALE)
    images = sheet[:, NAME_PX:]
    assert images[:, : 4 * 56].any() and not images[:, 4 * 56 :].any()


def test_a_stills_crop_depends_on_it_alone(cache_of: CutCache, stills: Path):
    every = cache_of(stills, data="stills")
    every.build()
    shutil.rmtree(stills / "Happy")
    alone = cache_of(stills, f"paths.cache={stills}/cache", data="stills")
    alone.build()
    for row in alone.manifest():
        for path in (row.stack, row.landmarks, row.blendshapes):
            content = (alone.directory / path).read_bytes()
            assert content == (every.directory / path).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["frames", "time"])
@pytest.mark.parametrize("start", ["clip", "first_face"])
def test_stills_have_one_frame_however_frames_are_counted(
    cache_of: CutCache, stills: Path, by: str, start: str
):
    overrides = [f"sampling.by={by}", f"sampling.start={start}", "face.tracking=none"]
    cache = cache_of(stills, *overrides, data="stills")
    cache.build()
    assert [row.has_face for row in cache.manifest()] == ["1" + 17 * "0"] * 8


@pytest.mark.slow
def test_a_list_of_stills_makes_the_same_stacks(cache_of: CutCache, stills: Path):
    rows = "".join(f"{p.relative_to(stills)},{p.parent.name}\n" for p in stills.rglob("*.png"))
    (stills / "list.csv").write_text("path,label\n" + rows)
    overrides = [f"data.list={stills}/list.csv", "data.min_frames=1"]
    listed = cache_of(stills, *overrides, "data.kind=stills", data="csv")
    listed.build()
    named = cache_of(stills, data="stills")
    named.build()
    stacks = {row.clip: read_stack(named.directory / row.stack) for row in named.manifest()}
    assert len(stacks) == len(listed.manifest()) == 8
    for row in listed.manifest():
        np.testing.assert_array_equal(read_stack(listed.directory / row.stack), stacks[row.clip])
    with pytest.raises(UserError, match=r"data\.kind=stills"):
        cache_of(stills, *overrides, data="csv").build()


@pytest.mark.slow
def test_another_kind_is_another_cache_to_whoever_asks(cache_of: CutCache, stills: Path):
    cache_of(stills, data="stills").ensure()
    clips = cache_of(stills, "data.kind=clips", data="stills")
    clips.ensure()
    assert [row.clip for row in clips.manifest()] == ["Happy/beside"]
    assert [row.has_face for row in clips.manifest()] == ["1" * 18]
    assert read_stack(clips.directory / clips.manifest()[0].stack).shape == (18, 224, 224)


@pytest.mark.slow
def test_faces_that_fill_real_stills_are_found(cache_of: CutCache, shared_data: Path):
    cache = cache_of(shared_data / "stills", "data.max_clips_per_class=20", data="stills")
    cache.build()
    rows = cache.manifest()
    assert len(rows) >= 97  # of 100
    assert {row.label for row in rows} == {"Anger", "Happy", "Neutral", "Sad", "Shock"}
    stacks = np.concatenate([read_stack(cache.directory / row.stack) for row in rows])
    rim = np.r_[stacks[:, 0].ravel(), stacks[:, -1].ravel()]  # the crop's margin is the border's
    assert (rim == 0).mean() > 0.3 and (stacks[:, 60:160, 60:160] == 0).mean() < 0.02
