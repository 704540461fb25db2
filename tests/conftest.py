"""Shared fixtures: real clips, a real cache, composed configs, a finished run, a tidy process.

Heavy packages are imported inside the fixtures that use them, so that a test of a light module
starts in a second.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import pytest

from emotion import REPOSITORY

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tests.caches import BuildableCache

# pytest started in the background by a shell ignores Ctrl-C, and so does all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: more threads would only compete
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def tidy_process() -> Iterator[None]:
    """Keep a developer's settings out, and what an entry point does to the process within a test.

    The first two are set, not deleted: what is set already, no `.env` file overrides.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = {"EMOTION_DATA": "demo", "DATASET_DOWNLOAD_ID": "", "WANDB_MODE": "offline"}
    with mock.patch.dict(os.environ, ours):
        os.environ.pop("HYDRA_FULL_ERROR", None)
        yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of real clips and golden stacks, or skip the test."""
    folder = Path(os.environ.get("EMOTION_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder} (EMOTION_TEST_DATA=DIR says where it is)")
    return folder


@pytest.fixture(scope="session")
def compose() -> "Callable[..., DictConfig]":
    """Give a function that composes a primary config, as a script with these overrides would."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    import emotion.training.cell  # noqa: F401 registers resolvers, as train.py does
    from emotion.cli import CONF_DIR

    def compose_config(
        config_name: str, overrides: Iterable[str] = (), **settings: bool
    ) -> "DictConfig":
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return hydra_compose(config_name, list(overrides), **settings)

    return compose_config


@pytest.fixture(scope="session")
def demo_cache(
    compose: "Callable[..., DictConfig]", tmp_path_factory: pytest.TempPathFactory
) -> "BuildableCache":
    """Build the cache of a smoke run: two rendered clips of every class in every split."""
    from tests.caches import BuildableCache

    folder = tmp_path_factory.mktemp("demo")
    cache = BuildableCache.from_config(
        compose("train", ["data=demo", "experiment=smoke", f"paths.cache={folder}"])
    )
    cache.build()
    return cache


@pytest.fixture
def cache_of(
    compose: "Callable[..., DictConfig]", tmp_path: Path
) -> "Callable[..., BuildableCache]":
    """Give a function that names the cache of a folder of clips; it cuts in this process."""
    from emotion.config import check_config
    from tests.caches import BuildableCache

    def name_cache(root: Path, *overrides: str, data: str = "scrapping") -> BuildableCache:
        paths = [f"data={data}", f"data.root={root}", f"paths.cache={tmp_path}/cache"]
        cfg = compose("preprocess", [*paths, "num_workers=1", *overrides])
        check_config("preprocess", cfg)
        return BuildableCache.from_config(cfg)

    return name_cache


@pytest.fixture
def stills(demo_cache: "BuildableCache", tmp_path: Path) -> Path:
    """Give a folder of stills, four drawn faces a class, that fill their pictures; and a clip."""
    import cv2

    from emotion.clips.video import Video

    folder = tmp_path / "stills"
    for label in ("Happy", "Sad"):
        (folder / label).mkdir(parents=True)
        for number in (1, 2):
            clip = demo_cache.root / f"{label}_{number:04d}.mp4"
            for place, picture in list(enumerate(Video(clip).pictures()))[30:60:29]:
                frame = cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2BGR)[40:230, 40:216]
                cv2.imwrite(str(folder / label / f"{number}-{place}.png"), frame)
    (folder / "Happy" / "beside.mp4").symlink_to(demo_cache.root / "Happy_0001.mp4")
    return folder


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Give a function that writes (H, W, 3) uint8 BGR frames to an MPEG-4 file."""
    import cv2

    def write(path: Path, frames: Iterable[np.ndarray], fps: float = 30.0) -> Path:
        frames = list(frames)
        height, width = frames[0].shape[:2]
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), codec, fps, (width, height))
        assert writer.isOpened(), path
        for frame in frames:
            writer.write(frame)
        writer.release()
        return path

    return write


@pytest.fixture(scope="session")
def run_dir(demo_cache: "BuildableCache", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a run: a small network with random weights, and its recipe."""
    import pytorch_lightning as pl
    import torch

    from emotion.models.lightning_module import EmotionModule
    from emotion.models.recipe import Recipe, package_versions

    folder = tmp_path_factory.mktemp("run")
    labels = list(demo_cache.scheme.labels)
    pl.seed_everything(3, verbose=False)
    module = EmotionModule("mobilenetv3_small_050", 9, labels)
    with torch.no_grad():  # as it is after training: other inputs give other answers
        module.train()(torch.randint(256, (16, 9, 64, 64), dtype=torch.uint8))
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "best.ckpt", weights_only=True)
    recipe = Recipe(
        title="A small network",
        data="nothing",
        labels=labels,
        settings=demo_cache.settings,
        interval=10,
        image_px=64,
        versions=package_versions(),
        temperature=0.8,
    )
    recipe.write(folder / "recipe.json")
    return folder


@pytest.fixture(scope="session")
def join_clips(write_video: Callable[..., Path]) -> Callable[..., Path]:
    """Give a function that writes frames of clips one after another, losslessly to the eye."""
    import cv2

    from emotion.clips.video import Video

    def join(path: Path, *parts: tuple[Path, int, int]) -> Path:
        frames = [
            cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2BGR)
            for clip, start, stop in parts
            for picture in list(Video(clip).pictures())[start:stop]
        ]
        return write_video(path, frames)

    return join


@pytest.fixture(scope="session")
def encode_video() -> Callable[..., Path]:
    """Give a function that encodes (H, W, 3) uint8 RGB frames with PyAV, in any codec and file."""
    import av

    def encode(
        path: Path,
        frames: Iterable[np.ndarray],
        times_s: Iterable[float] | None = None,
        fps: float = 30.0,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        file_format: str | None = None,
        movflags: str = "",
        **codec_options: str,
    ) -> Path:
        """Encode frames; each is shown from its time on, or at `fps` where none are given."""
        rate = Fraction(fps).limit_denominator(1001)
        if codec == "libx264":
            codec_options = {"preset": "ultrafast", "crf": "12", **codec_options}
        with av.open(
            str(path), "w", format=file_format, options={"movflags": movflags} if movflags else {}
        ) as container:
            stream = None
            for number, frame in enumerate(frames):
                if stream is None:
                    stream = container.add_stream(codec, rate=rate, options=codec_options)
                    stream.height, stream.width = frame.shape[:2]
                    stream.pix_fmt = pix_fmt
                    if times_s is not None:
                        times_s = list(times_s)
                        stream.codec_context.time_base = Fraction(1, 90_000)
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                if times_s is None:
                    picture.pts, picture.time_base = number, 1 / rate
                else:
                    picture.pts = round(90_000 * times_s[number])
                    picture.time_base = Fraction(1, 90_000)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return path

    return encode


@pytest.fixture(scope="session")
def turn() -> Callable[[Path, int], None]:
    """Give a function that has an .mp4 or .mov file say by how much it is to be turned."""
    matrices = {  # a, b, u, c, d, v of ISO/IEC 14496-12, 6.2.2: (x, y) goes to (ax + cy, bx + dy)
        0: (1, 0, 0, 0, 1, 0),
        90: (0, 1, 0, -1, 0, 0),
        180: (-1, 0, 0, 0, -1, 0),
        270: (0, -1, 0, 1, 0, 0),
    }

    def as_stored(clockwise_deg: int) -> bytes:
        numbers = matrices[clockwise_deg]
        return b"".join((number << 16).to_bytes(4, "big", signed=True) for number in numbers)

    def write(path: Path, clockwise_deg: int) -> None:
        content = path.read_bytes()
        track = content.index(b"tkhd")
        place = content.index(as_stored(0), track)
        assert place - track < 60
        new = as_stored(clockwise_deg)
        path.write_bytes(content[:place] + new + content[place + len(new) :])

    return write


@pytest.fixture(scope="session")
def finished_run(demo_cache: "BuildableCache", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a run that train.py has brought to its end, on two clips a class."""
    from emotion.commands.train import train

    folder = tmp_path_factory.mktemp("finished") / "run"
    paths = [f"paths.cache={demo_cache.directory.parents[1]}", f"hydra.run.dir={folder}"]
    arguments = ["train.py", "experiment=smoke", "interval=15", "logger=none", *paths]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("EMOTION_DATA", "demo"), ("DATASET_DOWNLOAD_ID", "")):
            patch.setenv(name, value)
        patch.setattr("sys.argv", arguments)
        root = logging.getLogger()
        before = root.handlers[:], root.level
        train()
        root.handlers[:], root.level = before  # else the logs of later tests go to this run's file
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what came of the damages of tests/reliability, also of those run by xdist."""
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    counts = [dict(report.user_properties).get("damages") for report in reports]
    if lines := [line for line in counts if line]:
        terminalreporter.section("damaged files")
        terminalreporter.write_line("\n".join(lines))
