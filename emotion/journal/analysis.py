"""Find faces in clips, in a process of its own: a decoder may crash, hang or take too long."""

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from emotion.inference.answer import Answer, Window

LIMIT_S = 120.0  # for one clip
START_S = 120.0  # for the process: the first start may download the face model
PICTURE_PX = 640  # longer side of a cover
QUALITY = 82
PART_FRAMES, STEP_FRAMES = 30, 15  # of the timeline, at 30 frames a second
MIN_FACES = 3  # of a part
MIN_FRAMES = 15  # half a second: shorter clips have no answer
STARTER = "starter"
CRASHED = "its decoder crashes"
TOO_LONG = f"its analysis takes more than {LIMIT_S:.0f} s: cut it to a few seconds"


@dataclass(frozen=True)
class Finding:
    """What a clip shows."""

    duration_s: float | None = None
    features: np.ndarray | None = None  # (D,) float64; None without a face
    parts: np.ndarray | None = None  # (P, D) float32, of the timeline; (0,) if the model has none
    timeline: tuple[dict, ...] = ()  # see `EntryFields.timeline`
    reasons: tuple[str, ...] = ()  # why there are no features, or notes
    is_broken: bool = False  # whether it could not be read
    has_picture: bool = False


class Worker:
    """The process that analyzes clips, one at a time; started again after it has died."""

    def __init__(self, work: Callable[[Connection, str], None], model: str) -> None:
        """Start the process.

        Args:
            work: runs in it, with its end of a pipe; `analyze_clips`.
            model: to load.
        """
        self._work, self._model = work, model
        self._lock = threading.Lock()
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # this process has threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=self._work, args=(theirs, self._model), daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready = False

    def analyze(self, clip: Path, picture: Path) -> Finding | Exception:
        """Analyze a clip and write its cover.

        Returns:
            What was found, or an exception of the worker that is no fault of the clip.
        """
        try:
            if not self._is_ready:
                reply = self._receive(START_S)
                if isinstance(reply, Exception):
                    self._restart()
                    return reply
                self._is_ready = True
            self._connection.send((clip, picture))
            return self._receive(LIMIT_S)
        except TimeoutError:
            was_ready = self._is_ready
            self._restart()
            return (
                Finding(reasons=(TOO_LONG,), is_broken=True)
                if was_ready
                else RuntimeError(f"the analysis did not start within {START_S:.0f} s")
            )
        except (EOFError, OSError):
            was_ready = self._is_ready
            code = self._restart()
            return (
                Finding(reasons=(CRASHED,), is_broken=True)
                if was_ready
                else RuntimeError(
                    f"the analysis cannot start: its process ended with status {code}"
                )
            )

    def _receive(self, timeout_s: float) -> Finding | Exception:
        if not self._connection.poll(timeout_s):
            raise TimeoutError
        return self._connection.recv()

    def _restart(self) -> int | None:
        """Kill the process and start another, unless closed; return the exit status."""
        code = self._kill()
        with self._lock:
            if not self._is_closed:
                self._start()
        return code

    def _kill(self) -> int | None:
        self._process.kill()
        self._process.join()
        self._connection.close()
        return self._process.exitcode

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._is_closed = True
            self._process.kill()
            self._process.join()


def analyze_clips(connection: Connection, model: str) -> None:
    """Analyze clips until the pipe is closed; the main function of the worker process."""
    from emotion.errors import is_machine_fault
    from emotion.executors import begin_work

    begin_work()
    try:
        analyzer = Analyzer(model)
        connection.send(None)
    except Exception as error:
        connection.send(error)
        return
    with suppress(EOFError):
        while True:
            clip, picture = connection.recv()
            try:
                found = analyzer.analyze(clip, picture)
            except Exception as error:
                if is_machine_fault(error):
                    connection.send(error)
                    continue
                reason = f"{type(error).__name__}: {error}"
                found = Finding(reasons=(reason,), is_broken=True)
            connection.send(found)


class Analyzer:
    """Analyzes clips with a model that is loaded once."""

    def __init__(self, model: str) -> None:
        """Load the model."""
        from emotion.inference.recognizer import EmotionRecognizer

        self._is_starter = model == STARTER
        self._recognizer = EmotionRecognizer.load(model, min_frames=MIN_FRAMES)

    def analyze(self, clip: Path, picture: Path) -> Finding:
        """Predict a clip and write its cover."""
        from emotion.clips.video import VideoError
        from emotion.inference.drawing import cover_frame

        try:
            answer = self._recognizer.predict(clip)
            parts = parts_of(answer) if self._is_starter else []
            answer = replace(answer, windows=[self._window(answer, *part) for part in parts])
            write_picture(frame_of(clip, cover_frame(answer) or 0), picture)
        except VideoError as error:
            return Finding(reasons=(str(error),), is_broken=True)
        duration_s = answer.seconds(answer.num_frames)
        if answer.features is None:
            reason = "a face in too little of it" if answer.faces else "no face"
            return Finding(duration_s, reasons=(reason,), has_picture=True)
        windows = answer.windows or answer.segments
        return Finding(
            duration_s,
            np.array(answer.features),
            np.array([features for _, features in parts], np.float32),
            tuple(answer.times(window) | {"probabilities": dict(window.probabilities)}
                  for window in windows if window.probabilities),
            tuple(answer.reasons),
            has_picture=True,
        )  # fmt: skip

    def _window(self, answer: "Answer", first_frame: int, features: np.ndarray) -> "Window":
        from emotion.inference.answer import Window

        num_frames = min(PART_FRAMES, answer.num_frames - first_frame)
        return Window(first_frame, num_frames, self._recognizer.judge(features).probabilities)


def parts_of(answer: "Answer") -> list[tuple[int, np.ndarray]]:
    """Return the first frame and the (D,) features, as of the starter, of parts of a clip."""
    from emotion.evaluation.movements import describe_blendshapes

    parts = []
    for first in range(0, max(1, answer.num_frames - PART_FRAMES + 1), STEP_FRAMES):
        inside = [
            face.blendshapes for face in answer.faces if 0 <= face.frame - first < PART_FRAMES
        ]
        if len(inside) >= MIN_FACES:
            parts.append((first, describe_blendshapes(np.array(inside))))
    return parts


def frame_of(clip: Path, number: int) -> np.ndarray:
    """Return a frame of a clip, (H, W, 3) uint8 RGB, by its number at 30 frames a second."""
    from emotion.clips.video import Video
    from emotion.stacks.sampling import number_frames, sampled_frames

    def wanted(times_s: list[float], fps: float) -> set[int]:
        return sampled_frames(times_s, fps, max(1, number), "time")

    video = Video(clip, wanted)
    pictures = ((picture.time_s, picture) for picture in video.pictures())
    for current, picture in number_frames(pictures, "time", video.fps):
        if picture.frame is not None:  # it was not skipped
            shown = picture
        if current >= number:
            break
    return shown.rgb()


def write_picture(frame: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG of at most `PICTURE_PX`."""
    from PIL import Image

    from emotion.files import unfinished

    image = Image.fromarray(frame)
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    with unfinished(path) as temporary:
        image.save(temporary, "JPEG", quality=QUALITY)
