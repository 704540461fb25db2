"""Name the movements of a face that decided for a class against another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion.evaluation.movements import STATISTICS, read_movements
from emotion.models.person_model import Person
from emotion.stacks.blendshapes import BLENDSHAPES

NUM_BLENDSHAPE_FEATURES = len(STATISTICS) * len(BLENDSHAPES)
DEVIATION = STATISTICS.index("deviation")
SHAPE = "shape of the face"


@dataclass(frozen=True)
class Reason:
    """What a movement adds to the logit of a class minus another's."""

    words: str  # such as `mouth corners up`
    contribution: float


def reasons(person: Person, features: NDArray[np.float64], index: int, other: int) -> list[Reason]:
    """Divide the difference of the logits of two classes among the movements of a face.

    Args:
        person: the classifier.
        features: (D,) of one clip; those of blendshapes come last, after any of landmarks.
        index: the class that is explained.
        other: the class that it is compared with, such as the runner-up.

    Returns:
        A reason for each movement, and one for all landmarks, largest first. The contributions add
        up to the difference.
    """
    contributions = person.contributions(features, index, other)
    excess = features - person.middle(index, other)
    first = len(features) - NUM_BLENDSHAPE_FEATURES
    size = len(BLENDSHAPES)
    found = []
    for movement in read_movements():
        columns = first + np.array(movement.columns)
        levels = [column for column in columns if (column - first) // size != DEVIATION]
        words = movement.more if excess[levels].sum() > 0 else movement.less
        found.append(Reason(words, float(contributions[columns].sum())))
    if first:
        found.append(Reason(SHAPE, float(contributions[:first].sum())))
    return sorted(found, key=lambda reason: -reason.contribution)
