"""What a model says of a clip: an emotion, how probable each one is, and why if it says none."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from emotion.evaluation.predictions import PROBABILITY
from emotion.files import unfinished
from emotion.stacks.segment import Box
from emotion.tables import write_table

Probabilities = Mapping[str, float]  # of each label, 0 to 1, calibrated; they add up to 1
DIGITS = 6  # of probabilities in files
MAX_CLIPS = 40  # on the terminal; all are in the files


@dataclass(frozen=True)
class FoundFace:
    """The person's face in a sampled frame.

    Attributes:
        frame: its number.
        box: where the crop was cut out.
        sharpness: variance of the crop's Laplacian; the more, the sharper.
    """

    frame: int
    box: Box
    sharpness: float


@dataclass(frozen=True)
class Window:
    """A stretch of a clip that the model has seen as one stack.

    Attributes:
        first_frame: its number in the clip.
        num_frames: in it.
        probabilities: of each label, or None where too few frames show a face.
    """

    first_frame: int
    num_frames: int
    probabilities: Probabilities | None

    @property
    def middle(self) -> float:
        """The frame, or half-way between two, that it stands for."""
        return self.first_frame + (self.num_frames - 1) / 2

    @property
    def label(self) -> str | None:
        """The most probable label; None where there is no answer."""
        return top_label(self.probabilities)


@dataclass(frozen=True)
class RecognizedSegment(Window):
    """A segment, cut as in training.

    Attributes:
        number: counted from 1 in the clip.
        num_faces: the most that were seen at once.
        face_frames: sampled frames that show the person's face.
        reason: why there is no answer; "" where there is one.
    """

    number: int
    num_faces: int
    face_frames: int
    reason: str = ""


@dataclass(frozen=True)
class Recognition:
    """What a model says of a clip.

    Attributes:
        clip: the file.
        label: the most probable emotion; None where there is no answer.
        probabilities: of each label, the mean over the segments that have an answer; or None.
        unsure: whether the top probability is too low to rely on the label.
        segments: all of the clip's, those without an answer too.
        num_faces: the most that were seen at once.
        reasons: whatever may surprise: why there is no answer, or a doubtful one.
        failed: whether the file could not be read.
        fps: frames a second; with `sampling.by=time` frames are moments, 30 a second.
        num_frames: of the clip.
        windows: answers over the clip, one every `stride` frames, if they were asked for.
        faces: where the person's face was found.
    """

    clip: str
    label: str | None = None
    probabilities: Probabilities | None = None
    unsure: bool = False
    segments: Sequence[RecognizedSegment] = ()
    num_faces: int = 0
    reasons: Sequence[str] = ()
    failed: bool = False
    fps: float = 0.0
    num_frames: int = 0
    windows: Sequence[Window] = ()
    faces: Sequence[FoundFace] = ()

    def seconds(self, frame: float) -> float:
        """Say when a frame is shown, in seconds from the clip's start."""
        return round(frame / self.fps, 3)

    def to_json(self) -> str:
        """Write all but the faces as one line of JSON."""
        answer = {
            "clip": self.clip,
            "label": self.label,
            "unsure": self.unsure,
            "probabilities": rounded(self.probabilities),
            "num_faces": self.num_faces,
            "reasons": list(self.reasons),
            "failed": self.failed,
            "fps": self.fps,
            "num_frames": self.num_frames,
            "segments": [
                {
                    "number": segment.number,
                    "start_s": self.seconds(segment.first_frame),
                    "stop_s": self.seconds(segment.first_frame + segment.num_frames),
                    "num_frames": segment.num_frames,
                    "num_faces": segment.num_faces,
                    "face_frames": segment.face_frames,
                    "label": segment.label,
                    "probabilities": rounded(segment.probabilities),
                    "reason": segment.reason,
                }
                for segment in self.segments
            ],
            "windows": [
                {
                    "start_s": self.seconds(window.first_frame),
                    "stop_s": self.seconds(window.first_frame + window.num_frames),
                    "label": window.label,
                    "probabilities": rounded(window.probabilities),
                }
                for window in self.windows
            ],
        }
        return json.dumps(answer, ensure_ascii=False, allow_nan=False)


def top_label(probabilities: Probabilities | None) -> str | None:
    """Name the most probable label; the first of equals."""
    return max(probabilities, key=probabilities.__getitem__) if probabilities else None


def verdict(probabilities: Probabilities | None, unsure_below: float) -> str:
    """Say in a few words what probabilities come to.

    >>> verdict({"Happy": 0.8, "Sad": 0.2}, 0.5), verdict({"Happy": 0.4, "Sad": 0.3}, 0.5)
    ('Happy 80%', 'unsure (Happy 40%)')
    >>> verdict(None, 0.5)
    'no face'
    """
    if not probabilities:
        return "no face"
    label = top_label(probabilities)
    told = f"{label} {probabilities[label]:.0%}"
    return told if probabilities[label] >= unsure_below else f"unsure ({told})"


def rounded(probabilities: Probabilities | None) -> dict[str, float] | None:
    """Round probabilities for a file."""
    return probabilities and {k: round(v, DIGITS) for k, v in probabilities.items()}


def write_json_lines(path: Path, recognitions: Iterable[Recognition]) -> None:
    """Write a line of JSON for each clip, whole or not at all."""
    with unfinished(path) as temporary:
        lines = (recognition.to_json() + "\n" for recognition in recognitions)
        temporary.write_text("".join(lines), encoding="utf-8")


def write_csv(path: Path, recognitions: Iterable[Recognition], labels: Sequence[str]) -> None:
    """Write a row for each clip, segment 0, and below it one for each of its segments.

    Args:
        path: the file; written whole or not at all.
        recognitions: of the clips.
        labels: of the model.
    """
    columns = ["clip", "segment", "start_s", "stop_s", "label", "unsure", "num_faces"]
    columns += [PROBABILITY + label for label in labels] + ["reason"]
    rows = []
    for clip in recognitions:
        whole = {"segment": 0, "unsure": clip.unsure, "reason": "; ".join(clip.reasons)}
        if clip.fps:
            whole |= {"start_s": 0.0, "stop_s": clip.seconds(clip.num_frames)}
        parts = [(clip, whole)]
        for segment in clip.segments:
            stop = segment.first_frame + segment.num_frames
            times = {"start_s": clip.seconds(segment.first_frame), "stop_s": clip.seconds(stop)}
            parts.append((segment, {"segment": segment.number, "reason": segment.reason, **times}))
        for part, facts in parts:
            probabilities = rounded(part.probabilities) or {}
            rows.append(
                {
                    "clip": clip.clip,
                    "label": part.label,
                    "num_faces": part.num_faces,
                    **{PROBABILITY + label: p for label, p in probabilities.items()},
                    **facts,
                }
            )
    write_table(path, columns, rows)


def answers_table(
    recognitions: Sequence[Recognition], names: Sequence[str], labels: Sequence[str]
) -> Table:
    """Draw up what a person reads: a row a clip, and a row a segment where there are several.

    Args:
        recognitions: of the clips; the first 40 are shown.
        names: how to call each of them.
        labels: of the model.
    """
    table = Table("clip", "emotion", *labels, "note")
    table.columns[0].overflow = "fold"
    for column in table.columns[2:-1]:
        column.justify, column.no_wrap = "right", True
    for clip, name in list(zip(recognitions, names, strict=True))[:MAX_CLIPS]:
        emotion = "[red]failed[/red]" if clip.failed else clip.label or "-"
        if clip.unsure:
            emotion = f"unsure ({clip.label}?)"
        table.add_row(name, emotion, *percents(clip.probabilities, labels), "; ".join(clip.reasons))
        if clip.label is None or len(clip.segments) < 2:
            continue
        for part in clip.segments:
            start, stop = (
                part.first_frame / clip.fps,
                (part.first_frame + part.num_frames) / clip.fps,
            )
            table.add_row(
                f"  {start:.1f} to {stop:.1f} s",
                part.label or "-",
                *percents(part.probabilities, labels),
                part.reason,
                style="dim",
            )
    return table


def percents(probabilities: Probabilities | None, labels: Sequence[str]) -> list[str]:
    """Write probabilities in %, in the order of the labels; nothing where there are none."""
    return [f"{probabilities[label]:.0%}" if probabilities else "" for label in labels]
