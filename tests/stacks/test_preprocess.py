import csv
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from emotion.cli import REPOSITORY
from emotion.clips.video import Video
from emotion.commands.preprocess import preprocess
from emotion.tables import read_table


@pytest.fixture
def run_preprocess(monkeypatch, tmp_path):
    """Call preprocess.py's entry in this process; returns the rows of manifest and dropped list."""

    def run(*arguments):
        paths = [f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}/out", "num_workers=1"]
        monkeypatch.setattr("sys.argv", ["preprocess.py", *arguments, *paths])
        preprocess()
        tables = []
        for name in ("manifest.csv", "dropped.csv"):
            (path,) = tmp_path.glob(f"cache/*/*/{name}")
            with open(path) as file:
                tables.append(list(csv.DictReader(file)))
        return tables

    return run


@pytest.fixture
def clips(tmp_path, demo_cache):
    """A folder with two good clips, in the seed's naming."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("Happy_0001.mp4", "Sad_0016.mp4"):
        source = name if name.startswith("Happy") else "Sad_0001.mp4"
        shutil.copy(demo_cache.root / source, folder / name)
    return folder


def test_the_seeds_data_set_is_split_by_its_ids(run_preprocess, clips):
    rows, dropped = run_preprocess("data=scrapping", f"data.root={clips}")
    assert [(r["clip"], r["label"], r["split"]) for r in rows] == [
        ("Happy_0001", "Happy", "train"), ("Sad_0016", "Sad", "val"),
    ]  # fmt: skip
    assert dropped == []


def test_a_class_with_no_clips_is_told(run_preprocess, clips, capsys):
    run_preprocess("data=scrapping", f"data.root={clips}")
    out = capsys.readouterr().out
    assert "class Anger has no stacks" in out and "class Happy has no stacks" not in out


def test_a_broken_clip_and_a_stray_name_cost_themselves_alone(run_preprocess, clips, capsys):
    (clips / "Happy_0002.mp4").write_text("this is no video")
    shutil.copy(clips / "Happy_0001.mp4", clips / "holiday.mp4")
    rows, dropped = run_preprocess("data=scrapping", f"data.root={clips}")
    assert len(rows) == 2
    assert {d["clip"] for d in dropped} == {"Happy_0002", "holiday"}
    out = capsys.readouterr().out
    assert "Happy_0002" in out and "holiday" in out and "data.pattern" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=scrapping", "data.root=/nowhere"], "/nowhere"),
        (["data=scrapping", "data.root={empty}"], "{empty}"),
        (["data=javanese"], "data.root"),
        (["data=javanese", "data.root={clips}"], "data.pattern"),
        (["data=scrapping", "data.root={clips}", "sampling.interval=7"], "sampling"),
        (["data=scrapping", "data.root={clips}", "face.tracking=often"], "face.tracking"),
        (["data=scrapping", "data.root={clips}", "face.margn=1"], "margn"),
    ],
)
def test_where_nothing_can_be_done_one_line_says_why(
    run_preprocess, clips, tmp_path, arguments, message
):
    (tmp_path / "empty").mkdir()
    folders = {"empty": tmp_path / "empty", "clips": clips}
    arguments = [argument.format(**folders) for argument in arguments]
    message = message.format(**folders)
    with pytest.raises(SystemExit) as caught:
        run_preprocess(*arguments)
    text = str(caught.value.code)
    assert text.startswith("error: ") and message in text and "\n" not in text


def test_nothing_but_broken_clips_is_an_error(run_preprocess, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "Happy_0001.mp4").write_text("this is no video")
    with pytest.raises(SystemExit, match=str(folder)):
        run_preprocess("data=scrapping", f"data.root={folder}")


# Any clip


@pytest.fixture(scope="module")
def face(demo_cache):
    """Ninety frames of one drawn face, (256, 256, 3) RGB."""
    return [picture.rgb() for picture in Video(demo_cache.root / "Happy_0001.mp4").pictures()]


def write_sound(path, cover=None):
    """Write a second of a tone, with a cover picture where one is given."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        pictures = []
        if cover is not None:
            still = container.add_stream("mjpeg", rate=1)
            still.height, still.width = cover.shape[:2]
            still.pix_fmt = "yuvj420p"
            still.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24")
            frame.pts = 0
            pictures = [*still.encode(frame), *still.encode()]
        for number in range(43):
            wave = 0.1 * np.sin(np.arange(1024) / 10, dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for packet in pictures:
            container.mux(packet)


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def good_clips(folder, face, encode):
    """Write clips that give a stack each; returns their ids."""
    enlarged = [cv2.resize(frame, (3840, 2160)) for frame in face[:76]]
    encode(folder / "name with spaces, ümläut & 笑.mp4", face)
    encode(folder / "upper case.MP4", face)
    encode(folder / "upper case of another.MOV", face)
    for suffix in ("mov", "mkv", "flv", "m4v", "avi"):
        encode(folder / f"in {suffix}.{suffix}", face)
    encode(folder / "xvid.avi", face, codec="mpeg4", qmax="4")
    encode(folder / "vp8.webm", face, codec="libvpx", deadline="realtime", **{"cpu-used": "8"})
    encode(folder / "vp9.webm", face, codec="libvpx-vp9", deadline="realtime", **{"cpu-used": "8"})
    encode(folder / "10 bit hevc.mp4", face, codec="libx265", pix_fmt="yuv420p10le",
           preset="ultrafast", **{"x265-params": "log-level=none"})  # fmt: skip
    encode(folder / "10 bit h264.mkv", face, pix_fmt="yuv422p10le", preset="veryfast")
    encode(folder / "prores.mov", face, codec="prores", pix_fmt="yuv422p10le")
    encode(folder / "lossless gray.mkv", face, codec="ffv1", pix_fmt="gray")
    encode(folder / "odd size.mp4", [frame[:251, :239] for frame in face], pix_fmt="yuv444p")
    encode(folder / "small odd size.mkv", [cv2.resize(frame, (77, 101)) for frame in face],
           pix_fmt="yuv444p")  # fmt: skip
    encode(folder / "4k.mp4", enlarged, crf="30")
    encode(folder / "last frames lost.mp4", face, movflags="faststart")
    truncate(folder / "last frames lost.mp4", 0.95)
    pieces = [folder / "one.ts", folder / "other.ts"]
    encode(pieces[0], face[:45], file_format="mpegts")
    encode(pieces[1], [cv2.resize(frame, (400, 300)) for frame in face[45:]], file_format="mpegts")
    (folder / "size changes.mp4").write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    for piece in pieces:
        piece.unlink()
    content = bytearray(encode(folder / "hit by rays.mp4", face).read_bytes())
    middle = content.index(b"mdat") + 2000  # after what the decoder needs to start at all
    content[middle : middle + 300] = bytes(np.random.default_rng(0).integers(0, 256, 300, np.uint8))
    (folder / "hit by rays.mp4").write_bytes(content)
    encode(folder / "twice.mov", face)
    (folder / "folder.mp4").mkdir()
    return [path.stem for path in folder.iterdir() if not path.is_dir()]


# Clip -> what its reason names; "" for files that cannot be read.
REASONS = {
    **dict.fromkeys(
        (
            "empty", "text", "random bytes", "index lost", "first bytes alone", "header alone",
            "sound", "song with cover", "photo", "screenshot", "leads nowhere", "leads to itself",
            "playlist", "list of files", "twice",
        ),
        "",
    ),
    "folder": "folder",
    **dict.fromkeys(("half", "one frame"), "data.min_frames=75"),
    **dict.fromkeys(("scenery", "black", "one pixel"), "sampling.min_face_fraction=0.5"),
}  # fmt: skip
if os.geteuid() != 0:  # root may read everything; see test_cutter for that
    REASONS["locked"] = ""


def bad_clips(folder, face, encode):
    """Write clips that give no stack, for the reasons above."""
    rng = np.random.default_rng(0)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video, only its name says so\n" * 100)
    (folder / "random bytes.avi").write_bytes(rng.bytes(50_000))
    encode(folder / "index lost.mp4", face)
    truncate(folder / "index lost.mp4", 0.6)
    encode(folder / "first bytes alone.mp4", face)
    truncate(folder / "first bytes alone.mp4", 0.002)
    whole = encode(folder / "header alone.mp4", face, movflags="faststart").read_bytes()
    (folder / "header alone.mp4").write_bytes(whole[: whole.index(b"mdat") + 4])
    encode(folder / "half.mp4", face, movflags="faststart")
    truncate(folder / "half.mp4", 0.5)
    write_sound(folder / "sound.mp4")
    write_sound(folder / "song with cover.mp4", cover=face[0])
    for name, suffix in (("photo", ".jpg"), ("screenshot", ".png")):
        (folder / f"{name}.mp4").write_bytes(cv2.imencode(suffix, face[0])[1].tobytes())
    encode(folder / "scenery.mp4", rng.integers(0, 256, (90, 120, 160, 3), np.uint8), crf="40")
    encode(folder / "black.mp4", np.zeros((90, 120, 160, 3), np.uint8))
    encode(folder / "one pixel.mkv", [frame[:1, :1] for frame in face], codec="ffv1",
           pix_fmt="bgr0")  # fmt: skip
    encode(folder / "one frame.mp4", face[:1])
    (folder / "leads nowhere.mp4").symlink_to(folder / "nothing.mp4")
    (folder / "leads to itself.mp4").symlink_to(folder / "leads to itself.mp4")
    part = encode(folder.parent / "elsewhere.ts", face, file_format="mpegts")
    (folder / "playlist.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{part}\n#EXT-X-ENDLIST\n"
    )
    part = encode(folder / "elsewhere.ts", face, file_format="mpegts")
    (folder / "list of files.mp4").write_text(f"ffconcat version 1.0\nfile {part.name}\n")
    encode(folder / "twice.webm", face[:2], codec="libvpx")
    encode(folder / "locked.mp4", face[:2]).chmod(0)
    if os.geteuid() == 0:
        (folder / "locked.mp4").unlink()


def run_script(root, output, *arguments):
    """Run preprocess.py on folders of classes, as a user would."""
    return subprocess.run(
        [sys.executable, "preprocess.py", "data=folders", f"data.root={root}", "num_workers=2",
         f"paths.cache={output}/cache", f"paths.output={output}/out", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, face, encode_video):
    """Run preprocess.py over all kinds of clips: the run, the good ones' ids, and both tables."""
    root, output = tmp_path_factory.mktemp("zoo"), tmp_path_factory.mktemp("output")
    for label in ("Happy", "Sad"):
        (root / label).mkdir()
    good = good_clips(root / "Happy", face, encode_video)
    bad_clips(root / "Sad", face, encode_video)
    (root / "Sad" / "twice.webm").rename(root / "Happy" / "twice.webm")
    run = run_script(root, output)
    tables = []
    for name in ("manifest.csv", "dropped.csv"):
        (path,) = output.glob(f"cache/*/*/{name}")
        tables.append(read_table(path))
    return SimpleNamespace(
        root=root, output=output, run=run, good=good, rows=tables[0], dropped=tables[1]
    )


@pytest.mark.slow
def test_any_good_clip_gives_a_stack(zoo):
    rows = {row["clip"].removeprefix("Happy/"): row for row in zoo.rows}
    assert sorted(rows) == sorted(zoo.good) and len(rows) == 22
    assert len({row["stack"] for row in zoo.rows}) == 22
    frames = {name: int(row["num_frames"]) for name, row in rows.items()}
    damaged = {"last frames lost", "hit by rays", "4k"}
    assert {name for name, number in frames.items() if number != 90} <= damaged
    assert all(76 <= number <= 90 for number in frames.values()), frames
    assert all(int(row["face_frames"]) >= 15 and row["num_faces"] == "1" for row in zoo.rows)


@pytest.mark.slow
def test_every_bad_clip_and_no_good_one_is_named_with_its_reason(zoo):
    reasons = {drop["clip"].partition("/")[2]: drop["reason"] for drop in zoo.dropped}
    assert reasons.keys() == REASONS.keys() and len(zoo.dropped) == len(REASONS)
    for name, reason in reasons.items():
        folder = "Happy" if name in ("twice", "folder") else "Sad"
        assert f"{folder}/{name}" in zoo.run.stdout and reason in zoo.run.stdout
        assert reason and REASONS[name] in reason, name
        assert "Error" not in reason and "[Errno" not in reason, reason  # it is for people
    assert len({reasons[name] for name in ("empty", "text", "sound", "photo", "twice")}) == 5


@pytest.mark.slow
def test_clips_that_fail_do_not_fail_the_run(zoo):
    assert zoo.run.returncode == 0, zoo.run.stderr
    assert zoo.run.stderr == ""
    assert "Traceback" not in zoo.run.stdout


@pytest.mark.slow
def test_a_second_run_finds_nothing_to_do_and_says_the_same(zoo):
    run = run_script(zoo.root, zoo.output)
    assert run.returncode == 0, run.stderr
    number = len(zoo.good) + len(REASONS) - 1  # of twice the second is no clip
    assert f"{number} clips, {number} of them in the cache" in run.stdout
    for drop in zoo.dropped:
        assert drop["clip"] in run.stdout


@pytest.mark.slow
def test_strict_makes_them_an_error_in_one_line(zoo):
    run = run_script(zoo.root, zoo.output, "strict=true")
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("error: strict=true, and ")
    for name in ("empty", "text", "header alone", "sound", "photo", "leads nowhere"):
        assert f"Sad/{name}" in line
    for name in ("scenery", "one frame", "vp8", "twice"):  # read, but not what was wanted
        assert f"/{name}" not in line


@pytest.mark.slow
def test_nothing_but_bad_clips_is_an_error_in_one_line(zoo, tmp_path):
    bad = tmp_path / "clips" / "Sad"
    bad.mkdir(parents=True)
    for name in ("empty.mp4", "text.mp4", "sound.mp4", "scenery.mp4"):
        shutil.copy(zoo.root / "Sad" / name, bad / name)
    run = run_script(bad.parent, tmp_path)
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("error: ") and str(bad.parent) in line
