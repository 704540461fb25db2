"""Measure the speed of the video journal: python -m benchmarks.journal [--entries 10000].

A journal with three entries a day is served by `python -m emotion.journal`. Each page is requested
over HTTP: its time is that of the server and of sending. Then a synthetic face of 5 seconds,
1280x720 at 30 fps with the noise and the bit rate of a camera, is uploaded: the time until the
server pushes its answer. Both are medians.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from sqlmodel import Session

from emotion.clips.demo.render import Format, render_frames
from emotion.journal.analysis import STARTER
from emotion.journal.database import open_database
from emotion.journal.journal import DATABASE, Journal
from emotion.journal.learning import load_judge
from emotion.journal.schema import DONE, Entry, Observation

PER_DAY = 3
PARTS = 6  # of a timeline
WORDS = ("river", "walked", "with Ada", "read", "late", "evening", "rain", "piano", "work")
TARGETS_S = {"year in pixels": 0.1, "upload to answer": 1.5}
SECONDS, FPS, WIDTH, HEIGHT = 5, 30, 1280, 720
BITS_A_SECOND = 5_000_000
NOISE = 4.0  # gray levels, standard deviation


def fill(folder: Path, num_entries: int, last: date) -> str:
    """Write a journal of one person directly into its database; return the person's id."""
    with Journal.open(folder) as journal:
        person = journal.add_person("Ada")
    rng = np.random.default_rng(0)
    judge = load_judge(STARTER)
    typical = judge.model.means.mean(axis=0) @ judge.model.lift + judge.model.center
    engine = open_database(folder / DATABASE)
    with Session(engine) as session:
        for number in range(num_entries):
            day = last - timedelta(number // PER_DAY)
            moment = datetime(day.year, day.month, day.day, 8 + 4 * (number % PER_DAY))
            draws = rng.dirichlet([1] * len(judge.labels), PARTS).tolist()
            shares = [dict(zip(judge.labels, draw, strict=True)) for draw in draws]
            label, runner_up = sorted(shares[0], key=shares[0].__getitem__, reverse=True)[:2]
            entry = Entry(
                person_id=person.id, day=day, recorded_at=moment, added_at=moment,
                media_type="video/mp4", suffix=".mp4", sha256=f"{number:064x}", size=1,
                duration_s=3.0, state=DONE, label=label, runner_up=runner_up,
                probability=shares[0][label], probabilities=shares[0], reasons=["eyes wide"],
                timeline=[{"start_s": k / 2, "stop_s": k / 2 + 0.5, "probabilities": share}
                          for k, share in enumerate(shares)],
                model=STARTER, found=label, correction=runner_up if rng.random() < 0.3 else None,
                note=" ".join(rng.choice(WORDS, 12)), tags=[str(rng.choice(WORDS))],
                is_cover=number % PER_DAY == 0, has_picture=True,
            )  # fmt: skip
            (folder / "clips" / entry.clip_name).write_bytes(b"x")
            (folder / "covers" / entry.cover_name).write_bytes(b"x")
            features = typical + rng.normal(0, 0.5, len(typical))
            parts = (features + rng.normal(0, 0.2, (PARTS, len(typical)))).astype(np.float32)
            session.add(entry)
            session.flush()
            session.add(
                Observation(
                    entry_id=entry.id, model=judge.model.fingerprint,
                    features=features.tobytes(), parts=parts.tobytes(),
                )
            )  # fmt: skip
        session.commit()
    engine.dispose()
    return person.id


def write_720p(path: Path, number: int) -> None:
    """Write five seconds of a synthetic face as a camera would have filmed it in 720p."""
    noise = np.random.default_rng(number)
    video = Format(num_frames=SECONDS * FPS, size_px=256, fps=FPS)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", Fraction(FPS), options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS_A_SECOND
        for frame in render_frames("Happy", 0, number, video):
            face = cv2.resize(frame, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
            side = (WIDTH - HEIGHT) // 2
            picture = cv2.copyMakeBorder(face, 0, 0, side, side, cv2.BORDER_REPLICATE)
            picture = picture + noise.normal(0, NOISE, picture.shape)
            shown = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "bgr24")
            film.mux(stream.encode(shown))
        film.mux(stream.encode())


@contextmanager
def serve(folder: Path) -> Iterator[int]:
    """Run `python -m emotion.journal` in the context; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "emotion.journal", f"--folder={folder}", f"--port={port}"]
    server = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.DEVNULL)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def page_s(port: int, path: str, times: int) -> float:
    """Return the median time of a page in seconds."""
    times_s = []
    for _ in range(1 + times):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.connect()
        start_s = time.perf_counter()
        connection.request("GET", path, headers={"Accept": "text/html"})
        response = connection.getresponse()
        response.read()
        times_s.append(time.perf_counter() - start_s)
        assert response.status == 200, (path, response.status)
        connection.close()
    return float(np.median(times_s[1:]))


def answer_s(port: int, person_id: str, clip: Path) -> float:
    """Upload a clip; return the seconds until the server pushes that its answer is there."""
    events = http.client.HTTPConnection("127.0.0.1", port)
    events.request("GET", "/events")
    stream = events.getresponse()
    stream.readline()  # connected
    content = clip.read_bytes()
    upload = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/octet-stream"}
    start_s = time.perf_counter()
    upload.request("POST", f"/people/{person_id}/entries?name=clip.mp4", content, headers)
    entry_id = json.loads(upload.getresponse().read())["id"]
    while True:
        line = stream.readline().decode()
        if not line.startswith("data: "):
            continue
        event = json.loads(line.removeprefix("data: "))
        if event.get("id") == entry_id and event.get("state") not in ("waiting", "analyzing"):
            assert event["state"] == DONE, event
            break
    passed_s = time.perf_counter() - start_s
    upload.close()
    events.close()
    return passed_s


def main() -> None:
    """Measure on a new journal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=9)
    arguments = parser.parse_args()
    last = date.today()
    table = Table("what", "median", "target")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "journal")
        person_id = fill(folder, arguments.entries, last)
        own = f"/people/{person_id}"
        pages = {
            "calendar, a month": own,
            "year in pixels": f"{own}/years/{last.year - 1}",
            "search in notes": f"{own}/search?text=river",
            "trends": f"{own}/trends",
            "data of the trends' chart": f"{own}/trends/30.json",
        }
        with serve(folder) as port:
            for name, path in pages.items():
                target = f"{1000 * TARGETS_S[name]:.0f} ms" if name in TARGETS_S else ""
                median_s = page_s(port, path, arguments.times)
                table.add_row(name, f"{1000 * median_s:.0f} ms", target)
        clips = [Path(scratch, f"{number}.mp4") for number in range(1 + arguments.times)]
        for number, clip in enumerate(clips):
            write_720p(clip, number)
        small = Path(scratch, "small")
        with Journal.open(small) as journal:
            person_id = journal.add_person("Ada").id
        with serve(small) as port:
            times_s = [answer_s(port, person_id, clip) for clip in clips]
        table.add_row("first upload to answer", f"{times_s[0]:.2f} s", "")
        target = f"{TARGETS_S['upload to answer']} s"
        table.add_row("upload to answer", f"{np.median(times_s[1:]):.2f} s", target)
        megabits = 8 * clips[0].stat().st_size / SECONDS / 1e6
    table.title = f"{arguments.entries} entries; 5 s of 720p at {megabits:.1f} Mbit/s"
    load = os.getloadavg()[0]
    table.caption = f"{os.cpu_count()} cores, load average {load:.1f} at the end"
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
