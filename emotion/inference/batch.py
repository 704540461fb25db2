"""Predict many clips in worker processes, and draw their pictures."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path

from emotion.clips.video import VideoError
from emotion.errors import is_machine_fault
from emotion.executors import LocalExecutor
from emotion.files import file_digest, unfinished
from emotion.inference.answer import Answer, json_lines
from emotion.inference.profile import Profile, change_profile
from emotion.inference.recognizer import EmotionRecognizer
from emotion.progress import progress_bar
from emotion.watchdog import REASON, watchdog


@dataclass(frozen=True)
class Predictor:
    """Predicts clips with one `EmotionRecognizer`; small enough to be sent to worker processes."""

    model: Path
    min_frames: int | None = None
    unsure_below: float | None = None
    face_model: str | PathLike | None = None
    person: Path | None = None  # the file of a profile, which is not changed
    stride: int | None = None  # frames from one window to the next; None for no windows
    rendered: Path | None = None  # for the pictures, in a folder for each clip; None for none

    def predict_all(
        self, clips: Sequence[Path], num_workers: int | None
    ) -> Iterator[tuple[Path, Answer]]:
        """Yield each clip, in any order, and its answer, which also reports an error in the clip.

        A single clip is predicted in this process, others in `num_workers`, None for one per core.
        A wrong model or stride raises a UserError.
        """
        named = list(zip(clips, output_names(clips), strict=True))
        if len(clips) == 1:
            yield clips[0], self.predict(named[0])
            return
        with progress_bar("predicting clips", len(clips)) as advance:
            for (clip, _), answer in LocalExecutor(num_workers).run(self.predict, named, Path()):
                yield clip, answer or failed(clip, REASON)
                advance()

    def predict_to_file(
        self, clips: Sequence[Path], num_workers: int | None, path: Path
    ) -> list[Answer]:
        """Predict clips; write each answer as it comes, and at the end all in the clips' order."""
        answers = {}
        with json_lines(path) as write:
            for clip, answer in self.predict_all(clips, num_workers):
                write(answer)
                answers[clip] = answer
        with unfinished(path) as temporary, json_lines(temporary) as write:
            for clip in clips:
                write(answers[clip])
        return [answers[clip] for clip in clips]

    def learn(self, answers: Sequence[Answer]) -> Profile:
        """Add the clips of answers to the history of the person, and write it."""
        recognizer = loaded(self)
        observed = [(file_digest(Path(each.clip)), each.features) for each in answers if each.label]

        def change(profile: Profile) -> Profile:
            for clip_id, features in observed:
                profile = profile.observe(clip_id, features)
            return profile

        return change_profile(self.person, recognizer.profile, change)

    def predict(self, named: tuple[Path, str]) -> Answer:
        """Predict a clip and draw its pictures into the folder of a name; see `predict_all`."""
        clip, name = named
        recognizer = loaded(self)
        recognizer.check_stride(self.stride)
        try:
            with watchdog.watch(clip, "convert it"):
                answer = recognizer.predict(clip, self.stride)
            if self.rendered is not None:
                from emotion.inference.drawing import render  # Matplotlib takes 0.3 s

                folder = self.rendered / name
                render(answer, recognizer.settings, recognizer.unsure_below, folder)
        except VideoError as error:
            return failed(clip, str(error))
        except Exception as error:  # one clip must not stop the others; its answer reports it
            if is_machine_fault(error):
                raise
            return failed(clip, f"{type(error).__name__}: {error}")
        return answer


@lru_cache(maxsize=1)
def loaded(predictor: Predictor) -> EmotionRecognizer:
    """Load a model once per process."""
    return EmotionRecognizer.load(
        predictor.model,
        min_frames=predictor.min_frames,
        unsure_below=predictor.unsure_below,
        face_model=predictor.face_model,
        person=predictor.person,
    )


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
