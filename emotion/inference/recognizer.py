"""Predict emotions in clips with a trained model.

A clip is cut, cropped and stacked by the functions that made the training stacks, with the
settings in the model's recipe, so that the model gets the input that it was trained on.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import count
from multiprocessing import parent_process
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emotion.clips.read_ahead import ReadAhead
from emotion.clips.still import Still
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
from emotion.stacks.cutter import face_cropper, one_at_a_time, open_sampled
from emotion.stacks.face_crop import Face
from emotion.stacks.face_model import find_face_model
from emotion.stacks.face_values import PARTS, join_parts
from emotion.stacks.sampling import NOMINAL_FPS
from emotion.stacks.segment import Segment, crop_segments, unfit
from emotion.stacks.stack import fill_gaps, model_images, own_crops, take_images

log = logging.getLogger(__name__)

Faces = Sequence[Face | None]  # of sampled frames


@dataclass(eq=False)
class EmotionRecognizer:
    """Predicts the emotion in clips of faces.

    Attributes:
        backend: runs the network.
        recipe: how the model was trained.
        min_frames: shorter clips and tails are not classified; None as in training.
        unsure_below: a clip with a lower top probability is `unsure`; None as set in training.
        face_model: the file of the face model; None to look for it, see `find_face_model`.
    """

    backend: Backend
    recipe: Recipe
    _: KW_ONLY
    min_frames: int | None = None
    unsure_below: float | None = None
    face_model: str | PathLike | None = None

    def __post_init__(self) -> None:
        """Check the values and replace None by the recipe's."""
        self.settings, longest = self.recipe.settings, self.recipe.settings.segment_frames
        if self.min_frames is not None:
            if not 1 <= self.min_frames <= longest:
                raise UserError(f"min_frames must be 1 to {longest}, got {self.min_frames}")
            self.settings = replace(self.settings, min_frames=self.min_frames)
        if self.unsure_below is None:
            self.unsure_below = self.recipe.unsure_below
        if not 0 <= self.unsure_below <= 1:
            raise UserError(f"unsure_below must be 0 to 1, got {self.unsure_below}")
        self._shift = np.zeros(len(self.recipe.labels))  # (C,), added to logits, see `set_neutral`

    @classmethod
    def load(
        cls, path: str | PathLike, *, num_threads: int = 1, **options: Any
    ) -> "EmotionRecognizer":
        """Load a trained model.

        Args:
            path: the folder of a run, its checkpoint, or an ONNX file.
            num_threads: threads of the network. More than one helps the larger models, on
                otherwise idle cores.
            options: `min_frames`, `unsure_below` and `face_model`, see the class.

        Raises:
            UserError: there is no model or no face model, it is damaged or foreign, or a value is
                out of range.
        """
        backend, recipe = load_model(find_model(Path(path)), num_threads)
        for change in recipe.changed_packages():
            log.warning("warning: %s, which the model was trained with: crops may differ", change)
        find_face_model(options.get("face_model"))
        return cls(backend, recipe, **options)

    def set_neutral(self, clips: Sequence[str | PathLike], share: float = PERSON_SHARE) -> None:
        """Set the neutral clips of the person whose clips are predicted next.

        A share, 0 to 1, of the difference between the mean logits of neutral validation stacks and
        those of the person's neutral clips is added to the logits of all further predictions. Each
        call replaces the last one; a call without clips removes the correction.

        Raises:
            UserError: the model has no neutral baseline, `share` is out of range, or a clip cannot
                be read or has no segment with enough faces.
        """
        if not 0 <= share <= 1:
            raise UserError(f"share must be 0 to 1, got {share}")
        self._shift = np.zeros(len(self.recipe.labels))
        if not clips:
            return
        label = self.recipe.neutral_label
        if label is None:
            raise UserError("neutral: the model has no neutral class (data.neutral_label is null)")
        if not self.recipe.neutral:
            raise UserError(f"neutral: the model's validation split has no stack of class {label}")
        means = []
        for clip in clips:
            try:
                with one_at_a_time:
                    segments = list(self._segments(open_sampled(Path(clip), self.settings)))
            except VideoError as error:
                raise UserError(f"neutral={clip}: {error}") from None
            fit = [segment for segment in segments if not unfit(segment, self.settings)]
            if not fit:
                reasons = self._reasons([self._classify(segment) for segment in segments])
                raise UserError(f"neutral={clip}: {'; '.join(reasons)}")
            logits = [self._logits(segment.faces) for segment in fit]
            means.append(np.mean(logits, axis=0))
        self._shift = share * (np.array(self.recipe.neutral) - np.mean(means, axis=0))

    def _segments(self, video: Video | Still) -> Iterator[Segment]:
        settings = self.settings
        return crop_segments(
            video if parent_process() else ReadAhead(video),  # workers already use all cores
            face_cropper(settings, self.face_model),
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

        Raises:
            UserError: the stride is not allowed.
            VideoError: the clip cannot be read.
        """
        settings = self.settings
        self.check_stride(stride)
        video = open_sampled(Path(clip), settings)
        segments: list[SegmentAnswer] = []
        windows: list[Window] = []
        faces: list[SampledFace] = []
        following = []  # faces from the first frame of the next window on
        with one_at_a_time:
            for segment in self._segments(video):
                segments.append(self._classify(segment))
                faces += sampled_faces(segment, settings.interval)
                if stride is None:
                    continue
                following += segment.faces
                while len(following) >= (length := settings.num_images):
                    begin = segments[0].first_frame + len(windows) * stride
                    probabilities = self.probabilities(following[:length])
                    windows.append(Window(begin, settings.segment_frames, probabilities))
                    del following[: stride // settings.interval]
        if stride is not None and not windows:  # shorter than a window: the padded segments
            windows = [Window(s.first_frame, s.num_frames, s.probabilities) for s in segments]
        of_stacks = [list(s.probabilities.values()) for s in segments if s.probabilities]
        probabilities = self._by_label(mean_of_stacks(np.array(of_stacks))) if of_stacks else None
        return Answer(
            clip=str(clip),
            label=top_label(probabilities),
            probabilities=probabilities,
            unsure=bool(probabilities) and max(probabilities.values()) < self.unsure_below,
            segments=segments,
            num_faces=max(s.num_faces for s in segments),
            reasons=self._reasons(segments),
            fps=NOMINAL_FPS if settings.by == "time" else video.fps,
            num_frames=segments[-1].stop_frame,
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

    def probabilities(self, faces: Faces) -> Probabilities | None:
        """Classify a part of a clip by its sampled frames; None if too few of them show a face."""
        found = sum(face is not None for face in faces)
        if not self.settings.enough_faces(found, len(faces)):
            return None
        logits = self._logits(faces) + self._shift
        return self._by_label(calibrate(logits[None], self.recipe.temperature)[0])

    def _logits(self, faces: Faces) -> np.ndarray:
        num_images, step, recipe = self.settings.num_images, self.recipe.step, self.recipe
        is_own = own_crops(faces, num_images)
        faces = fill_gaps(faces, num_images)
        if recipe.inputs == "stacks":
            stack = np.stack([face.crop for face in faces])
            inputs = model_images(stack, is_own, step, recipe.image_px)
        else:
            parts = ([getattr(face, part) for face in faces] for part in PARTS[recipe.inputs])
            inputs = join_parts([np.stack(part) for part in parts])[take_images(is_own, step)]
        return self.backend.classify(inputs[None])[0].astype(np.float64)  # (C,)

    def _by_label(self, probabilities: np.ndarray) -> Probabilities:
        return dict(zip(self.recipe.labels, probabilities.tolist(), strict=True))

    def _classify(self, segment: Segment) -> SegmentAnswer:
        """Classify a segment, or give the reason why it would make no training stack."""
        flaw = unfit(segment, self.settings)
        return SegmentAnswer(
            segment.first_frame,
            segment.num_frames,
            None if flaw else self.probabilities(segment.faces),
            segment.number,
            segment.num_faces,
            segment.face_frames,
            ", ".join(flaw or ()),
        )

    def _reasons(self, segments: Sequence[SegmentAnswer]) -> list[str]:
        """List why there is no label, or why the label may be wrong."""
        reasons = []
        with_face = [segment for segment in segments if segment.face_frames]
        if not with_face:
            reasons.append("no face")
        elif all(segment.reason for segment in segments):
            num_frames = with_face[0].num_frames
            is_short = num_frames < self.settings.min_frames
            remedy = f" (min_frames={num_frames} predicts it)" if is_short else ""
            reasons.append(with_face[0].reason + remedy)
        if (most := max(segment.num_faces for segment in segments)) > 1:
            reasons.append(f"{most} faces at once, one of them was followed")
        return reasons


def sampled_faces(segment: Segment, interval: int) -> list[SampledFace]:
    """List the faces of a segment's sampled frames."""
    return [
        SampledFace(
            frame,
            face.box,
            float(cv2.Laplacian(face.crop, cv2.CV_64F).var()),
            tuple(face.blendshapes.tolist()),
        )
        for frame, face in zip(count(segment.first_frame, interval), segment.faces)
        if face is not None
    ]
