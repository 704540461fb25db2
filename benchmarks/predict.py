"""Measure the time of a prediction: python -m benchmarks.predict CLIPS [--models mobilenetv3].

Three seconds of the first clip, which must show a face, are converted to 1280x720 at 30 fps with
the noise and the bit rate of a camera. Times are those from that file to its answer, with the model
loaded; the processor time of the same; and the processor time of decoding, face mesh and model
alone. Decoding overlaps with the others if a second core is free. Weights are random.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import cv2
import joblib
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.timing import medians_s
from emotion.cli import CONF_DIR
from emotion.clips.find import named_clips
from emotion.clips.video import Video
from emotion.inference.backends import random_inputs
from emotion.inference.recognizer import EmotionRecognizer
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import RECIPE_FILE, Recipe, package_versions
from emotion.models.titles import model_title
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import face_cropper, open_sampled

TARGET_S = 0.3
FRAMES, FPS, WIDTH, HEIGHT = 90, 30, 1280, 720
BITS_A_SECOND = 5_000_000
NOISE = 4.0  # gray levels, standard deviation


def write_720p(clip: Path, path: Path) -> None:
    """Write three seconds of a clip as a camera would have filmed them in 720p.

    It is scaled to fit, and repeated if it is too short.
    """
    noise = np.random.default_rng(0)
    rgb = [picture.rgb() for picture in islice(Video(clip).pictures(), FRAMES)]
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", Fraction(FPS), options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS_A_SECOND
        for frame in islice(cycle(rgb), FRAMES):
            scale = min(WIDTH / frame.shape[1], HEIGHT / frame.shape[0])
            size = [round(side * scale) for side in frame.shape[1::-1]]
            scaled = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
            picture = np.full((HEIGHT, WIDTH, 3), 128.0)
            left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
            picture[top : top + size[1], left : left + size[0]] = scaled
            grain = noise.normal(0, NOISE, (HEIGHT, WIDTH, 1))
            picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode(None))


def write_run(model: str, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Write what `train.py` writes for inference, with random weights: best.ckpt, recipe.json."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", [f"model={model}", "data=demo", *overrides])
    recipe = Recipe(
        title=model_title(cfg.model.backbone),
        data="nothing",
        labels=tuple(cfg.data.labels),
        settings=Cache.from_config(cfg).settings,
        interval=cfg.interval.frames,
        image_px=cfg.loader.image_px or cfg.face.size_px,
        versions=package_versions(),
    )
    module = EmotionModule(
        cfg.model.backbone,
        recipe.num_images,
        list(cfg.data.labels),
        hidden=cfg.model.hidden,
        channels_last=cfg.model.channels_last,
    )
    folder.mkdir()
    torch.save(
        {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict()},
        folder / "best.ckpt",
    )
    recipe.write(folder / RECIPE_FILE)


def measure(clip: Path, run_dir: Path, num_threads: int, times: int) -> list[float]:
    """Time a clip's answer, in seconds: wall time; processor time, of decoding, mesh and model."""
    recognizer = EmotionRecognizer.load(run_dir, num_threads=num_threads)
    settings = recognizer.recipe.settings
    cropper = face_cropper(settings)

    def decode() -> list[np.ndarray]:
        pictures = open_sampled(clip, settings).pictures()
        return [picture.rgb() for picture in islice(pictures, 0, None, settings.interval)]

    sampled = decode()

    def crop() -> list[np.ndarray | None]:
        cropper.start_clip()
        return [cropper.crop(frame) for frame in sampled]

    stacks = random_inputs(recognizer.recipe, 1)
    whole = {"whole": lambda: recognizer.predict(clip)}
    parts = {
        "decode": decode,
        "mesh": crop,
        "model": lambda: recognizer.backend.classify(stacks),
    }
    processor_s = medians_s(whole, times, clock=time.process_time)
    return [
        medians_s(whole, times)["whole"],
        processor_s["whole"],
        *medians_s(parts, times, clock=time.process_time).values(),
    ]


def main() -> None:
    """Measure on a clip."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predict", description=__doc__)
    parser.add_argument("clips", help="a clip that shows a face, or a folder whose first one does")
    parser.add_argument("--models", default="mobilenetv3,effv2s,effv2m")
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="cores for the network")
    parser.add_argument("--times", type=int, default=9)
    arguments = parser.parse_args()
    table = Table("network", "clip to answer", "processor time", "decode", "mesh", "network alone")
    with tempfile.TemporaryDirectory() as scratch:
        clip = Path(scratch, "clip.mp4")
        write_720p(named_clips(arguments.clips)[0], clip)
        for model in arguments.models.split(","):
            write_run(model, Path(scratch, model), [f"interval='{arguments.interval}'"])
            whole_s, processor_s, *parts_s = measure(
                clip, Path(scratch, model), arguments.threads, arguments.times
            )
            table.add_row(
                model,
                f"{whole_s:.2f} s",
                f"{processor_s:.2f} s",
                *(f"{part_s:.2f} s ({part_s / sum(parts_s):.0%})" for part_s in parts_s),
            )
        megabits = 8 * clip.stat().st_size / (FRAMES / FPS) / 1e6
    table.title = f"3 s of 720p at {megabits:.1f} Mbit/s, {joblib.cpu_count()} cores"
    table.caption = f"target with MobileNetV3: {TARGET_S} s, on two idle cores"
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
