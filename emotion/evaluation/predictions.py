"""module ──say──> how probable each class is for each stack, beside what is true.

A run keeps them in `predictions.csv`, a row a stack, so that scores of clips, of other groups and
of all folds together need no model again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.stacks.manifest import StackRow
from emotion.tables import read_table, write_table

PROBABILITY = "p_"  # goes before a class's name in the file's columns


@dataclass(frozen=True)
class Predictions:
    """What a model says of N stacks, or of N clips.

    Attributes:
        labels: the C classes, in the order of their indices.
        splits: N names, `val` or `test`.
        clips: N ids.
        segments: N numbers, counted from 1 in the clip; 0 stands for the whole clip.
        subjects: N names, "" where nobody is known.
        targets: (N,) int64, index of the true class.
        probabilities: (N, C) float32, 0 to 1; the largest of a row is the prediction.
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
        """N."""
        return len(self.clips)

    @classmethod
    def of_rows(
        cls, rows: Sequence[StackRow], labels: Sequence[str], probabilities: np.ndarray
    ) -> "Predictions":
        """Put probabilities beside the rows that they were predicted for.

        Args:
            rows: N, with their splits.
            labels: the C classes.
            probabilities: (N, C) float32.
        """
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
        """Put the predictions of several splits or folds below each other.

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
                    f"segment {stack[1]} of clip {stack[0]} is predicted in two splits or folds: "
                    "they were not made by one split"
                )
            seen.add(stack)
        return joined

    def take(self, places: Sequence[int]) -> "Predictions":
        """Keep some rows.

        Args:
            places: which, in the order in which they shall stand.
        """
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
        """Keep one split's rows."""
        return self.take([i for i, name in enumerate(self.splits) if name == split])

    def of_clips(self) -> "Predictions":
        """Average the probabilities of each clip's stacks.

        Returns:
            A row for each of the M clips, in the order in which they first occur.
        """
        first: dict[str, int] = {}
        for place, clip in enumerate(self.clips):
            first.setdefault(clip, place)
        number = {clip: i for i, clip in enumerate(first)}
        of_clip = np.array([number[clip] for clip in self.clips], dtype=np.int64)
        sums = np.zeros((len(first), len(self.labels)))  # (M, C), float64 for exact small sums
        np.add.at(sums, of_clip, self.probabilities)
        counts = np.bincount(of_clip, minlength=len(first))[:, None]
        kept = self.take(list(first.values()))
        return Predictions(
            kept.labels,
            kept.splits,
            kept.clips,
            [0] * len(kept),
            kept.subjects,
            kept.targets,
            (sums / counts).astype(np.float32),
        )

    def write(self, path: Path) -> None:
        """Write a CSV file, whole or not at all; probabilities to the last digit.

        Args:
            path: the file.
        """
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
            UserError: there is no such file.
        """
        if not path.is_file():
            raise UserError(
                f"no {path.name} in {path.parent}, as runs of older versions have none: "
                "run it again, or move its folder out of the way"
            )
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
