"""Measure the cost of cutting clips: python -m benchmarks.preprocess CLIPS_DIR [MAX_CLIPS] [WIDTH].

With WIDTH, clips are first scaled to that width and made 10 s long.

On the same clips, in one run, it times: the original notebook's method (the mesh on every frame,
one pass for each interval, a thread pool of half the cores) with the mesh of this project; the lower bound (decode every frame
once and run the mesh on the sampled frames, on all cores); and this project's method, which writes
the stacks of all intervals. Then it times the decoding of two libraries. Compare ratios within one
run; absolute times depend on the machine and its load.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import av
import cv2
import joblib
import numpy as np
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.scale import write_long_clip
from benchmarks.timing import medians_s
from emotion.cli import CONF_DIR
from emotion.clips.naming import VIDEO_SUFFIXES, Clip
from emotion.clips.video import Video, VideoError
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter, cut_in_worker, face_cropper
from emotion.stacks.face_crop import face_box
from emotion.stacks.face_mesh import BLACK_FRAME, Landmarker
from emotion.stacks.face_model import find_face_model
from emotion.stacks.settings import CacheSettings
from emotion.stacks.stack import fill_gaps, write_stack

INTERVALS = (5, 10, 15)
SEGMENT_FRAMES = 90


def notebook_stacks(path: Path, interval: int, folder: Path, settings: CacheSettings) -> int:
    """Cut a clip as the notebook does, at one interval; return the number of its frames."""
    mesh = Landmarker(find_face_model().read_bytes(), settings, num_faces=1, step=1)
    capture = cv2.VideoCapture(str(path))
    crops: list[np.ndarray | None] = []
    number = 0
    while True:
        decoded, frame = capture.read()
        if not decoded:
            break
        found = mesh.find(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        if number % interval == 0:
            crop = None
            if found:
                left, top, right, bottom = face_box(found[0].landmarks, 0.1, frame.shape)
                gray = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_BGR2GRAY)
                crop = cv2.resize(gray, (224, 224), interpolation=cv2.INTER_AREA)
            crops.append(crop)
        number += 1
    images = SEGMENT_FRAMES // interval
    for segment in range(0, len(crops), images):
        part = crops[segment : segment + images]
        if any(crop is not None for crop in part):
            stack = np.stack(fill_gaps(part, images))
            write_stack(folder / f"{path.stem}_{segment}_{interval}.tiff", stack)
    return number


@lru_cache(maxsize=1)
def plain_mesh(settings: CacheSettings) -> Landmarker:
    """Load the face mesh for one face, once per process."""
    content = find_face_model().read_bytes()
    return Landmarker(content, settings, num_faces=1, step=settings.interval)


def floor(cutter: Cutter, clip: Clip) -> int:
    """Decode a clip and run the mesh on the sampled frames; return the number of its frames."""
    cv2.setNumThreads(1)
    video = Video(clip.path)
    mesh = plain_mesh(cutter.cache.settings)
    mesh.find(BLACK_FRAME)
    try:
        for number, picture in enumerate(video.pictures()):
            if number % cutter.cache.settings.interval == 0:
                mesh.find(picture.rgb())
    except VideoError:
        pass  # the same clips are dropped by the others
    return video.num_frames


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    start_s = time.perf_counter()
    function()
    return time.perf_counter() - start_s


def measure(paths: Sequence[Path], scratch: Path) -> Table:
    """Measure all three methods on clips; return the table."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("preprocess", ["data=demo", f"paths.cache={scratch}"])
    cutter = Cutter(Cache.from_config(cfg))
    clips = [Clip(path, path.stem, "Happy", "", "train") for path in paths]
    jobs = joblib.cpu_count()
    pool = joblib.Parallel(jobs, batch_size=1)

    def in_processes(work: Callable[[Cutter, Clip], object]) -> list:
        return pool(joblib.delayed(work)(cutter, clip) for clip in clips)

    start_s = seconds(lambda: pool(joblib.delayed(warm_up)(cutter) for _ in range(2 * jobs)))
    floor_s, ours_s = [], []
    for _ in range(3):
        floor_s.append(seconds(lambda: in_processes(floor)))
        shutil.rmtree(cutter.cache.directory, ignore_errors=True)
        ours_s.append(seconds(lambda: in_processes(cut_in_worker)))
    frames = sum(in_processes(floor))
    notebook_s = 0.0
    settings = cutter.cache.settings
    with ThreadPoolExecutor(max(1, jobs // 2)) as threads:
        for interval in INTERVALS:
            cut = partial(notebook_stacks, interval=interval, folder=scratch, settings=settings)
            notebook_s += seconds(lambda cut=cut: list(threads.map(cut, paths)))
    ours, least = float(np.median(ours_s)), float(np.median(floor_s))
    table = Table(
        "way", "frames per second", "speedup over the notebook", "time relative to the bound"
    )
    for name, duration_s in (
        ("notebook, three intervals", notebook_s),
        ("lower bound", least),
        ("this project, three intervals", ours),
    ):
        table.add_row(
            name,
            f"{frames / duration_s:.0f}",
            f"{notebook_s / duration_s:.1f}",
            f"{duration_s / least:.2f}",
        )
    table.title = f"{len(paths)} clips, {frames} frames, {jobs} cores"
    table.caption = f"start of processes and imports, once per run, not included: {start_s:.1f} s"
    return table


def warm_up(cutter: Cutter) -> None:
    """Import MediaPipe and load the face meshes."""
    face_cropper(cutter.cache.settings, None).observe(np.zeros((64, 64, 3), np.uint8))
    plain_mesh(cutter.cache.settings)
    time.sleep(0.2)  # so that every process does it itself


def decode_with_opencv(path: Path) -> None:
    """Decode a clip on one core, convert every 5th frame."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    number = 0
    while capture.grab():
        if number % INTERVALS[0] == 0:
            cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
        number += 1


def decode_with_pyav(path: Path) -> None:
    """Do the same with PyAV."""
    try:
        for number, picture in enumerate(Video(path).pictures()):
            if number % INTERVALS[0] == 0:
                picture.rgb()
    except (VideoError, av.FFmpegError):
        pass


def compare_decoders(paths: Sequence[Path]) -> Table:
    """Time both decoders on clips, three times in turn."""
    cv2.setNumThreads(1)
    decoders = {"OpenCV": decode_with_opencv, "PyAV": decode_with_pyav}
    functions = {name: lambda way=way: list(map(way, paths)) for name, way in decoders.items()}
    medians = medians_s(functions, 3)
    table = Table("decoder, one core", "time, OpenCV = 1")
    for name, median in medians.items():
        table.add_row(name, f"{median / medians['OpenCV']:.2f}")
    return table


def main() -> None:
    """Measure on the clips of a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess", description=__doc__)
    parser.add_argument("clips", type=Path, help="a folder of clips")
    parser.add_argument("max_clips", type=int, nargs="?", default=24)
    parser.add_argument("width", type=int, nargs="?", help="in pixels; as the clips are")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.clips.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        parser.error(f"no clips in {arguments.clips}")
    step = max(1, len(paths) // arguments.max_clips)
    with tempfile.TemporaryDirectory() as scratch:
        taken = paths[::step][: arguments.max_clips]
        if arguments.width:
            size = (arguments.width, arguments.width * 3 // 8 * 2)
            larger = [Path(scratch) / f"{number}.mp4" for number in range(len(taken))]
            for source, path in zip(taken, larger, strict=True):
                write_long_clip(source, path, 1 / 6, size)
            taken = larger
        Console().print(measure(taken, Path(scratch)))
        Console().print(compare_decoders(taken))


if __name__ == "__main__":
    from benchmarks import preprocess  # by this name, processes find its functions

    preprocess.main()
