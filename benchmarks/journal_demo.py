"""Fill a journal with synthetic entries of a few months, to look at it or to take its pictures.

```
python -m benchmarks.journal_demo FOLDER           # then: python -m emotion.journal --folder FOLDER
python -m benchmarks.journal_demo FOLDER --pictures docs
```
"""

import argparse
import io
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

import av
import numpy as np

from emotion.clips.demo.identity import Identity
from emotion.clips.demo.motion import action_unit_curves, head_motion
from emotion.clips.demo.portrait import Portrait
from emotion.clips.demo.render import Format, draw_background
from emotion.journal.journal import Journal

VIDEO = Format(num_frames=60, size_px=320, fps=20)
LABELS = ("Neutral", "Happy", "Sad", "Shock", "Anger")
SHARES = {False: (0.42, 0.28, 0.16, 0.06, 0.08), True: (0.25, 0.58, 0.07, 0.07, 0.03)}  # weekend
NOTES = (
    ("Long walk by the river, first snow.", ("outdoors",)),
    ("Deadline moved to Friday.", ("work",)),
    ("Dinner with Ada and Jo.", ("friends", "cooking")),
    ("Bad night, tired.", ("sleep",)),
    ("Finished the book.", ("reading",)),
    ("Piano after a long time.", ("music",)),
    ("", ()),
    ("", ()),
)
TIMEOUT_S = 900


def clips_of(person_seed: int, labels: list[str]) -> Iterator[bytes]:
    """Yield a clip of each label, all of one synthetic face, as bytes of an MP4 file."""
    seed = np.random.default_rng([77, person_seed])
    face = Identity(seed)
    face_seed = int(seed.integers(1 << 30))
    for number, label in enumerate(labels):
        rng = np.random.default_rng([person_seed, number])
        portrait = Portrait(face, np.random.default_rng(face_seed), VIDEO.size_px)
        poses = head_motion(rng, VIDEO.num_frames, VIDEO.fps)
        background = draw_background(face, poses[0], rng, VIDEO.size_px)
        curves = action_unit_curves(label, rng, VIDEO.num_frames, VIDEO.fps)
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=int(VIDEO.fps))
            stream.width = stream.height = VIDEO.size_px
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "20", "preset": "veryfast"}
            for intensities, pose in zip(curves, poses, strict=True):
                frame = portrait.draw(intensities, pose, background)
                picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        yield file.getvalue()


def fill(journal: Journal, num_days: int, today: date) -> str:
    """Add entries of two people, correct most of the wrong ones; return the first one's id."""
    rng = np.random.default_rng(5)
    robin = journal.add_person("Robin")
    kim = journal.add_person("Kim")
    for person, seed, days in ((robin, 3, num_days), (kim, 8, 3)):
        moments, labels = [], []
        for back in range(days, -1, -1):
            day = today - timedelta(back)
            if back and rng.random() < 0.12:  # a day without an entry
                continue
            for part in range(1 + (rng.random() < 0.2)):
                moments.append(
                    datetime(day.year, day.month, day.day, 8 + 12 * part, 17 + back % 40)
                )
                labels.append(LABELS[rng.choice(5, p=SHARES[day.weekday() >= 5])])
        for moment, label, clip in zip(moments, labels, clips_of(seed, labels), strict=True):
            note, tags = NOTES[rng.integers(len(NOTES))]
            entry = journal.receive(person.id, io.BytesIO(clip), "clip.mp4", moment, note, tags)
            wait(journal, [entry.id])
            found = journal.entry(entry.id)
            if found.label != label and rng.random() < 0.7:  # people correct what is wrong
                journal.correct(entry.id, label)
    return robin.id


def wait(journal: Journal, entry_ids: list[str]) -> None:
    """Wait until entries are analyzed."""
    end = monotonic() + TIMEOUT_S
    for entry_id in entry_ids:
        while journal.entry(entry_id).state in ("waiting", "analyzing"):
            assert monotonic() < end, journal.fault
            sleep(0.05)


def main() -> None:
    """Fill a new journal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal_demo", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the new journal")
    parser.add_argument("--days", type=int, default=75)
    arguments = parser.parse_args()
    with Journal.open(arguments.folder) as journal:
        assert not journal.people(), f"{arguments.folder} is in use"
        fill(journal, arguments.days, date.today())


if __name__ == "__main__":
    main()
