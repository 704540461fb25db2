"""Synthetic people whose clips follow the hierarchical model."""

import numpy as np

from emotion.evaluation.learning_curve import ClipFeatures

LABELS = ("Neutral", "Happy", "Sad")


def synthetic_people(
    seed: int,
    num_people: int = 6,
    num_clips: int = 4,
    noise: tuple[float, ...] = (0.3, 0.5, 0.5, 0.7),
    spread: float = 1.5,
    test: str = "",
) -> ClipFeatures:
    """Draw clips of each person and class, in coordinates whose total variance is 1."""
    generator = np.random.default_rng(seed)
    eps, size = np.array(noise), len(noise)
    means = spread * generator.normal(size=(len(LABELS), size))
    features, targets, subjects = [], [], []
    for person in range(num_people):
        offset = generator.normal(size=size) * np.sqrt(0.7 * (1 - eps))
        for target in range(len(LABELS)):
            own = generator.normal(size=size) * np.sqrt(0.3 * (1 - eps))
            for _ in range(num_clips):
                error = generator.normal(size=size) * np.sqrt(eps)
                features.append(means[target] + offset + own + error)
                targets.append(target)
                subjects.append(f"p{person}")
    names = np.array(subjects)
    return ClipFeatures(
        LABELS,
        (size,),
        np.array(features),
        np.array(targets),
        names,
        np.array([f"clip{place}" for place in range(len(names))]),
        np.where(names == test, "test", "train"),
    )
