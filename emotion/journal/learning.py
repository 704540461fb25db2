"""What a journal needs of a model: a judge that adapts to a person, and words for the person.

A profile is no state of its own: it is the posterior of `PersonModel` given the person's entries,
corrected ones with their emotion, others without. So it can be rebuilt exactly at any time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from emotion.evaluation.movements import read_movements
from emotion.evaluation.reasons import NUM_BLENDSHAPE_FEATURES
from emotion.inference.judge import Judge
from emotion.inference.profile import Observation, Profile
from emotion.inference.recognizer import EmotionRecognizer
from emotion.models.person_model import Person

MIN_SHIFT = 0.2  # of the logarithm of a score: a factor of 1.2


@dataclass(frozen=True)
class History:
    """What a profile learns from."""

    ids: tuple[str, ...]  # of N entries, sorted
    features: tuple[np.ndarray, ...]  # N times (D,)
    labels: tuple[str | None, ...]  # corrections

    @classmethod
    def of(cls, rows: Iterable[tuple[str, bytes, str | None]]) -> "History":
        """Make a history of ids, float64 features and corrections."""
        ordered = sorted(rows)  # the order of a sum decides its last digits
        ids, features, labels = zip(*ordered, strict=True) if ordered else ((), (), ())
        return cls(ids, tuple(map(np.frombuffer, features)), labels)

    def person(self, judge: Judge, without: str | None = None) -> Person:
        """Return the posterior of the person, given all entries but one."""
        kept = [place for place, entry_id in enumerate(self.ids) if entry_id != without]
        return judge.person(
            [self.features[place] for place in kept], [self.labels[place] for place in kept]
        )


def load_judge(model: str) -> Judge:
    """Load the judge of a model that can learn a person, or raise a UserError."""
    return EmotionRecognizer.load(model).person_judge


def shifts(judge: Judge, person: Person) -> list[tuple[str, float]]:
    """Name how a person's face differs from everybody's in all emotions, most first.

    Returns:
        Words for the movement, and the difference of the logarithms of its mean score. Empty if the
        model has no words.
    """
    if not judge.explains:
        return []
    offset = (person.means - judge.model.means).mean(axis=0) @ judge.model.lift  # (D,)
    blendshapes = offset[-NUM_BLENDSHAPE_FEATURES:]
    found = []
    for movement in read_movements():
        shift = float(blendshapes[movement.places].mean())  # the means come first
        if abs(shift) >= MIN_SHIFT:
            found.append((movement.more if shift > 0 else movement.less, shift))
    return sorted(found, key=lambda each: -abs(each[1]))


def make_profile(judge: Judge, history: History, contents: Mapping[str, str]) -> Profile:
    """Make the profile that `predict.py person=FILE` reads.

    Args:
        judge: of the model.
        history: of the person.
        contents: id of an entry -> SHA-256 of its clip.
    """
    kept = {}
    for entry_id, features, label in zip(
        history.ids, history.features, history.labels, strict=True
    ):
        if label is None or label in judge.labels:
            kept[contents[entry_id]] = Observation.of(label, features)
    return Profile(
        model=judge.model.fingerprint, labels=judge.labels, clips=dict(sorted(kept.items()))
    )
