"""Class probabilities of stacks and clips, beside the true classes.

`predictions.csv` of a run holds the UNCALIBRATED probabilities of its stacks. A clip's are the mean
of the CALIBRATED ones of its stacks: `Predictions.read(path).calibrated(temperature).of_clips()`.
Reports and inference share `calibrate` and `mean_of_stacks`, so they give a clip the same answer.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from emotion.errors import DamagedFile, UserError, first_problem
from emotion.models.temperature import calibrate
from emotion.stacks.manifest import StackRow
from emotion.tables import read_table, write_table

PREDICTIONS_FILE = "predictions.csv"
REMEDY = "run it again, or move its folder away"
PROBABILITY = "p_"  # prefix of the columns of probabilities, before the class
TINY = float(np.finfo(np.float32).smallest_subnormal)  # lower bound of a probability's logarithm


def mean_of_stacks(probabilities: np.ndarray) -> np.ndarray:
    """Average the (S, C) calibrated probabilities of a clip's stacks: (C,) float64."""
    return np.mean(probabilities, axis=0, dtype=np.float64)


@dataclass(frozen=True)
class Sample:
    """A stack or a clip whose class is predicted."""

    split: Literal["val", "test"]
    clip: str  # id
    segment: int  # counted from 1 in the clip; 0 stands for the whole clip
    subject: str  # "" if unknown
    label: str  # the true class


@dataclass(frozen=True)
class Predictions:
    """Predictions for N stacks, or for N clips.

    Probabilities are float32 as the model gave them, and float64 once calibrated, so that a high
    temperature makes no ties. The largest of a row is the predicted class.
    """

    labels: tuple[str, ...]  # the C classes, in the order of their indices
    samples: list[Sample]
    probabilities: np.ndarray  # (N, C), 0 to 1

    def __post_init__(self) -> None:
        """Check the shape."""
        assert self.probabilities.shape == (len(self.samples), len(self.labels))

    def __len__(self) -> int:
        """Return N."""
        return len(self.samples)

    @classmethod
    def of_rows(
        cls, rows: Sequence[StackRow], labels: Sequence[str], probabilities: np.ndarray
    ) -> "Predictions":
        """Combine N rows of a manifest, with their splits, and their (N, C) probabilities."""
        samples = [Sample(r.split, r.clip, r.segment, r.subject, r.label) for r in rows]
        return cls(tuple(labels), samples, probabilities)

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Concatenate the predictions of splits or folds; UserError if a stack is in two."""
        samples = [sample for part in parts for sample in part.samples]
        assert all(part.labels == parts[0].labels for part in parts)
        stacks = Counter((sample.clip, sample.segment) for sample in samples)
        for (clip, segment), num in stacks.items():
            if num > 1:
                raise UserError(
                    f"segment {segment} of clip {clip} is predicted in two splits or folds, "
                    "which must come from one split"
                )
        probabilities = np.concatenate([part.probabilities for part in parts])
        return cls(parts[0].labels, samples, probabilities)

    @cached_property
    def targets(self) -> np.ndarray:
        """The (N,) int64 indices of the true classes."""
        return np.array([self.labels.index(each.label) for each in self.samples], np.int64)

    @property
    def predicted(self) -> np.ndarray:
        """The (N,) int64 indices of the predicted classes."""
        return self.probabilities.argmax(axis=1)

    @property
    def clips(self) -> list[str]:
        """The clip of each sample."""
        return [sample.clip for sample in self.samples]

    @property
    def subjects(self) -> list[str]:
        """The subject of each sample."""
        return [sample.subject for sample in self.samples]

    def take(self, places: Sequence[int]) -> "Predictions":
        """Return the rows at these indices, in this order."""
        samples = [self.samples[place] for place in places]
        return replace(self, samples=samples, probabilities=self.probabilities[list(places)])

    def by_split(self) -> dict[str, "Predictions"]:
        """Return the rows of each split that has any."""
        splits = dict.fromkeys(sample.split for sample in self.samples)
        return {split: self.of_split(split) for split in splits}

    def of_split(self, split: str) -> "Predictions":
        """Return the rows of one split."""
        return self.take([i for i, sample in enumerate(self.samples) if sample.split == split])

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
        samples = [replace(self.samples[of_clip[0]], segment=0) for of_clip in places.values()]
        means = [mean_of_stacks(self.probabilities[of_clip]) for of_clip in places.values()]
        return Predictions(self.labels, samples, np.reshape(means, (-1, len(self.labels))))

    def write(self, path: Path) -> None:
        """Write a CSV file atomically, with exact probabilities."""
        columns = [field.name for field in fields(Sample)] + ["predicted"]
        columns += [PROBABILITY + label for label in self.labels]
        predicted = [self.labels[index] for index in self.predicted]
        texts = np.char.mod("%.9g", self.probabilities)  # gives a float32 back exactly
        rows = zip(map(astuple, self.samples), predicted, texts, strict=True)
        values = ([*sample, label, *text] for sample, label, text in rows)
        write_table(path, columns, (dict(zip(columns, row, strict=True)) for row in values))

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what `write` wrote, or raise a DamagedFile if it is missing or damaged."""
        try:
            rows = read_table(path)
            if not rows:
                raise ValueError("it has no rows")
            columns = [name for name in rows[0] if name.startswith(PROBABILITY)]
            labels = tuple(name.removeprefix(PROBABILITY) for name in columns)
            samples = TypeAdapter(list[Sample]).validate_python(rows)
            probabilities = np.array([[row[name] for name in columns] for row in rows], np.float32)
            if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(1), 1, atol=1e-3)):
                raise ValueError("the probabilities of each row must be 0 to 1 and add up to 1")
            predictions = cls(labels, samples, probabilities)
            assert predictions.targets.shape == (len(rows),)
            return cls.joined([predictions])  # no stack twice
        except FileNotFoundError:
            raise DamagedFile(f"{path} is missing: {REMEDY}") from None
        except (ValueError, LookupError) as error:
            where = "" if isinstance(error, DamagedFile) else f"{path}: "
            problem = first_problem(error) if isinstance(error, ValidationError) else error
            raise DamagedFile(f"{where}{problem}: {REMEDY}") from None
