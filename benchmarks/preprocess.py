"""Measure the cost of cutting clips: python -m benchmarks.preprocess CLIPS_DIR [MAX_CLIPS].

On the same clips, in turn and on all cores, it times this project, which writes the stacks of all
intervals, and two bounds: to decode every frame, and to do so and run the face mesh on the frames
needed. The same is done for a quarter of the clips re-encoded as 3 s of 720p with a camera's noise.
Compare ratios within one run; absolute times depend on the machine and its load, wall time more
than processor time.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import cv2
import joblib
import numpy as np
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.predict import write_720p
from emotion.cli import CONF_DIR
from emotion.clips.naming import VIDEO_SUFFIXES, Clip
from emotion.clips.video import Video, VideoError
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter, cut_in_worker, face_cropper, open_sampled

TIMES = 5
BOUND = "decode every frame, mesh on those needed"


def decode_all(cutter: Cutter, clip: Clip) -> None:
    """Decode every frame; convert the colors of those needed."""
    read_frames(Video(clip.path), cutter, see=lambda frame: None)


def decode_some(cutter: Cutter, clip: Clip) -> None:
    """Do the same, but decode only what the project decodes."""
    read_frames(open_sampled(clip.path, cutter.cache.settings), cutter, see=lambda frame: None)


def bound(cutter: Cutter, clip: Clip) -> None:
    """Decode every frame and run the project's face mesh on those needed."""
    mesh = face_cropper(cutter.cache.settings, None)
    mesh.start_clip()
    read_frames(Video(clip.path), cutter, see=mesh.observe)


def read_frames(video: Video, cutter: Cutter, see: Callable[[np.ndarray], object]) -> None:
    """Read a clip and show the frames needed."""
    for picture in islice(video.pictures(), 0, None, cutter.cache.settings.interval):
        see(picture.rgb())


WAYS = {
    "decode every frame": decode_all,
    "decode the frames needed": decode_some,
    BOUND: bound,
    "this project, stacks of three intervals": cut_in_worker,
}


def processor_s(way: str, cutter: Cutter, clip: Clip) -> float:
    """Return the processor time that a way takes for a clip in this process, all threads."""
    cv2.setNumThreads(1)
    start_s = time.process_time()
    with suppress(VideoError):  # the project drops unreadable clips too
        WAYS[way](cutter, clip)
    return time.process_time() - start_s


def warm_up(cutter: Cutter) -> None:
    """Import MediaPipe and load the face mesh."""
    face_cropper(cutter.cache.settings, None).observe(np.zeros((64, 64, 3), np.uint8))
    time.sleep(0.2)  # so that every process does it itself


def measure(cutter: Cutter, paths: Sequence[Path], pool: joblib.Parallel) -> Iterator[list[str]]:
    """Time all ways on clips in turn; yield the rows of the table."""
    clips = [Clip(path, path.stem, "Happy", "", "train") for path in paths]
    wall_s, busy_s = ({way: [] for way in WAYS} for _ in range(2))
    for _ in range(TIMES):
        for way in WAYS:
            shutil.rmtree(cutter.cache.directory, ignore_errors=True)
            start_s = time.perf_counter()
            busy_s[way].append(
                sum(pool(joblib.delayed(processor_s)(way, cutter, c) for c in clips))
            )
            wall_s[way].append(time.perf_counter() - start_s)
    wall, busy = ({way: float(np.median(t[way])) for way in WAYS} for t in (wall_s, busy_s))
    for way in WAYS:
        yield [
            way,
            f"{1000 * wall[way] / len(clips):.0f} ms",
            f"{wall[way] / wall[BOUND]:.2f}",
            f"{1000 * busy[way] / len(clips):.0f} ms",
            f"{busy[way] / busy[BOUND]:.2f}",
        ]


def main() -> None:
    """Measure on the clips of a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess", description=__doc__)
    parser.add_argument("clips", type=Path, help="a folder of clips")
    parser.add_argument("max_clips", type=int, nargs="?", default=24)
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.clips.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        parser.error(f"no clips in {arguments.clips}")
    taken = paths[:: max(1, len(paths) // arguments.max_clips)][: arguments.max_clips]
    with tempfile.TemporaryDirectory() as scratch:
        larger = [Path(scratch, f"{number}.mp4") for number in range(max(1, len(taken) // 4))]
        for source, path in zip(taken, larger, strict=False):
            write_720p(source, path)
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("preprocess", ["data=demo", f"paths.cache={scratch}"])
        cutter, jobs = Cutter(Cache.from_config(cfg)), joblib.cpu_count()
        pool = joblib.Parallel(jobs, batch_size=1)
        start_s = time.perf_counter()
        pool(joblib.delayed(warm_up)(cutter) for _ in range(2 * jobs))
        start_s = time.perf_counter() - start_s
        for title, clips in (("as they are", taken), ("3 s of 720p", larger)):
            table = Table("way", "wall time a clip", "ratio", "processor time a clip", "ratio")
            for row in measure(cutter, clips, pool):
                table.add_row(*row)
            table.title = f"{len(clips)} clips, {title}, {jobs} cores"
            Console(width=110).print(table)
    print(f"start of processes and imports, once per run, not included: {start_s:.1f} s")


if __name__ == "__main__":
    from benchmarks import preprocess  # by this name, processes find its functions

    preprocess.main()
