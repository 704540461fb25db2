"""many clips ──predict──> an answer each, and its pictures, wherever an executor puts it."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import parent_process
from pathlib import Path

from emotion.clips.video import VideoError
from emotion.executors import LocalExecutor, begin_work
from emotion.inference.answer import Recognition
from emotion.inference.drawing import render
from emotion.inference.recognizer import EmotionRecognizer
from emotion.progress import ProgressBar


@dataclass(frozen=True)
class Predictor:
    """Answers clips with one model; small enough to be sent to other processes.

    Attributes:
        model: its file.
        min_frames: see `EmotionRecognizer`.
        unsure_below: likewise.
        neutral: neutral clips of the person who is seen, see `EmotionRecognizer.calibrate`.
        stride: frames from one window to the next; None for no windows.
        rendered: the folder that pictures go to, one below it for each clip; None for none.
    """

    model: Path
    min_frames: int | None = None
    unsure_below: float | None = None
    neutral: tuple[Path, ...] = ()
    stride: int | None = None
    rendered: Path | None = None

    def predict_all(self, clips: Sequence[Path], num_workers: int | None) -> list[Recognition]:
        """Answer clips; what is wrong with one is said in its answer and stops no other.

        Args:
            clips: the files.
            num_workers: processes that answer them; None for one a core. A single clip is answered
                in this one.

        Raises:
            UserError: the model can't be loaded, or does not allow the stride.
        """
        named = list(zip(clips, output_names(clips), strict=True))
        if len(clips) == 1:
            return [self.predict(*named[0])]
        answers: dict[Path, Recognition] = {}
        with ProgressBar("recognizing clips", len(clips)) as bar:
            work = partial(predict_in_worker, self)
            for (clip, _), answer in LocalExecutor(num_workers).run(work, named, Path()):
                answers[clip] = answer or failed(clip, "reading it kills the process")
                bar.advance()
        return [answers[clip] for clip in clips]

    def predict(self, clip: Path, name: str) -> Recognition:
        """Answer a clip and draw its pictures.

        Args:
            clip: the file.
            name: of the folder for its pictures.

        Raises:
            UserError: see `predict_all`.
        """
        recognizer = loaded(self.model, self.min_frames, self.unsure_below, self.neutral)
        recognizer.check_stride(self.stride)
        try:
            answer = recognizer.predict(clip, self.stride)
            if self.rendered is not None:
                recipe = recognizer.recipe
                folder = self.rendered / name
                render(answer, recipe.settings.by, recipe.unsure_below, folder)
        except VideoError as error:
            return failed(clip, str(error))
        except Exception as error:  # one clip must not stop the others; it is reported
            return failed(clip, f"{type(error).__name__}: {error}")
        return answer


def predict_in_worker(predictor: Predictor, named: tuple[Path, str]) -> Recognition:
    """Answer a clip in a process that an executor has started; see `Predictor.predict`."""
    begin_work()
    return predictor.predict(*named)


@lru_cache(maxsize=1)
def loaded(
    model: Path, min_frames: int | None, unsure_below: float | None, neutral: tuple[Path, ...]
) -> EmotionRecognizer:
    """Load a model, and see the person's neutral clips, once a process."""
    recognizer = EmotionRecognizer.load(
        model,
        min_frames=min_frames,
        unsure_below=unsure_below,
        read_ahead=parent_process() is None,
    )
    recognizer.calibrate(neutral)
    return recognizer


def failed(clip: Path, reason: str) -> Recognition:
    """Say that a clip could not be answered."""
    return Recognition(str(clip), reasons=[reason], failed=True)


def output_names(clips: Sequence[Path]) -> list[str]:
    """Name a folder for each clip, that no other clip has: its path below the folder of all.

    >>> output_names([Path("in/a/1.mp4"), Path("in/b/1.mp4"), Path("in/b/1.mov")])
    ['a/1', 'b/1.mp4', 'b/1.mov']
    """
    paths = [Path(os.path.abspath(clip)) for clip in clips]
    above = os.path.commonpath([path.parent for path in paths])
    below = [path.relative_to(above) for path in paths]
    times = Counter(path.with_suffix("") for path in below)
    return [
        (path if times[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix()
        for path in below
    ]
