"""A model of blendshapes with nothing trained: rules of thumb as class means of a person model.

`starter.csv` has the rules: which movements an emotion strengthens or weakens, in steps, and where
that is written. Sources: Ekman and Friesen, "Facial Action Coding System", 1978; Ekman, Friesen and
Hager, "FACS Investigator's Guide", 2002; Ekman, "Emotions Revealed", 2003. The scores of a typical
face (`movements.csv`) are those of the synthetic faces, and the variances are assumed. So the model
is weak at first (docs/results.md), and learns a person from few clips.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion.evaluation.movements import STATISTICS, read_movements
from emotion.executors import pixel_versions
from emotion.models.person_model import PersonModel
from emotion.models.recipe import Recipe
from emotion.stacks.blendshapes import BLENDSHAPES, NOISE_SCORE
from emotion.stacks.settings import CacheSettings
from emotion.tables import read_table

RULES = Path(__file__).with_name("starter.csv")
LABELS = ("Neutral", "Sad", "Happy", "Shock", "Anger")
STEP = 0.5  # of a rule: a score grows by a factor of exp(0.5) = 1.6
# An emotion shows in a part of a clip: the low percentile stays that of a face at rest.
EXPECTED = ("mean", "high")  # statistics that a rule changes
TYPICAL = {"mean": 0.0, "low": -0.15, "high": 0.15}  # around the typical score's logarithm
TYPICAL_DEVIATION = 0.2
# Variances of logarithms of scores: clips of one person and class differ by a factor of 1.6
# (standard deviation 0.45), people by 3.4 (1.2), a person's emotion from everybody's by 1.6 (0.5).
NOISE, PERSON, PERSON_CLASS = 0.2, 1.5, 0.25
TEMPERATURE = 4.0  # the features of a movement are not independent
ALONE = 2.5  # people differ less than assumed, see `PersonModel.alone`
UNSURE_BELOW = 0.5  # an answer of a lower probability is wrong more often than right
# By time, so that 45 moments are 1.5 seconds at any frame rate.
SETTINGS = CacheSettings(
    min_frames=45, segment_frames=90, interval=5, by="time", start="first_face",
    min_face_fraction=0.5, tracking="sampled", follow="largest", margin=0.1, align=False,
    size_px=224, min_confidence=0.5,
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    emotion: str
    action_unit: str
    movement: str
    steps: float
    source: str


def read_rules() -> list[Rule]:
    """Read the table of rules."""
    return [
        Rule(row["emotion"], row["action_unit"], row["movement"], float(row["steps"]),
             row["source"])
        for row in read_table(RULES)
    ]  # fmt: skip


def starter_model() -> PersonModel:
    """Build the model of `LABELS`, of features of `describe_blendshapes`.

    A coordinate is one of `STATISTICS` of a movement, the mean of its left and right blendshape.
    """
    movements = read_movements()
    index = {movement.name: place for place, movement in enumerate(movements)}
    sides = np.zeros((len(BLENDSHAPES), len(movements)))
    typical = np.zeros((len(STATISTICS), len(movements)))
    for place, movement in enumerate(movements):
        sides[movement.places, place] = 1 / len(movement.places)
        for row, statistic in enumerate(STATISTICS):
            typical[row, place] = (
                np.log(movement.typical + NOISE_SCORE) + TYPICAL[statistic]
                if statistic in TYPICAL
                else TYPICAL_DEVIATION
            )
    means = np.tile(typical, (len(LABELS), 1, 1))  # (C, statistics, movements)
    for rule in read_rules():
        for statistic in EXPECTED:
            place = STATISTICS.index(statistic), index[rule.movement]
            means[(LABELS.index(rule.emotion), *place)] += STEP * rule.steps
    projection = np.kron(np.eye(len(STATISTICS)), sides)
    size = projection.shape[1]
    return PersonModel(
        projection=projection,
        lift=np.linalg.pinv(projection),
        center=np.zeros(len(projection)),
        means=means.reshape(len(LABELS), size),
        noise=np.full(size, NOISE),
        person=np.full(size, PERSON),
        person_class=np.full(size, PERSON_CLASS),
        temperature=TEMPERATURE,
        alone=ALONE,
    )


def starter_recipe() -> Recipe:
    """Return how clips become the inputs of the starter."""
    return Recipe(
        title="starter: rules of thumb of the FACS literature",
        data="nothing; right for 47 % of the clips of unseen people, and learns its person "
        "(docs/person.md)",
        labels=LABELS,
        settings=SETTINGS,
        interval=SETTINGS.interval,
        image_px=SETTINGS.size_px,
        versions=pixel_versions(),
        inputs="blendshapes",
        unsure_below=UNSURE_BELOW,
    )
