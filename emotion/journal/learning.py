"""Judge clips by their features with what is known of their person.

A profile is no state of its own: it is the posterior of `PersonModel` given the person's entries,
corrected ones with their emotion, others without. So it can be rebuilt exactly at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion.evaluation.movements import read_movements
from emotion.evaluation.reasons import NUM_BLENDSHAPE_FEATURES, reasons
from emotion.evaluation.starter import LABELS, starter_model
from emotion.models.person_model import UNKNOWN, Person, PersonModel

STARTER = "starter"
UNSURE_BELOW = 0.4  # the starter has no clips to choose a threshold on
MAX_REASONS = 3
MIN_SHIFT = 0.2  # of the logarithm of a score: a factor of 1.2


@dataclass(frozen=True)
class Verdict:
    """What the features of a clip say."""

    label: str
    runner_up: str
    probabilities: dict[str, float]
    unsure: bool
    reasons: list[str]  # movements that decided for the label against the runner-up


@dataclass(frozen=True)
class Judge:
    """A model of everybody that adapts to a person."""

    name: str
    labels: tuple[str, ...]
    model: PersonModel
    unsure_below: float

    @classmethod
    def load(cls) -> "Judge":
        """Load the starter."""
        return cls(STARTER, LABELS, starter_model(), UNSURE_BELOW)

    @property
    def num_features(self) -> int:
        """D."""
        return len(self.model.center)

    def person(self, features: np.ndarray, labels: Sequence[str | None]) -> Person:
        """Return the posterior of a person.

        Args:
            features: (N, D) of their clips.
            labels: N emotions, None where it is unknown. Clips with an emotion that the model does
                not have are left out.
        """
        known = {label: index for index, label in enumerate(self.labels)}
        use = [label is None or label in known for label in labels]
        targets = [known.get(label, UNKNOWN) for label in labels]
        return self.model.adapt(
            np.asarray(features).reshape(-1, self.num_features)[use], np.array(targets, int)[use]
        )

    def probabilities(self, person: Person, features: np.ndarray) -> list[dict[str, float]]:
        """Return the calibrated probabilities of (N, D) features."""
        if not len(features):
            return []
        calibrated = self.model.calibrated(person.logits(features))
        return [dict(zip(self.labels, row.tolist(), strict=True)) for row in calibrated]

    def verdicts(self, person: Person, features: np.ndarray) -> list[Verdict]:
        """Judge (N, D) features."""
        found = []
        for row, probabilities in zip(features, self.probabilities(person, features), strict=True):
            label, other = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:2]
            why = reasons(person, row, self.labels.index(label), self.labels.index(other))
            words = [reason.words for reason in why[:MAX_REASONS] if reason.contribution > 0]
            unsure = probabilities[label] < self.unsure_below
            found.append(Verdict(label, other, probabilities, unsure, words))
        return found

    def shifts(self, person: Person) -> list[tuple[str, float]]:
        """Name how a person's face differs from the typical one in all emotions, most first.

        Returns:
            Words for the movement, and the difference of the logarithms of its mean score.
        """
        offset = (person.means - self.model.means).mean(axis=0) @ self.model.lift  # (D,)
        blendshapes = offset[-NUM_BLENDSHAPE_FEATURES:]
        found = []
        for movement in read_movements():
            shift = float(blendshapes[movement.places].mean())  # the means come first
            if abs(shift) >= MIN_SHIFT:
                found.append((movement.more if shift > 0 else movement.less, shift))
        return sorted(found, key=lambda each: -abs(each[1]))
