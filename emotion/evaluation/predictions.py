"""Class probabilities of stacks and clips, beside the true classes.

`predictions.csv` of a run holds the UNCALIBRATED probabilities of its stacks, one row each; the
temperature is in the run's `metrics.json`. A clip's probabilities are the mean of the CALIBRATED
probabilities of its stacks: `Predictions.read(path).calibrated(temperature).of_clips()`. Reports
and inference share `calibrate` and `mean_of_stacks`, so that they give a clip the same answer.
"""

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
    """Turn logits into calibrated probabilities.

    Args:
        logits: (N, C), up to a constant in each row; log-probabilities are such logits.
        temperature: what they are divided by.

    Returns:
        (N, C) float64, 0 to 1; each row sums to 1.
    """
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean_of_stacks(probabilities: np.ndarray) -> np.ndarray:
    """Average the (S, C) calibrated probabilities of a clip's stacks: (C,) float64."""
    return np.mean(probabilities, axis=0, dtype=np.float64)


@dataclass(frozen=True)
class Predictions:
    """Predictions for N stacks, or for N clips.

    Attributes:
        labels: the C classes, in the order of their indices.
        splits: N names, `val` or `test`.
        clips: N ids.
        segments: N numbers, counted from 1 in the clip; 0 stands for the whole clip.
        subjects: N names, "" where the subject is unknown.
        targets: (N,) int64, index of the true class.
        probabilities: (N, C), 0 to 1; the largest of a row is the predicted class. float32 as the
            model gave them; float64 once calibrated, so that a high temperature makes no ties.
    """

    labels: list[str]
    splits: list[str]
    clips: list[str]
    segments: list[int]
    subjects: list[str]
    targets: np.ndarray
    probabilities: np.ndarray

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
        seen = set()
        for stack in zip(joined.clips, joined.segments, strict=True):
            if stack in seen:
                raise UserError(
                    f"segment {stack[1]} of clip {stack[0]} is predicted in two splits or folds, "
                    "which must come from one split"
                )
            seen.add(stack)
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
        """Average the probabilities of each clip's stacks, which are calibrated before.

        Returns:
            A row for each of the M clips, in the order of their first stacks.
        """
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
        columns = [PROBABILITY + label for label in self.labels]
        rows = (
            {
                "split": self.splits[i],
                "clip": self.clips[i],
                "segment": self.segments[i],
                "subject": self.subjects[i],
                "label": self.labels[self.targets[i]],
                "predicted": self.labels[self.probabilities[i].argmax()],
                # 9 digits give a float32 back exactly
                **dict(zip(columns, map("{:.9g}".format, self.probabilities[i]), strict=True)),
            }
            for i in range(len(self))
        )
        known = ["split", "clip", "segment", "subject", "label", "predicted"]
        write_table(path, [*known, *columns], rows)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what `write` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
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
