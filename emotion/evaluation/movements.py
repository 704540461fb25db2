"""Movements of a face: blendshapes of both sides together, their features, and words for them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from emotion.stacks.blendshapes import BLENDSHAPES, NOISE_SCORE
from emotion.tables import read_table

TABLE = Path(__file__).with_name("movements.csv")
STATISTICS = ("mean", "deviation", "low", "high")  # over the images; low, high: 10 %, 90 %
SIDES = ("Left", "Right")
ASYMMETRIC = ("jaw", "mouth")  # `jawLeft` is a movement of its own, not a side of one


@dataclass(frozen=True)
class Movement:
    """A movement of a face, such as `mouthSmile` of `mouthSmileLeft` and `mouthSmileRight`."""

    name: str
    typical: float  # mean score, 0 to 1, over the synthetic clips of all classes (demo, seed 0)
    more: str  # what is seen if the movement is strong
    less: str

    @property
    def places(self) -> list[int]:
        """The indices of its blendshapes in `BLENDSHAPES`."""
        return [place for place, name in enumerate(BLENDSHAPES) if movement_of(name) == self.name]

    @property
    def columns(self) -> list[int]:
        """The indices of its features in those of `describe_blendshapes`."""
        size = len(BLENDSHAPES)
        return [i * size + place for i in range(len(STATISTICS)) for place in self.places]


@cache
def read_movements() -> tuple[Movement, ...]:
    """Read the table of movements."""
    return tuple(
        Movement(row["movement"], float(row["typical"]), row["more"], row["less"])
        for row in read_table(TABLE)
    )


def movement_of(blendshape: str) -> str:
    """Return the movement of a blendshape.

    >>> movement_of("mouthSmileLeft"), movement_of("jawLeft"), movement_of("browInnerUp")
    ('mouthSmile', 'jawLeft', 'browInnerUp')
    """
    for side in SIDES:
        stem = blendshape.removesuffix(side)
        if stem != blendshape and stem not in ASYMMETRIC:
            return stem
    return blendshape


def describe_blendshapes(scores: np.ndarray) -> np.ndarray:
    """Return the (208,) `STATISTICS` over the images of the logarithms of (T, 52) scores."""
    logs = np.log(np.asarray(scores, np.float64) + NOISE_SCORE)
    low, high = np.percentile(logs, [10, 90], axis=0)
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0), low, high])
