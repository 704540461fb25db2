"""Predict emotions in clips with a trained model.

A clip is cut, cropped and stacked by the functions that made the training stacks, with the
settings in the model's recipe, so that the model gets the input that it was trained on.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import count
from multiprocessing import parent_process
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.clips.frames import Frames
from emotion.clips.read_ahead import ReadAhead
from emotion.clips.still import Still
from emotion.clips.video import Video
from emotion.errors import DamagedFile, UserError
from emotion.evaluation.predictions import mean_of_stacks
from emotion.evaluation.reasons import Reason
from emotion.files import file_digest
from emotion.inference.answer import (
    Answer,
    Probabilities,
    SampledFace,
    SegmentAnswer,
    Window,
    top_labels,
)
from emotion.inference.backends import Backend, StarterBackend, find_model, load_model
from emotion.inference.judge import Judge, Verdict, threshold
from emotion.inference.profile import Profile, change_profile
from emotion.models.person_model import PersonModel
from emotion.models.recipe import Recipe
from emotion.models.temperature import calibrate
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
        unsure_below: a clip with a lower top probability is `unsure`; None as set in training, and
            at most 0.5 if the person is known.
        face_model: the file of the face model; None to look for it, see `find_face_model`.
        person: the file of the person's profile, which `observe` and `forget` write; None for
            none. It need not exist yet.
    """

    backend: Backend
    recipe: Recipe
    _: KW_ONLY
    min_frames: int | None = None
    unsure_below: float | None = None
    face_model: str | PathLike[str] | None = None
    person: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Check the values and replace None by the recipe's."""
        self.settings, longest = self.recipe.settings, self.recipe.settings.segment_frames
        if self.min_frames is not None:
            if not 1 <= self.min_frames <= longest:
                raise UserError(f"min_frames must be 1 to {longest}, got {self.min_frames}")
            self.settings = replace(self.settings, min_frames=self.min_frames)
        if self.unsure_below is not None and not 0 <= self.unsure_below <= 1:
            raise UserError(f"unsure_below must be 0 to 1, got {self.unsure_below}")
        trained, given = self.recipe.unsure_below, self.unsure_below
        self.person_model = self.backend.person_model
        if self.person_model is not None:
            unsure_below = threshold(trained, given, knows_person=True)
            explains = "blendshapes" in PARTS.get(self.recipe.inputs, ())
            self._judge = Judge(self.recipe.labels, self.person_model, unsure_below, explains)
            self._begin_profile(self.person_model.fingerprint)
        elif self.person is not None:
            self._learner()
        self.unsure_below = threshold(trained, given, knows_person=self._knows)

    def _begin_profile(self, model: str) -> None:
        profile = Profile(model=model, labels=self.recipe.labels)
        if self.person is not None:
            self.person = Path(self.person).expanduser()
            if self.person.exists():
                profile = Profile.read(self.person, model)
        self.profile = profile

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, num_threads: int = 1, **options: Any
    ) -> "EmotionRecognizer":
        """Load a trained model.

        Args:
            path: the folder of a run, its checkpoint, an ONNX file, or `starter`.
            num_threads: threads of the network. More than one helps the larger models, on
                otherwise idle cores.
            options: `min_frames`, `unsure_below`, `face_model` and `person`, see the class.

        Raises:
            UserError: there is no model or no face model, it or the profile is damaged or foreign,
                or a value is out of range.
        """
        backend, recipe = load_model(find_model(Path(path)), num_threads)
        for change in recipe.changed_packages():
            log.warning("warning: %s, which the model was trained with: crops may differ", change)
        find_face_model(options.get("face_model"))
        return cls(backend, recipe, **options)

    @property
    def profile(self) -> Profile:
        """What is known of the person whose clips are predicted; it can be set.

        Raises:
            UserError: the model cannot learn a person.
        """
        self._learner()
        return self._profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        person_model = self._learner()
        if profile.model != person_model.fingerprint:
            raise UserError("the profile was learned with another model")
        kept = profile.clips.values()
        if any(len(each.features) != len(person_model.center) for each in kept):
            raise DamagedFile("the profile is damaged: its features are not those of the model")
        self._profile = profile
        self._person = self._judge.person(
            [each.features for each in kept], [each.label for each in kept]
        )

    def _learner(self) -> PersonModel:
        if self.person_model is None:
            raise UserError(
                f"person: {self.recipe.title} cannot learn a person: it needs a model that is not "
                "int8, trained on clips of at least three known subjects"
            )
        return self.person_model

    def observe(self, clip: str | PathLike[str], label: str | None = None) -> None:
        """Learn from a clip of the person, and write their file if there is one.

        Args:
            clip: a video file, or a picture.
            label: its emotion; None if it is unknown. A known one is kept then.

        Raises:
            UserError: the model cannot learn a person, the label is none of the model's, or the
                clip has no face.
            VideoError: the clip cannot be read.
        """
        self._learner()
        clip_id = file_digest(Path(clip))
        known = self._profile.clips.get(clip_id)
        features = known.features if known else self.predict(clip).features
        if features is None:
            raise UserError(f"{clip} cannot be observed: it has no segment with enough faces")
        self._change(lambda profile: profile.observe(clip_id, features, label))

    def forget(self, clip: str | PathLike[str]) -> None:
        """Forget a clip of the person, and write their file if there is one."""
        self._learner()
        clip_id = file_digest(Path(clip))
        self._change(lambda profile: profile.forget(clip_id))

    def _change(self, change: Callable[[Profile], Profile]) -> None:
        file = None if self.person is None else Path(self.person)
        self.profile = change_profile(file, self._profile, change)

    @property
    def person_judge(self) -> Judge:
        """The person model with its labels and threshold; raises as `profile`."""
        self._learner()
        return self._judge

    def judge(self, features: Sequence[float]) -> Verdict:
        """Judge the (D,) features of a clip, see `Answer.features`, with what is known now."""
        return self.person_judge.verdict(self._person, np.array(features))

    def _segments(self, video: Video | Still | Frames) -> Iterator[Segment]:
        settings = self.settings
        # workers already use all cores, and the frames of a program are its own affair
        is_read_here = parent_process() is not None or isinstance(video, Frames)
        return crop_segments(
            video if is_read_here else ReadAhead(video),
            face_cropper(settings, None if self.face_model is None else fspath(self.face_model)),
            settings.segment_frames,
            settings.interval,
            settings.by,
            settings.start,
        )

    def predict(
        self,
        clip: str | PathLike[str] | Iterable[NDArray[Any]],
        stride: int | None = None,
        *,
        fps: float | None = None,
    ) -> Answer:
        """Predict the emotion in a clip.

        Args:
            clip: a video file, or a picture; or upright frames in order, (H, W, 3) uint8 RGB
                arrays.
            stride: frames from one window to the next, for predictions over time; a multiple of
                the cached interval. None for no windows.
            fps: frames per second of the arrays; a file has its own.

        Raises:
            UserError: the stride, the frame rate or a frame is not allowed.
            VideoError: the clip cannot be read.
        """
        settings = self.settings
        self.check_stride(stride)
        name = "frames"
        video: Video | Still | Frames
        if isinstance(clip, str | PathLike):
            if fps is not None:
                raise UserError("fps is the frame rate of arrays; a file has its own")
            name, video = str(clip), open_sampled(Path(clip), settings)
        else:
            if fps is None:
                raise UserError("arrays need a frame rate: predict(arrays, fps=30)")
            video = Frames(clip, fps)
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
        features = mean_features(segments)
        probabilities = self._whole(segments, features)
        label, runner_up = top_labels(probabilities)
        return Answer(
            clip=name,
            label=label,
            runner_up=runner_up,
            probabilities=probabilities,
            unsure=probabilities is not None and max(probabilities.values()) < self._threshold,
            why=self._why(label, runner_up, features),
            features=features,
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
        return self._judged(*self._describe(faces))

    def _describe(self, faces: Faces) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return (C,) logits and (D,) features; None without a person model."""
        num_images, step, recipe = self.settings.num_images, self.recipe.step, self.recipe
        is_own = own_crops(faces, num_images)
        filled = fill_gaps(faces, num_images)
        if recipe.inputs == "stacks":
            stack = np.stack([face.crop for face in filled])
            inputs = model_images(stack, is_own, step, recipe.image_px)
        else:
            parts = ([getattr(face, part) for face in filled] for part in PARTS[recipe.inputs])
            inputs = join_parts([np.stack(part) for part in parts])[take_images(is_own, step)]
        if self.person_model is None:
            return self.backend.classify(inputs[None])[0].astype(np.float64), None
        logits, features = self.backend.describe(inputs[None])
        return logits[0].astype(np.float64), features[0]

    @property
    def _knows(self) -> bool:
        """Whether the person model answers; a trained model without a person answers as trained.

        With a person's file it answers from the first clip on, although nothing is known yet, so
        that answers change with what is observed alone.
        """
        return self.person_model is not None and (
            self.person is not None
            or bool(self._profile.clips)
            or isinstance(self.backend, StarterBackend)
        )

    @property
    def _threshold(self) -> float:
        return self._judge.unsure_below if self._knows else self.unsure_below or 0.0

    def _judged(
        self, logits: NDArray[np.float64], features: NDArray[np.float64] | None
    ) -> Probabilities:
        if self._knows and features is not None:
            return self._judge.probabilities(self._person, features[None])[0]
        return self._by_label(calibrate(logits[None], self.recipe.temperature)[0])

    def _whole(
        self, segments: Sequence[SegmentAnswer], features: Sequence[float] | None
    ) -> Probabilities | None:
        """Judge a clip by its segments: by their mean features, or mean probabilities."""
        of_stacks = [list(s.probabilities.values()) for s in segments if s.probabilities]
        if not of_stacks:
            return None
        if self._knows and features is not None:
            return self.judge(features).probabilities
        return self._by_label(mean_of_stacks(np.array(of_stacks)))

    def _why(
        self, label: str | None, other: str | None, features: Sequence[float] | None
    ) -> Sequence[Reason]:
        """Name what decided for a label against the runner-up."""
        if label is None or other is None or features is None:
            return ()
        return self._judge.why(self._person, np.array(features), label, other)

    def _by_label(self, probabilities: NDArray[np.float64]) -> Probabilities:
        return dict(zip(self.recipe.labels, probabilities.tolist(), strict=True))

    def _classify(self, segment: Segment) -> SegmentAnswer:
        """Classify a segment, or give the reason why it would make no training stack."""
        flaw = unfit(segment, self.settings)
        probabilities = features = None
        if not flaw:
            logits, features = self._describe(segment.faces)
            probabilities = self._judged(logits, features)
        return SegmentAnswer(
            segment.first_frame,
            segment.num_frames,
            probabilities,
            segment.number,
            segment.num_faces,
            segment.face_frames,
            ", ".join(flaw or ()),
            None if features is None else tuple(features.tolist()),
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


def mean_features(segments: Sequence[SegmentAnswer]) -> tuple[float, ...] | None:
    """Return the mean features of the classified segments of a clip, None if there are none."""
    rows = [segment.features for segment in segments if segment.features is not None]
    return tuple(np.mean(rows, axis=0).tolist()) if rows else None


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
