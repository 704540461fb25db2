"""clips ──recognize──> emotions: the way of the data once more, past the cache and into a model.

A clip is cut, cropped and stacked by the functions that made the training's stacks, under the
settings in the model's recipe, so that the model sees what it has learned from.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from os import PathLike
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np

from emotion.clips.read_ahead import ReadAhead
from emotion.clips.still import Still, open_clip
from emotion.clips.video import Video, VideoError
from emotion.errors import UserError
from emotion.evaluation.personal import PERSON_SHARE
from emotion.inference.answer import (
    FoundFace,
    Probabilities,
    Recognition,
    RecognizedSegment,
    Window,
    top_label,
)
from emotion.inference.backends import Runtime, find_model, load_model
from emotion.models.recipe import Recipe
from emotion.stacks.cutter import face_cropper, one_at_a_time
from emotion.stacks.sampling import NOMINAL_FPS
from emotion.stacks.segment import Segment, crop_segments, unfit
from emotion.stacks.stack import model_images, model_landmarks, own_crops, stack_crops

log = logging.getLogger(__name__)


class EmotionRecognizer:
    """Tells the emotion in clips of faces with a trained model.

    Attributes:
        recipe: what the model is and how it wants its clips.
        runtime: what runs it.
    """

    def __init__(
        self,
        runtime: Runtime,
        recipe: Recipe,
        *,
        min_frames: int | None = None,
        unsure_below: float | None = None,
        read_ahead: bool = True,
    ) -> None:
        """Take a loaded model.

        Args:
            runtime: what runs it.
            recipe: its recipe.
            min_frames: a shorter clip or tail gets no answer; None as in training.
            unsure_below: a clip whose top probability is lower is unsure; None as set in training.
            read_ahead: decode in a thread of its own.

        Raises:
            UserError: `min_frames` or `unsure_below` can't be.
        """
        settings = recipe.settings
        if min_frames is not None:
            if not 1 <= min_frames <= settings.segment_frames:
                raise UserError(f"min_frames={min_frames}: it is 1 to {settings.segment_frames}")
            recipe = recipe.model_copy(
                update={"settings": replace(settings, min_frames=min_frames)}
            )
        if unsure_below is not None:
            if not 0 <= unsure_below <= 1:
                raise UserError(f"unsure_below={unsure_below}: it is a probability, 0 to 1")
            recipe = recipe.model_copy(update={"unsure_below": unsure_below})
        self.recipe = recipe
        self.runtime = runtime
        self.read_ahead = read_ahead
        self._shift = np.zeros(len(recipe.labels))  # of logits, from `calibrate`

    @classmethod
    def load(
        cls,
        path: str | PathLike,
        *,
        min_frames: int | None = None,
        unsure_below: float | None = None,
        read_ahead: bool = True,
        num_threads: int = 1,
    ) -> "EmotionRecognizer":
        """Load a trained model.

        Args:
            path: the folder of a run, its checkpoint, or an ONNX file.
            min_frames: a shorter clip or tail gets no answer; None as in training.
            unsure_below: a clip whose top probability is lower is unsure; None as set in training.
            read_ahead: decode in a thread of its own.
            num_threads: cores that the network may use. More pay for the larger models, if nothing
                else wants those cores: two threads that wait for each other are slower than one.

        Raises:
            UserError: there is no model, or it is damaged or foreign.
        """
        runtime, recipe = load_model(find_model(Path(path)), num_threads)
        for change in recipe.changed_packages():
            log.warning("warning: %s, which the model was trained with: crops may differ", change)
        return cls(
            runtime,
            recipe,
            min_frames=min_frames,
            unsure_below=unsure_below,
            read_ahead=read_ahead,
        )

    @property
    def labels(self) -> Sequence[str]:
        """The emotions that the model tells apart."""
        return self.recipe.labels

    def calibrate(self, clips: Sequence[str | PathLike], share: float = PERSON_SHARE) -> None:
        """Take a person's resting face into account: call it before their clips are answered.

        The logits of their neutral clips are compared with those of everybody's in training, and
        a share of the difference is taken off all of this person's answers from now on. Calling
        it again begins anew; with no clips it goes back to everybody's face.

        Args:
            clips: neutral clips of this person, a few seconds each; one does.
            share: of the difference. All of it would take one clip's chance for the person
                (docs/results.md).

        Raises:
            UserError: the model does not know what neutral is, `share` is no share, or a clip
                can't be read or shows no face for long enough.
        """
        if not 0 <= share <= 1:
            raise UserError(f"calibrate: share={share} is no share, 0 to 1")
        self._shift = np.zeros(len(self.labels))
        if not clips:
            return
        if not self.recipe.neutral:
            raise UserError(
                "calibrate: the model was trained without neutral stacks, or by an older version"
            )
        logits = [self._neutral_logits(Path(clip)) for clip in clips]
        self._shift = share * (np.array(self.recipe.neutral) - np.mean(logits, axis=0))

    def _neutral_logits(self, clip: Path) -> np.ndarray:
        """Give the mean logits, (C,), of a clip's segments.

        Raises:
            UserError: it can't be read, or the model could not answer any of it.
        """
        try:
            with one_at_a_time:
                segments = list(self._segments(open_clip(clip)))
        except VideoError as error:
            raise UserError(f"calibrate={clip}: {error}") from None
        logits = [
            self._logits(segment.crops, segment.landmarks)
            for segment in segments
            if not unfit(segment, self.recipe.settings)
        ]
        if not logits:
            reasons = "; ".join(self._reasons([self._unanswered(segment) for segment in segments]))
            raise UserError(f"calibrate={clip}: {reasons}")
        return np.mean(logits, axis=0)

    def _segments(self, video: Video | Still) -> Iterator[Segment]:
        """Cut a clip and crop its faces, as for training."""
        settings = self.recipe.settings
        return crop_segments(
            ReadAhead(video) if self.read_ahead else video,
            face_cropper(settings),
            settings.segment_frames,
            settings.interval,
            settings.by,
            settings.start,
        )

    def predict(self, clip: str | PathLike, stride: int | None = None) -> Recognition:
        """Tell the emotion in a clip.

        Args:
            clip: a video file, or a picture.
            stride: frames from one window to the next, for answers over the clip; a multiple of
                the interval that crops are taken at. None for no windows.

        Returns:
            The answer; where there is none, `label` is None and `reasons` say why.

        Raises:
            UserError: there is no such stride.
            VideoError: the clip can't be read; says why.
        """
        settings = self.recipe.settings
        self.check_stride(stride)
        video = open_clip(Path(clip))
        segments: list[RecognizedSegment] = []
        windows: list[Window] = []
        faces: list[FoundFace] = []
        crops: list[np.ndarray | None] = []  # from where the next window begins
        points: list[np.ndarray | None] = []  # the landmarks of their faces
        begin = None
        with one_at_a_time:
            for segment in self._segments(video):
                segments.append(self._recognize(segment))
                faces += found_faces(segment, settings.interval)
                if stride is None:
                    continue
                begin = segment.first_frame if begin is None else begin
                crops += segment.crops
                points += segment.landmarks
                while len(crops) >= (length := settings.num_images):
                    answer = self.probabilities(crops[:length], points[:length])
                    windows.append(Window(begin, settings.segment_frames, answer))
                    del crops[: stride // settings.interval], points[: stride // settings.interval]
                    begin += stride
        if stride is not None and not windows:  # too short for one, but a padded segment is one
            windows = [Window(s.first_frame, s.num_frames, s.probabilities) for s in segments]
        answers = [s.probabilities for s in segments if s.probabilities]
        probabilities = mean(answers)
        unsure = bool(probabilities) and max(probabilities.values()) < self.recipe.unsure_below
        return Recognition(
            clip=str(clip),
            label=top_label(probabilities),
            probabilities=probabilities,
            unsure=unsure,
            segments=segments,
            num_faces=max(s.num_faces for s in segments),
            reasons=self._reasons(segments),
            fps=NOMINAL_FPS if settings.by == "time" else video.fps,
            num_frames=segments[-1].first_frame + segments[-1].num_frames,
            windows=windows,
            faces=faces,
        )

    def check_stride(self, stride: int | None) -> None:
        """Refuse a stride that windows can't have.

        Raises:
            UserError: names those that they can have.
        """
        settings = self.recipe.settings
        if stride is None:
            return
        if stride % settings.interval or not 0 < stride <= settings.segment_frames:
            raise UserError(
                f"stride={stride}: it is a multiple of {settings.interval}, at which the model has "
                f"its crops, up to {settings.segment_frames}"
            )

    def images(self, crops: Sequence[np.ndarray | None]) -> np.ndarray:
        """Make of the crops of a stretch of a clip what the model takes.

        Args:
            crops: of each sampled frame, (H, W) uint8 or None, at least one; fewer than T are
                padded as in training.

        Returns:
            (T, image_px, image_px) uint8, with channels last in memory.
        """
        num_images = self.recipe.settings.num_images
        return model_images(
            stack_crops(crops, num_images),
            own_crops(crops, num_images),
            self.recipe.step,
            self.recipe.image_px,
        )

    def landmarks(self, points: Sequence[np.ndarray | None]) -> np.ndarray:
        """Make of the landmarks of a stretch of a clip what a model takes beside `images`.

        Args:
            points: of each sampled frame, (468, 3) float32 or None, at least one; fewer than T are
                padded as in training.

        Returns:
            (T, 468, 3) float32.
        """
        num_images = self.recipe.settings.num_images
        return model_landmarks(
            stack_crops(points, num_images), own_crops(points, num_images), self.recipe.step
        )

    def probabilities(
        self, crops: Sequence[np.ndarray | None], points: Sequence[np.ndarray | None]
    ) -> Probabilities | None:
        """Ask the model about a stretch of a clip.

        Args:
            crops: see `images`.
            points: see `landmarks`; for a model that takes them.

        Returns:
            Calibrated; None where too few frames show a face.
        """
        found = sum(crop is not None for crop in crops)
        if not self.recipe.settings.enough_faces(found, len(crops)):
            return None
        scaled = (self._logits(crops, points) + self._shift) / self.recipe.temperature
        odds = np.exp(scaled - scaled.max())
        return dict(zip(self.labels, (odds / odds.sum()).tolist(), strict=True))

    def _logits(
        self, crops: Sequence[np.ndarray | None], points: Sequence[np.ndarray | None]
    ) -> np.ndarray:
        """Give the model's logits, (C,) float64, for a stretch of a clip; see `probabilities`."""
        takes_landmarks = self.recipe.inputs == "landmarks"
        inputs = self.landmarks(points) if takes_landmarks else self.images(crops)
        return self.runtime.classify(inputs[None])[0].astype(np.float64)

    def _recognize(self, segment: Segment) -> RecognizedSegment:
        """Ask the model about a segment, if it would have made a stack."""
        unanswered = self._unanswered(segment)
        if unanswered.reason:
            return unanswered
        return replace(
            unanswered, probabilities=self.probabilities(segment.crops, segment.landmarks)
        )

    def _unanswered(self, segment: Segment) -> RecognizedSegment:
        """Say what is known of a segment without the model, and why it would make no stack."""
        settings = self.recipe.settings
        reason = ""
        if unfit(segment, settings):
            reason = f"a face in only {segment.face_frames} of {len(segment.crops)} sampled frames"
            if segment.num_frames < settings.min_frames:
                reason = f"{segment.num_frames} frames, fewer than {settings.min_frames}"
        return RecognizedSegment(
            segment.first_frame,
            segment.num_frames,
            None,
            number=segment.number,
            num_faces=segment.num_faces,
            face_frames=segment.face_frames,
            reason=reason,
        )

    def _reasons(self, segments: Sequence[RecognizedSegment]) -> list[str]:
        """Say what may surprise in an answer, or why there is none."""
        reasons = []
        if not any(s.face_frames for s in segments):
            reasons.append("no face")
        elif not any(s.probabilities for s in segments):
            first = next(s for s in segments if s.face_frames)
            remedy = f" (min_frames={first.num_frames} answers all the same)"
            is_short = first.num_frames < self.recipe.settings.min_frames
            reasons.append(first.reason + remedy * is_short)
        if (most := max(s.num_faces for s in segments)) > 1:
            reasons.append(f"{most} faces at once, of which one was followed")
        return reasons


def found_faces(segment: Segment, interval: int) -> list[FoundFace]:
    """List the faces of a segment's sampled frames."""
    return [
        FoundFace(frame, box, float(cv2.Laplacian(crop, cv2.CV_64F).var()))
        for frame, crop, box in zip(
            count(segment.first_frame, interval), segment.crops, segment.boxes, strict=False
        )
        if crop is not None
    ]


def mean(answers: Sequence[Probabilities]) -> Probabilities | None:
    """Average the probabilities of segments; None where there are none."""
    if not answers:
        return None
    return {label: fmean(answer[label] for answer in answers) for label in answers[0]}
