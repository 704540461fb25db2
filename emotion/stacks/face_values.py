"""Values of faces that a model can take in place of their images."""

from collections.abc import Sequence
from math import prod

import numpy as np

from emotion.stacks.blendshapes import BLENDSHAPES
from emotion.stacks.landmarks import NUM_POINTS

# What a model takes (`model.inputs`), and of which fields of `Face` it is made.
PARTS = {
    "landmarks": ("landmarks",),
    "blendshapes": ("blendshapes",),
    "face": ("landmarks", "blendshapes"),
}
PART_SHAPES = {"landmarks": (NUM_POINTS, 3), "blendshapes": (len(BLENDSHAPES),)}  # of one face


def values_shape(inputs: str) -> tuple[int, ...]:
    """Return the shape of one face's values.

    >>> [values_shape(inputs) for inputs in PARTS]
    [(468, 3), (52,), (1456,)]
    """
    shapes = [PART_SHAPES[part] for part in PARTS[inputs]]
    return shapes[0] if len(shapes) == 1 else (sum(map(prod, shapes)),)


def join_parts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join parts, (T, ...) each, side by side to (T, D); a single one is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
