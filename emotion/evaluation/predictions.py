"""Class probabilities of stacks and clips, beside the true classes.

`predictions.csv` of a run holds the UNCALIBRATED probabilities of its stacks, one row each; the
temperature is in the run's `metrics.json`. A clip's probabilities are the mean of the CALIBRATED
probabilities of its stacks: `Predictions.read(path).calibrated(temperature).of_clips()`. Reports
and inference share `calibrate` and `mean_of_stacks`, so that they give a clip the same answer.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.stacks.manifest import StackRow
from emotion.tables import read_table, write_table

PREDICTIONS_FILE = "predictions.csv"
PROBABILITY = "p_"  # prefix of the columns of probabilities, before the class
TINY = float(np.finfo(np.float32).smallest_subnormal)  # lower bound of a probability's logarithm


def calibrate(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Turn (N, C) logits, or log-probabilities, into (N, C) float64 calibrated probabilities."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean_of_stacks(probabilities: np.ndarray) -> np.ndarray:
    """Average the (S, C) calibrated probabilities of a clip's stacks: (C,) float64."""
    return np.mean(probabilities, axis=0, dtype=np.float64)


@dataclass(frozen=True)
class Predictions:
    """Predictions for N stacks, or for N clips.

    Probabilities are float32 as the model gave them, and float64 once calibrated, so that a high
    temperature makes no ties. The largest of a row is the predicted class.
    """

    labels: list[str]  # the C classes, in the order of their indices
    splits: list[str]  # `val` or `test`
    clips: list[str]  # ids
    segments: list[int]  # counted from 1 in the clip; 0 stands for the whole clip
    subjects: list[str]  # "" where the subject is unknown
    targets: np.ndarray  # (N,) int64, index of the true class
    probabilities: np.ndarray  # (N, C), 0 to 1

    def __post_init__(self) -> None:
        """Check that everything has N rows."""
        num = len(self.clips)
        assert num == len(self.splits) == len(self.segments) == len(self.subjects)
        assert self.targets.shape == (num,)
        assert self.probabilities.shape == (num, len(self.labels))

    def __len__(self) -> int:
        """Return N."""
        return len(self.clips)

    @classmethod
    def of_rows(
        cls, rows: Sequence[StackRow], labels: Sequence[str], probabilities: np.ndarray
    ) -> "Predictions":
        """Combine N rows of a manifest, with their splits, and their (N, C) probabilities."""
        labels = list(labels)
        return cls(
            labels,
            splits=[row.split for row in rows],
            clips=[row.clip for row in rows],
            segments=[row.segment for row in rows],
            subjects=[row.subject for row in rows],
            targets=np.array([labels.index(row.label) for row in rows], dtype=np.int64),
            probabilities=probabilities,
        )

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Concatenate the predictions of several splits or folds.

        Raises:
            UserError: a stack is in two of them.
        """
        joined = cls(
            parts[0].labels,
            splits=[split for part in parts for split in part.splits],
            clips=[clip for part in parts for clip in part.clips],
            segments=[segment for part in parts for segment in part.segments],
            subjects=[subject for part in parts for subject in part.subjects],
            targets=np.concatenate([part.targets for part in parts]),
            probabilities=np.concatenate([part.probabilities for part in parts]),
        )
        assert all(part.labels == joined.labels for part in parts)
        stacks = Counter(zip(joined.clips, joined.segments, strict=True))
        for (clip, segment), num in stacks.items():
            if num > 1:
                raise UserError(
                    f"segment {segment} of clip {clip} is predicted in two splits or folds, "
                    "which must come from one split"
                )
        return joined

    def take(self, places: Sequence[int]) -> "Predictions":
        """Return the rows at these indices, in this order."""
        return Predictions(
            self.labels,
            splits=[self.splits[i] for i in places],
            clips=[self.clips[i] for i in places],
            segments=[self.segments[i] for i in places],
            subjects=[self.subjects[i] for i in places],
            targets=self.targets[list(places)],
            probabilities=self.probabilities[list(places)],
        )

    def of_split(self, split: str) -> "Predictions":
        """Return the rows of one split."""
        return self.take([i for i, name in enumerate(self.splits) if name == split])

    @property
    def logits(self) -> np.ndarray:
        """The (N, C) float64 log-probabilities: the logits up to a constant in each row."""
        return np.log(np.maximum(self.probabilities.astype(np.float64), TINY))

    def calibrated(self, temperature: float) -> "Predictions":
        """Divide the logits of uncalibrated predictions of stacks by a temperature."""
        return replace(self, probabilities=calibrate(self.logits, temperature))

    def of_clips(self) -> "Predictions":
        """Average the calibrated stacks of each clip, in the order of the clips' first stacks."""
        places: dict[str, list[int]] = {}
        for place, clip in enumerate(self.clips):
            places.setdefault(clip, []).append(place)
        means = [mean_of_stacks(self.probabilities[of_clip]) for of_clip in places.values()]
        first = self.take([of_clip[0] for of_clip in places.values()])
        shape = (len(places), len(self.labels))
        probabilities = np.array(means, dtype=np.float64).reshape(shape)
        return replace(first, segments=[0] * len(first), probabilities=probabilities)

    def write(self, path: Path) -> None:
        """Write a CSV file atomically, with exact probabilities."""
        columns = ["split", "clip", "segment", "subject", "label", "predicted"]
        columns += [PROBABILITY + label for label in self.labels]
        labels = np.array(self.labels)
        rows = zip(
            *(self.splits, self.clips, self.segments, self.subjects),
            *(labels[self.targets], labels[self.probabilities.argmax(axis=1)]),
            *np.char.mod("%.9g", self.probabilities.T),  # gives a float32 back exactly
            strict=True,
        )
        write_table(path, columns, (dict(zip(columns, row, strict=True)) for row in rows))

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what `write` wrote."""
        if not path.is_file():
            raise UserError(f"{path} is missing: run it again, or move its folder away")
        try:
            rows = read_table(path)
            columns = [name for name in rows[0] if name.startswith(PROBABILITY)]
            labels = [name.removeprefix(PROBABILITY) for name in columns]
            return cls(
                labels,
                splits=[row["split"] for row in rows],
                clips=[row["clip"] for row in rows],
                segments=[int(row["segment"]) for row in rows],
                subjects=[row["subject"] for row in rows],
                targets=np.array([labels.index(row["label"]) for row in rows], dtype=np.int64),
                probabilities=np.array(
                    [[row[name] for name in columns] for row in rows], dtype=np.float32
                ),
            )
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): run it again") from None
