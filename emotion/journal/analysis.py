"""Find faces in clips, in a process of its own: a decoder may crash, hang or take too long."""

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

LIMIT_S = 120.0  # for one clip
START_S = 120.0  # for the process: the first start may download the face model
PICTURE_PX = 640  # longer side of a cover
QUALITY = 82
PART_S, STEP_S = 1.0, 0.5  # of the timeline
CRASHED = "its decoder crashes"
TOO_LONG = f"its analysis takes more than {LIMIT_S:.0f} s: cut it to a few seconds"


@dataclass(frozen=True)
class Finding:
    """What a clip shows."""

    duration_s: float | None = None
    features: np.ndarray | None = None  # (D,) float64; None without a face
    parts: np.ndarray | None = None  # (P, D) float32
    spans: tuple[tuple[float, float], ...] = ()  # start and stop of each part, in seconds
    reason: str = ""  # why there are no features
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
                Finding(reason=TOO_LONG, is_broken=True)
                if was_ready
                else RuntimeError(f"the analysis did not start within {START_S:.0f} s")
            )
        except (EOFError, OSError):
            was_ready = self._is_ready
            code = self._restart()
            return (
                Finding(reason=CRASHED, is_broken=True)
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
                found = Finding(reason=reason, is_broken=True)
            connection.send(found)


class Analyzer:
    """Analyzes clips with a model that is loaded once."""

    def __init__(self, model: str) -> None:
        """Load the model of faces."""
        from emotion.stacks.face_crop import FaceCropper
        from emotion.stacks.settings import CacheSettings

        self._settings = CacheSettings(
            min_frames=45, segment_frames=90, interval=5, by="time", start="first_face",
            min_face_fraction=0.5, tracking="sampled", follow="largest", margin=0.1, align=False,
            size_px=64, min_confidence=0.5,
        )  # fmt: skip
        self._cropper = FaceCropper(self._settings)

    def analyze(self, clip: Path, picture: Path) -> Finding:
        """Find the face in a clip and write its cover, the sharpest frame of the face."""
        import cv2

        from emotion.clips.video import Video, VideoError
        from emotion.evaluation.movements import describe_blendshapes
        from emotion.stacks.sampling import NOMINAL_FPS
        from emotion.stacks.segment import crop_frames

        faces, cover, sharpest, number = {}, None, -1.0, -1
        try:
            for frame in crop_frames(Video(clip), self._cropper, 5, "time"):
                number = frame.number
                if cover is None:
                    cover = frame.picture.rgb()
                if frame.face is None:
                    continue
                faces[number] = frame.face.blendshapes
                sharpness = float(cv2.Laplacian(frame.face.crop, cv2.CV_64F).var())
                if sharpness > sharpest:
                    cover, sharpest = frame.picture.rgb(), sharpness
        except VideoError as error:
            return Finding(reason=str(error), is_broken=True)
        write_picture(cover, picture)
        duration_s = (number + 1) / NOMINAL_FPS
        if len(faces) < 3:
            return Finding(duration_s, reason="no face", has_picture=True)
        parts, spans = [], []
        for begin in np.arange(0, max(duration_s - PART_S, 0) + 1e-6, STEP_S):
            inside = [face for at, face in faces.items() if begin <= at / NOMINAL_FPS < begin + 1]
            if len(inside) >= 3:
                parts.append(describe_blendshapes(np.stack(inside)))
                spans.append((round(float(begin), 3), round(min(begin + 1, duration_s), 3)))
        features = describe_blendshapes(np.stack(list(faces.values())))
        return Finding(
            duration_s,
            features,
            np.array(parts, np.float32).reshape(-1, len(features)),
            tuple(spans),
            has_picture=True,
        )


def write_picture(frame: np.ndarray, path: Path) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG of at most `PICTURE_PX`."""
    from PIL import Image

    from emotion.files import unfinished

    image = Image.fromarray(frame)
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    with unfinished(path) as temporary:
        image.save(temporary, "JPEG", quality=QUALITY)
