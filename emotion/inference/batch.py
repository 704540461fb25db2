"""Predict many clips in worker processes, with a picture folder for each if asked for."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import parent_process
from os import PathLike
from pathlib import Path

from emotion.clips.video import VideoError
from emotion.inference.answer import Answer
from emotion.inference.recognizer import EmotionRecognizer


@dataclass(frozen=True)
class Predictor:
    """Predicts clips with one `EmotionRecognizer`; small enough to be sent to worker processes."""

    model: Path
    min_frames: int | None = None
    unsure_below: float | None = None
    neutral: tuple[Path, ...] = ()  # see `EmotionRecognizer.set_neutral`
    face_model: str | PathLike | None = None
    stride: int | None = None  # frames from one window to the next; None for no windows
    rendered: Path | None = None  # for the pictures, in a folder for each clip; None for none

    def predict_all(self, clips: Sequence[Path], num_workers: int | None) -> list[Answer]:
        """Predict clips; an error in one clip is reported in its answer and stops no other.

        A single clip is predicted in this process, others in `num_workers`, None for one per core.
        A wrong model or stride raises a UserError.
        """
        named = list(zip(clips, output_names(clips), strict=True))
        if len(clips) == 1:
            return [self.predict(*named[0])]
        from emotion.executors import LocalExecutor
        from emotion.progress import ProgressBar

        answers: dict[Path, Answer] = {}
        with ProgressBar("predicting clips", len(clips)) as bar:
            work = partial(predict_in_worker, self)
            for (clip, _), answer in LocalExecutor(num_workers).run(work, named, Path()):
                answers[clip] = answer or failed(clip, "reading it kills the process")
                bar.advance()
        return [answers[clip] for clip in clips]

    def predict(self, clip: Path, name: str) -> Answer:
        """Predict a clip and draw its pictures into the folder `name`; raises as `predict_all`."""
        recognizer = loaded(self)
        recognizer.check_stride(self.stride)
        try:
            answer = recognizer.predict(clip, self.stride)
            if self.rendered is not None:
                from emotion.inference.drawing import render

                by, unsure_below = recognizer.settings.by, recognizer.unsure_below
                render(answer, by, unsure_below, self.rendered / name)
        except VideoError as error:
            return failed(clip, str(error))
        except Exception as error:  # one clip must not stop the others; its answer reports it
            return failed(clip, f"{type(error).__name__}: {error}")
        return answer


def predict_in_worker(predictor: Predictor, named: tuple[Path, str]) -> Answer:
    """Call `Predictor.predict` in a process that an executor has started."""
    from emotion.executors import begin_work

    begin_work()
    return predictor.predict(*named)


@lru_cache(maxsize=1)
def loaded(predictor: Predictor) -> EmotionRecognizer:
    """Load a model and process the person's neutral clips once per process."""
    recognizer = EmotionRecognizer.load(
        predictor.model,
        min_frames=predictor.min_frames,
        face_model=predictor.face_model,
        unsure_below=predictor.unsure_below,
        read_ahead=parent_process() is None,
    )
    recognizer.set_neutral(predictor.neutral)
    return recognizer


def failed(clip: Path, reason: str) -> Answer:
    """Make the answer of a clip that could not be predicted."""
    return Answer(str(clip), reasons=[reason], failed=True)


def output_names(clips: Sequence[Path]) -> list[str]:
    """Return a unique folder name for each clip: its path below the common folder.

    >>> output_names([Path("in/a/1.mp4"), Path("in/b/1.mp4"), Path("in/b/1.mov")])
    ['a/1', 'b/1.mp4', 'b/1.mov']
    """
    paths = [Path(os.path.abspath(clip)) for clip in clips]
    above = os.path.commonpath([path.parent for path in paths])
    below = [path.relative_to(above) for path in paths]
    short = [path.with_suffix("") for path in below]
    times = Counter(short)
    return [str(path if times[name] > 1 else name) for path, name in zip(below, short, strict=True)]
