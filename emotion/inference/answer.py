"""The answer of a model for a clip, and how it is written to files and to the terminal."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from emotion.errors import UserError
from emotion.escape import for_terminal
from emotion.evaluation.predictions import PROBABILITY
from emotion.evaluation.reasons import Reason
from emotion.stacks.face_crop import Box
from emotion.tables import write_table

if TYPE_CHECKING:
    import pandas

Probabilities = Mapping[str, float]  # label -> calibrated probability; they sum to 1
DIGITS = 6  # of probabilities in files
SEGMENT_KEYS = ("number", "num_frames", "num_faces", "face_frames", "reason")  # in JSON
MAX_CLIPS = 40  # in the terminal's table; the files list all clips


@dataclass(frozen=True)
class SampledFace:
    """The face of the followed person in a sampled frame."""

    frame: int
    box: Box  # where the crop was cut out
    sharpness: float  # variance of the crop's Laplacian
    blendshapes: tuple[float, ...]  # in the order of `BLENDSHAPES`


@dataclass(frozen=True)
class Window:
    """A part of a clip that the model classified as one stack."""

    first_frame: int  # its number in the clip
    num_frames: int
    probabilities: Probabilities | None  # None if too few frames show a face

    @property
    def stop_frame(self) -> int:
        """The number of the first frame after the window."""
        return self.first_frame + self.num_frames

    @property
    def middle(self) -> float:
        """The position of the window's center, in frames."""
        return self.first_frame + (self.num_frames - 1) / 2

    @property
    def label(self) -> str | None:
        """The most probable label, or None."""
        return top_label(self.probabilities)


@dataclass(frozen=True)
class SegmentAnswer(Window):
    """A segment, cut as in training."""

    number: int  # counted from 1 in the clip
    num_faces: int  # the largest number of faces in one frame
    face_frames: int  # number of sampled frames that show the person's face
    reason: str = ""  # why there are no probabilities
    features: tuple[float, ...] | None = None  # see `Answer.features`


@dataclass(frozen=True)
class Answer:
    """The answer of a model for a clip."""

    clip: str
    label: str | None = None  # the most probable emotion; None if no segment could be classified
    probabilities: Probabilities | None = None  # mean over the classified segments, or None
    unsure: bool = False  # whether the top probability is below the threshold
    segments: Sequence[SegmentAnswer] = ()  # with and without probabilities
    num_faces: int = 0  # the largest number of faces in one frame
    reasons: Sequence[str] = ()  # why there is no label, or why the label may be wrong
    failed: bool = False  # whether the file could not be read
    runner_up: str | None = None  # the second most probable emotion
    why: Sequence[Reason] = ()  # what decided for the label against the runner-up, largest first
    # D numbers, from which a person is learned: mean of the segments; None if the model cannot
    features: tuple[float, ...] | None = None
    fps: float = 0.0  # 30 with `sampling.by=time`
    num_frames: int = 0
    windows: Sequence[Window] = ()  # one every `stride` frames, if a stride was given
    faces: Sequence[SampledFace] = ()  # one for each sampled frame that shows the person's face

    def seconds(self, frame: float) -> float:
        """Convert a frame number to seconds from the start of the clip."""
        return round(frame / self.fps, 3)

    def times(self, part: Window) -> dict[str, float]:
        """Return when a part of the clip starts and stops."""
        return {"start_s": self.seconds(part.first_frame), "stop_s": self.seconds(part.stop_frame)}

    def to_json(self) -> str:
        """Return `to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the faces and features, in plain types."""

        def values_of(window: Window, *keys: str) -> dict[str, Any]:
            values = self.times(window) | {key: getattr(window, key) for key in ("label", *keys)}
            return values | {"probabilities": rounded(window.probabilities)}

        keys = ("clip", "label", "unsure", "num_faces", "reasons", "failed", "fps", "num_frames")
        return {key: getattr(self, key) for key in keys} | {
            "probabilities": rounded(self.probabilities),
            "runner_up": self.runner_up,
            "why": [
                {"movement": reason.words, "contribution": round(reason.contribution, DIGITS)}
                for reason in self.why
            ],
            "segments": [values_of(segment, *SEGMENT_KEYS) for segment in self.segments],
            "windows": [values_of(window) for window in self.windows],
        }


def top_label(probabilities: Probabilities | None) -> str | None:
    """Return the most probable label, the first of equals; None without probabilities."""
    return top_labels(probabilities)[0]


def top_labels(probabilities: Probabilities | None) -> tuple[str | None, str | None]:
    """Return the most probable label and the runner-up; None and None without probabilities."""
    first, second, *_ = [*ranked(probabilities or {}), None, None]
    return first, second


def ranked(probabilities: Probabilities) -> list[str]:
    """Return the labels, the most probable one first; of equals, the one that is listed first."""
    return sorted(probabilities, key=probabilities.__getitem__, reverse=True)


def summary(probabilities: Probabilities | None, unsure_below: float) -> str:
    """Summarize probabilities in a few words.

    >>> summary({"Happy": 0.8, "Sad": 0.2}, 0.5), summary({"Happy": 0.4, "Sad": 0.3}, 0.5)
    ('Happy 80%', 'unsure (Happy 40%)')
    >>> summary(None, 0.5)
    'no face'
    """
    if not probabilities:
        return "no face"
    label = ranked(probabilities)[0]
    text = f"{label} {probabilities[label]:.0%}"
    return text if probabilities[label] >= unsure_below else f"unsure ({text})"


def in_words(why: Sequence[Reason]) -> str:
    """List what decided for an emotion.

    >>> in_words([Reason("mouth corners up", 2.0), Reason("eyes narrowed", 0.5)])
    'mouth corners up, eyes narrowed'
    """
    return ", ".join(reason.words for reason in why)


def rounded(probabilities: Probabilities | None) -> dict[str, float] | None:
    """Round probabilities for a file."""
    if probabilities is None:
        return None
    return {label: round(p, DIGITS) for label, p in probabilities.items()}


@contextmanager
def json_lines(path: Path) -> Iterator[Callable[["Answer"], None]]:
    """Yield a function that writes the answer of a clip to a file at once, as a line of JSON."""
    # a surrogate, which stands for a byte of a name that is not UTF-8, is an escape of JSON then
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            yield lambda answer: print(answer.to_json(), file=file, flush=True)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_csv(path: Path, answers: Iterable[Answer], labels: Sequence[str]) -> None:
    """Write one row per clip, followed by one row per segment, atomically."""
    columns = ["clip", "level", "segment", "start_s", "stop_s", "label", "unsure", "num_faces"]
    columns += [PROBABILITY + label for label in labels] + ["reason"]
    rows = []
    for answer in answers:
        whole: dict[str, Any] = {
            "level": "clip",
            "unsure": answer.unsure,
            "reason": "; ".join(answer.reasons),
        }
        if answer.fps:
            whole |= {"start_s": 0.0, "stop_s": answer.seconds(answer.num_frames)}
        parts: list[tuple[Answer | SegmentAnswer, dict[str, Any]]] = [(answer, whole)]
        for segment in answer.segments:
            values = {"level": "segment", "segment": segment.number, "reason": segment.reason}
            parts.append((segment, values | answer.times(segment)))
        for part, values in parts:
            values |= {
                "clip": for_terminal(answer.clip),
                "label": part.label,
                "num_faces": part.num_faces,
            }
            probabilities = rounded(part.probabilities) or {}
            rows.append(values | {PROBABILITY + label: p for label, p in probabilities.items()})
    write_table(path, columns, rows)


def to_dataframe(answers: Iterable[Answer]) -> "pandas.DataFrame":
    """Put answers into a table, one row per clip.

    Returns:
        The columns `clip`, `label`, `runner_up`, `unsure`, `num_faces`, `num_frames`, `fps` and
        `failed`, the probability `p_<class>` of every class, `why` and `reason` in words. What a
        clip does not have is missing (NaN or None).

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError("a table of answers needs pandas: pip install pandas") from None
    keys = "clip", "label", "runner_up", "unsure", "num_faces", "num_frames", "fps", "failed"
    rows = [
        {key: getattr(answer, key) for key in keys}
        | {PROBABILITY + label: p for label, p in (answer.probabilities or {}).items()}
        | {"why": in_words(answer.why), "reason": "; ".join(answer.reasons)}
        for answer in answers
    ]
    return pandas.DataFrame(rows, columns=None if rows else list(keys))


def shown(text: str) -> str:
    """Escape a foreign text for the terminal and for Rich."""
    return escape(for_terminal(text))


def answers_table(answers: Sequence[Answer], names: Sequence[str], labels: Sequence[str]) -> Table:
    """Make the terminal's table of the first 40 clips, and of segments if there are several."""
    table = Table("clip", "emotion", *map(shown, labels), "note")
    table.columns[0].overflow = "fold"
    for column in table.columns[2:-1]:
        column.justify, column.no_wrap = "right", True

    def percents(probabilities: Probabilities | None) -> list[str]:
        return [f"{probabilities[label]:.0%}" if probabilities else "" for label in labels]

    for answer, name in list(zip(answers, names, strict=True))[:MAX_CLIPS]:
        emotion = "[red]failed[/red]" if answer.failed else shown(answer.label or "-")
        if answer.unsure:
            emotion = f"unsure ({emotion}?)"
        notes = shown("; ".join([in_words(answer.why), *answer.reasons]).removeprefix("; "))
        table.add_row(shown(name), emotion, *percents(answer.probabilities), notes)
        if answer.label is None or len(answer.segments) < 2:
            continue
        for part in answer.segments:
            times = "  {start_s:.1f} to {stop_s:.1f} s".format(**answer.times(part))
            cells = percents(part.probabilities)
            table.add_row(times, shown(part.label or "-"), *cells, part.reason, style="dim")
    return table
