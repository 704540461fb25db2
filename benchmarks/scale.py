"""Measure what grows with the data: python -m benchmarks.scale CLIP [MINUTES] [CACHED_CLIPS].

The peak memory of a process that cuts a 1080p clip of one minute and of MINUTES (10), made of
repeated frames of CLIP; and the time of preprocess.py if all CACHED_CLIPS (5,000) clips are cut
already.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from emotion.cli import CONF_DIR, REPOSITORY
from emotion.clips.demo.render import render_clips
from emotion.clips.naming import Clip
from emotion.clips.video import Video
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter, cut_in_worker

FPS, WIDTH, HEIGHT = 30, 1920, 1080


def write_long_clip(
    source: Path, path: Path, minutes: float, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> None:
    """Write a clip's first 3 seconds repeatedly, as H.264 of a width and height at 30 fps."""
    frames: list[np.ndarray] = [
        cv2.resize(picture.rgb(), size) for picture in islice(Video(source).pictures(), 90)
    ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        for frame in islice(cycle(frames), round(minutes * 60 * FPS)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def cut_and_weigh(cache: Cache, path: Path) -> tuple[int, float, float]:
    """Cut a clip; return its frames, the peak memory of this process in MB, and its busy cores."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    record = cut_in_worker(Cutter(cache), Clip(path, path.stem, "Happy", "", "train"))
    cores = (time.process_time() - start_cpu_s) / (time.perf_counter() - start_s)
    status = Path("/proc/self/status").read_text()  # getrusage() includes the parent's peak
    peak_kb = int(status.partition("VmHWM:")[2].split()[0])
    return record.num_frames, peak_kb / 1024, cores


def measure_memory(source: Path, minutes: float, scratch: Path) -> Iterator[tuple[str, ...]]:
    """Cut clips of several lengths in new processes; yield a table row for each."""
    for length in (1.0, minutes):
        path = scratch / f"{length:g}min.mp4"
        write_long_clip(source, path, length)
        with get_context("spawn").Pool(1) as pool:
            frames, peak_mb, cores = pool.apply(cut_and_weigh, (demo_cache(scratch), path))
        yield f"{length:g}", f"{frames}", f"{peak_mb:.0f}", f"{cores:.2f}"


def demo_cache(scratch: Path) -> Cache:
    """Locate a cache with the default settings."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return Cache.from_config(compose("preprocess", ["data=demo", f"paths.cache={scratch}"]))


def measure_nothing_to_do(num_clips: int, scratch: Path) -> float:
    """Time preprocess.py, with its imports, on clips that are cut already; in seconds."""
    clips = scratch / "clips"
    clips.mkdir()
    first = clips / "Happy_0001.mp4"
    render_clips([first], 0, 1)
    command = [sys.executable, "preprocess.py", "data=scrapping", f"data.root={clips}"]
    command += [f"paths.cache={scratch}/cache", f"paths.output={scratch}/output"]
    for number in range(2, num_clips + 1):
        os.link(first, clips / f"Happy_{number:04d}.mp4")
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    start_s = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - start_s


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("clip", type=Path, help="a clip with a face")
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("cached_clips", type=int, nargs="?", default=5000)
    arguments = parser.parse_args()
    table = Table("minutes of 1080p", "frames", "peak memory, MB", "cores busy")
    with tempfile.TemporaryDirectory() as scratch:
        for row in measure_memory(arguments.clip, arguments.minutes, Path(scratch)):
            table.add_row(*row)
        Console().print(table)
    with tempfile.TemporaryDirectory() as scratch:
        duration_s = measure_nothing_to_do(arguments.cached_clips, Path(scratch))
        print(f"preprocess.py with {arguments.cached_clips} clips in the cache: {duration_s:.1f} s")


if __name__ == "__main__":
    from benchmarks import scale  # so that processes can import its functions

    scale.main()
