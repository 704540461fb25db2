"""Judge clips by their features, given what is known of their person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion.evaluation.reasons import Reason, reasons
from emotion.inference.answer import ranked
from emotion.models.person_model import UNKNOWN, Person, PersonModel

MAX_REASONS = 3
# An answer of an honest lower probability is wrong more often than right. Training's threshold
# promises more, which few people in training allow for anybody's clips.
MAX_UNSURE_BELOW = 0.5


def threshold(trained: float, given: float | None, *, knows_person: bool) -> float:
    """Return the lowest top probability of an answer that is sure.

    Args:
        trained: as set in training.
        given: by the user, instead; None for none.
        knows_person: whether a person model answers.
    """
    if given is not None:
        return given
    return min(trained, MAX_UNSURE_BELOW) if knows_person else trained


@dataclass(frozen=True)
class Verdict:
    """The emotion of a clip."""

    label: str
    runner_up: str
    probabilities: Mapping[str, float]
    unsure: bool
    why: tuple[Reason, ...]  # what decided for the label against the runner-up, largest first


@dataclass(frozen=True)
class Judge:
    """A model of everybody that adapts to a person.

    Attributes:
        labels: the C classes.
        model: of features of D numbers.
        unsure_below: a clip with a lower top probability is unsure.
        explains: whether the last features are those of blendshapes, which have words.
    """

    labels: tuple[str, ...]
    model: PersonModel
    unsure_below: float
    explains: bool

    def person(
        self, features: Sequence[Sequence[float]] = (), labels: Sequence[str | None] = ()
    ) -> Person:
        """Return the posterior of a person.

        Args:
            features: (N, D) of their clips.
            labels: N emotions, None where it is unknown. Clips with an emotion that the model does
                not have are left out.
        """
        known = {None: UNKNOWN} | {label: index for index, label in enumerate(self.labels)}
        uses = [label in known for label in labels]
        rows = np.asarray(features, np.float64).reshape(-1, len(self.model.center))
        targets = [known[label] for label in labels if label in known]
        return self.model.adapt(rows[np.array(uses, bool)], np.array(targets, np.int64))

    def probabilities(
        self, person: Person, features: NDArray[np.float64]
    ) -> list[dict[str, float]]:
        """Return the calibrated probabilities of (N, D) features."""
        rows = person.probabilities(features) if len(features) else ()
        return [dict(zip(self.labels, row.tolist(), strict=True)) for row in rows]

    def verdict(self, person: Person, features: NDArray[np.float64]) -> Verdict:
        """Judge the (D,) features of a clip."""
        features = np.asarray(features, np.float64)
        (probabilities,) = self.probabilities(person, features[None])
        label, other, *_ = ranked(probabilities)
        return Verdict(
            label,
            other,
            probabilities,
            probabilities[label] < self.unsure_below,
            self.why(person, features, label, other),
        )

    def why(
        self, person: Person, features: NDArray[np.float64], label: str, other: str
    ) -> tuple[Reason, ...]:
        """Return the movements that speak most for one label against another, at most three."""
        if not self.explains:
            return ()
        found = reasons(person, features, self.labels.index(label), self.labels.index(other))
        return tuple(reason for reason in found[:MAX_REASONS] if reason.contribution > 0)
