"""Predict emotions in clips with a trained model.

A clip is cut, cropped and stacked by the functions that made the training stacks, with the
settings in the model's recipe, so that the model gets the input that it was trained on.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from emotion.clips.read_ahead import ReadAhead
from emotion.clips.still import Still, open_clip
from emotion.clips.video import Video, VideoError
from emotion.errors import UserError
from emotion.evaluation.personal import PERSON_SHARE
from emotion.evaluation.predictions import calibrate, mean_of_stacks
from emotion.inference.answer import (
    Answer,
    Probabilities,
    SampledFace,
    SegmentAnswer,
    Window,
    top_label,
)
from emotion.inference.backends import Backend, find_model, load_model
from emotion.models.recipe import Recipe
from emotion.stacks.cutter import face_cropper, one_at_a_time
from emotion.stacks.sampling import NOMINAL_FPS
from emotion.stacks.segment import Segment, crop_segments, unfit
from emotion.stacks.stack import model_images, model_landmarks, own_crops, stack_crops

log = logging.getLogger(__name__)


class EmotionRecognizer:
    """Predicts the emotion in clips of faces.

    Attributes:
        recipe: how the model was trained.
        backend: runs the network.
        settings: how clips are cut and cropped: the recipe's, with another `min_frames` if given.
        unsure_below: threshold of the top probability; a clip below it is `unsure`.
    """

    def __init__(
        self,
        backend: Backend,
        recipe: Recipe,
        *,
        min_frames: int | None = None,
        unsure_below: float | None = None,
        read_ahead: bool = True,
    ) -> None:
        """Use a loaded model; see `load`."""
        settings = recipe.settings
        if min_frames is not None and not 1 <= min_frames <= settings.segment_frames:
            raise UserError(f"min_frames must be 1 to {settings.segment_frames}, got {min_frames}")
        if unsure_below is not None and not 0 <= unsure_below <= 1:
            raise UserError(f"unsure_below must be 0 to 1, got {unsure_below}")
        self.recipe = recipe
        self.backend = backend
        self.settings = replace(settings, min_frames=min_frames or settings.min_frames)
        self.unsure_below = recipe.unsure_below if unsure_below is None else unsure_below
        self._read_ahead = read_ahead
        self._shift = np.zeros(len(recipe.labels))  # (C,), added to logits, see `set_neutral`

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
            min_frames: shorter clips and tails are not classified; None as in training.
            unsure_below: threshold of the top probability; None as set in training.
            read_ahead: decode in a thread of its own.
            num_threads: threads of the network. More than one helps the larger models, on
                otherwise idle cores.

        Raises:
            UserError: there is no model, it is damaged or foreign, or a value is out of range.
        """
        backend, recipe = load_model(find_model(Path(path)), num_threads)
        for change in recipe.changed_packages():
            log.warning("warning: %s, which the model was trained with: crops may differ", change)
        return cls(
            backend,
            recipe,
            min_frames=min_frames,
            unsure_below=unsure_below,
            read_ahead=read_ahead,
        )

    @property
    def labels(self) -> Sequence[str]:
        """The classes, in the order of their indices."""
        return self.recipe.labels

    def set_neutral(self, clips: Sequence[str | PathLike], share: float = PERSON_SHARE) -> None:
        """Set the neutral clips of the person whose clips are predicted next.

        A share of the difference between the mean logits of neutral validation stacks and those of
        the person's neutral clips is added to the logits of all further predictions. Each call
        replaces the last one; a call without clips removes the correction.

        Args:
            clips: neutral clips of this person, a few seconds each; one is enough.
            share: of the difference, 0 to 1. With all of it, the noise of a single clip counts
                fully (docs/results.md).

        Raises:
            UserError: the model has no neutral baseline, `share` is out of range, or a clip cannot
                be read or has no segment with enough faces.
        """
        if not 0 <= share <= 1:
            raise UserError(f"share must be 0 to 1, got {share}")
        self._shift = np.zeros(len(self.labels))
        if not clips:
            return
        label = self.recipe.neutral_label
        if label is None:
            raise UserError("neutral: the model has no neutral class (data.neutral_label is null)")
        if not self.recipe.neutral:
            raise UserError(f"neutral: the model's validation split has no stack of class {label}")
        logits = [self._mean_logits(Path(clip)) for clip in clips]
        self._shift = share * (np.array(self.recipe.neutral) - np.mean(logits, axis=0))

    def _mean_logits(self, clip: Path) -> np.ndarray:
        """Return the mean logits of a neutral clip's segments, (C,) float64.

        Raises:
            UserError: it cannot be read, or has no segment with enough faces.
        """
        try:
            with one_at_a_time:
                segments = list(self._segments(open_clip(clip)))
        except VideoError as error:
            raise UserError(f"neutral={clip}: {error}") from None
        logits = [
            self._logits(segment.crops, segment.landmarks)
            for segment in segments
            if not unfit(segment, self.settings)
        ]
        if not logits:
            reasons = self._reasons([self._unclassified(segment) for segment in segments])
            raise UserError(f"neutral={clip}: {'; '.join(reasons)}")
        return np.mean(logits, axis=0)

    def _segments(self, video: Video | Still) -> Iterator[Segment]:
        """Cut a clip and crop its faces, as for training."""
        settings = self.settings
        return crop_segments(
            ReadAhead(video) if self._read_ahead else video,
            face_cropper(settings),
            settings.segment_frames,
            settings.interval,
            settings.by,
            settings.start,
        )

    def predict(self, clip: str | PathLike, stride: int | None = None) -> Answer:
        """Predict the emotion in a clip.

        Args:
            clip: a video file, or a picture.
            stride: frames from one window to the next, for predictions over time; a multiple of
                the cached interval. None for no windows.

        Returns:
            The answer. If nothing could be classified, `label` is None and `reasons` name the
            cause.

        Raises:
            UserError: the stride is not allowed.
            VideoError: the clip cannot be read.
        """
        settings = self.settings
        self.check_stride(stride)
        video = open_clip(Path(clip))
        segments: list[SegmentAnswer] = []
        windows: list[Window] = []
        faces: list[SampledFace] = []
        crops: list[np.ndarray | None] = []  # from the first frame of the next window on
        landmarks: list[np.ndarray | None] = []
        begin = None
        with one_at_a_time:
            for segment in self._segments(video):
                segments.append(self._classify(segment))
                faces += sampled_faces(segment, settings.interval)
                if stride is None:
                    continue
                begin = segment.first_frame if begin is None else begin
                crops += segment.crops
                landmarks += segment.landmarks
                while len(crops) >= (length := settings.num_images):
                    probabilities = self.probabilities(crops[:length], landmarks[:length])
                    windows.append(Window(begin, settings.segment_frames, probabilities))
                    step = stride // settings.interval
                    del crops[:step], landmarks[:step]
                    begin += stride
        if stride is not None and not windows:  # shorter than a window: the padded segments
            windows = [Window(s.first_frame, s.num_frames, s.probabilities) for s in segments]
        probabilities = self._of_clip(segments)
        return Answer(
            clip=str(clip),
            label=top_label(probabilities),
            probabilities=probabilities,
            unsure=bool(probabilities) and max(probabilities.values()) < self.unsure_below,
            segments=segments,
            num_faces=max(s.num_faces for s in segments),
            reasons=self._reasons(segments),
            fps=NOMINAL_FPS if settings.by == "time" else video.fps,
            num_frames=segments[-1].first_frame + segments[-1].num_frames,
            windows=windows,
            faces=faces,
        )

    def check_stride(self, stride: int | None) -> None:
        """Raise UserError if windows cannot have this stride."""
        interval, longest = self.settings.interval, self.settings.segment_frames
        if stride is not None and (stride % interval or not 0 < stride <= longest):
            raise UserError(
                f"stride must be a multiple of {interval} up to {longest}, got {stride}"
            )

    def inputs(
        self, crops: Sequence[np.ndarray | None], landmarks: Sequence[np.ndarray | None]
    ) -> np.ndarray:
        """Make the model's inputs of a part of a clip.

        Args:
            crops: of each sampled frame, (H, W) uint8 or None, at least one; fewer than T are
                padded as in training.
            landmarks: of the same frames, (468, 3) float32 or None.

        Returns:
            (T, image_px, image_px) uint8 with channels last in memory, or (T, 468, 3) float32.
        """
        num_images, step = self.settings.num_images, self.recipe.step
        is_own = own_crops(crops, num_images)
        if self.recipe.inputs == "landmarks":
            return model_landmarks(stack_crops(landmarks, num_images), is_own, step)
        return model_images(stack_crops(crops, num_images), is_own, step, self.recipe.image_px)

    def probabilities(
        self, crops: Sequence[np.ndarray | None], landmarks: Sequence[np.ndarray | None]
    ) -> Probabilities | None:
        """Classify a part of a clip.

        Args:
            crops: see `inputs`.
            landmarks: see `inputs`.

        Returns:
            Calibrated probabilities; None if too few frames show a face.
        """
        found = sum(crop is not None for crop in crops)
        if not self.settings.enough_faces(found, len(crops)):
            return None
        logits = self._logits(crops, landmarks) + self._shift
        (probabilities,) = calibrate(logits[None], self.recipe.temperature)
        return dict(zip(self.labels, probabilities.tolist(), strict=True))

    def _logits(
        self, crops: Sequence[np.ndarray | None], landmarks: Sequence[np.ndarray | None]
    ) -> np.ndarray:
        """Return the logits of a part of a clip, (C,) float64."""
        inputs = self.inputs(crops, landmarks)[None]  # (1, T, ...)
        return self.backend.classify(inputs)[0].astype(np.float64)

    def _of_clip(self, segments: Sequence[SegmentAnswer]) -> Probabilities | None:
        """Average the probabilities of the classified segments, as reports do for stacks."""
        of_stacks = [list(s.probabilities.values()) for s in segments if s.probabilities]
        if not of_stacks:
            return None
        return dict(zip(self.labels, mean_of_stacks(np.array(of_stacks)).tolist(), strict=True))

    def _classify(self, segment: Segment) -> SegmentAnswer:
        """Classify a segment if it would have made a training stack."""
        answer = self._unclassified(segment)
        if answer.reason:
            return answer
        return replace(answer, probabilities=self.probabilities(segment.crops, segment.landmarks))

    def _unclassified(self, segment: Segment) -> SegmentAnswer:
        """Return a segment's facts, and the reason why it would make no training stack."""
        reason = ""
        if unfit(segment, self.settings):
            reason = f"a face in only {segment.face_frames} of {len(segment.crops)} sampled frames"
            if segment.num_frames < self.settings.min_frames:
                reason = f"{segment.num_frames} frames, fewer than {self.settings.min_frames}"
        return SegmentAnswer(
            segment.first_frame,
            segment.num_frames,
            None,
            number=segment.number,
            num_faces=segment.num_faces,
            face_frames=segment.face_frames,
            reason=reason,
        )

    def _reasons(self, segments: Sequence[SegmentAnswer]) -> list[str]:
        """List why there is no label, or why the label may be wrong."""
        reasons = []
        if not any(s.face_frames for s in segments):
            reasons.append("no face")
        elif all(s.reason for s in segments):
            first = next(s for s in segments if s.face_frames)
            is_short = first.num_frames < self.settings.min_frames
            remedy = f" (min_frames={first.num_frames} predicts it)" if is_short else ""
            reasons.append(first.reason + remedy)
        if (most := max(s.num_faces for s in segments)) > 1:
            reasons.append(f"{most} faces at once, one of them was followed")
        return reasons


def sampled_faces(segment: Segment, interval: int) -> list[SampledFace]:
    """List the faces of a segment's sampled frames."""
    frames = count(segment.first_frame, interval)
    return [
        SampledFace(frame, box, float(cv2.Laplacian(crop, cv2.CV_64F).var()))
        for frame, crop, box in zip(frames, segment.crops, segment.boxes, strict=False)
        if crop is not None
    ]
