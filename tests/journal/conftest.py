"""Clips of rendered faces, and a journal."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from emotion.clips.demo.render import Format, render_frames, write_clip
from emotion.journal.journal import Journal


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render a folder of four clips of 2 s."""
    folder = tmp_path_factory.mktemp("clips")
    for number, label in enumerate(("Happy", "Sad", "Anger", "Shock"), start=1):
        write_clip(folder / f"{label}_{number}.mp4", label, 0, number, Format(60, 200))
    return folder


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what MediaRecorder gives: WebM, no duration, 12 frames a second, uneven, with sound."""
    path = tmp_path_factory.mktemp("recording") / "blob"
    rng = np.random.default_rng(0)
    options = {"live": "1"}  # no duration, no index
    with path.open("wb") as file, av.open(file, "w", format="webm", options=options) as film:
        video = film.add_stream("libvpx", 30, options={"deadline": "realtime"})
        video.width = video.height = 200
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, 1000)
        sound = film.add_stream("libopus", 48_000, layout="mono")
        time_ms = 0
        for frame in list(render_frames("Happy", 0, 1, Format(90, 200)))[::3]:
            picture = av.VideoFrame.from_ndarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), "rgb24")
            picture.pts, picture.time_base = time_ms, Fraction(1, 1000)
            film.mux(video.encode(picture))
            time_ms += int(rng.integers(60, 110))
        film.mux(video.encode(None))
        tone = np.sin(np.arange(960 * 120) * 2 * np.pi * 440 / 48_000).astype(np.float32)
        for place, part in enumerate(np.split(tone, 120)):
            frame = av.AudioFrame.from_ndarray(part[None], "flt", "mono")
            frame.sample_rate, frame.pts = 48_000, place * 960
            film.mux(sound.encode(frame))
        film.mux(sound.encode(None))
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Open a journal in `tmp_path / "journal"`."""
    with Journal.open(tmp_path / "journal") as journal:
        yield journal


@pytest.fixture
def add(journal: Journal, clips: Path) -> Callable:
    """Give a function that adds a clip, which differs from all others, to a person's journal."""
    number = 0

    def receive(person, clip: str = "Happy_1.mp4", **options):
        nonlocal number
        number += 1
        changed = Path(journal.folder.pending.parent / "changed")
        changed.write_bytes((clips / clip).read_bytes() + bytes(number))  # decoders ignore the end
        with changed.open("rb") as file:
            entry = journal.receive(person.id, file, clip, **options)
        changed.unlink()
        return entry

    return receive
