"""Measure what a classifier gains from knowing its person, as it will be used.

Clips of an unseen person are drawn as their history, and their other clips are predicted. Nothing
of the tested person is used for any choice: probabilities are calibrated on inner folds, which leave
out one training person at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.calibration import calibration_error
from emotion.evaluation.metrics import bootstrap, count_confusions, mean_scores
from emotion.evaluation.person_model import UNKNOWN, PersonModel
from emotion.evaluation.predictions import Predictions
from emotion.files import unfinished

FEATURES_FILE = "features.npz"
NUMS = (0, 1, 2, 3, 5, 8, 10, 15)  # observed clips
KINDS = {
    "corrected": "corrected, in random order",
    "balanced": "emotion unknown, balanced",
    "skewed": "emotion unknown, skewed as a diary",
    "neutral": "neutral clips",
}
DIARY = {"Neutral": 0.5, "Happy": 0.25}  # class shares of a skewed history; others share the rest
DRAWS = 20  # random histories of each person
INNER_DRAWS = 5
TEMPERATURES = np.geomspace(0.5, 50, 81)  # candidates


@dataclass(frozen=True)
class ClipFeatures:
    """The features of N labeled clips of known people, and which of them a fold tests."""

    labels: list[str]  # the C classes
    blocks: list[int]  # widths of the groups of features, see `PersonModel.fit`
    features: np.ndarray  # (N, D) float64, mean of the clip's stacks
    targets: np.ndarray  # (N,) int64
    subjects: np.ndarray  # (N,) str
    clips: np.ndarray  # (N,) str, ids
    splits: np.ndarray  # (N,) str, `train`, `val` or `test`

    def take(self, where: np.ndarray) -> "ClipFeatures":
        """Return the clips at (M,) indices, or where (N,) bool are true."""
        names = ("features", "targets", "subjects", "clips", "splits")
        return replace(self, **{name: getattr(self, name)[where] for name in names})

    def people(self) -> Iterator[np.ndarray]:
        """Yield the indices of the clips of each person."""
        for subject in np.unique(self.subjects):
            yield np.flatnonzero(self.subjects == subject)

    def write(self, path: Path) -> None:
        """Write a NumPy archive atomically."""
        with unfinished(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def read(cls, path: Path) -> "ClipFeatures":
        """Read what `write` wrote."""
        if not path.is_file():
            raise UserError(f"{path} is missing: the run must be of a model with features of clips")
        with np.load(path, allow_pickle=False) as arrays:
            fields = dict(arrays)
        fields["labels"], fields["blocks"] = fields["labels"].tolist(), fields["blocks"].tolist()
        return cls(**fields)


@dataclass(frozen=True)
class Replay:
    """M predictions of clips of people whose history is known."""

    logits: np.ndarray  # (M, C), uncalibrated
    targets: np.ndarray  # (M,)
    subjects: np.ndarray  # (M,) str
    without: np.ndarray  # (M, C) logits of the same clips without the history

    @classmethod
    def joined(cls, parts: Sequence["Replay"]) -> "Replay":
        """Concatenate predictions."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True)
class Estimate:
    """A score, 0 to 1, and its 95 % interval over people."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class CurvePoint:
    """Scores after `num` observed clips."""

    kind: str
    num: int
    accuracy: Estimate
    uar: Estimate
    macro_f1: Estimate
    ece: float
    gain: float  # of the accuracy, over that of the same clips without the history


def learning_curve(
    folds: Sequence[ClipFeatures], kinds: Sequence[str] = tuple(KINDS), draws: int = DRAWS
) -> list[CurvePoint]:
    """Score the test clips of each fold after `NUMS` clips of their person.

    Args:
        folds: with different test people; train and val clips fit the model.
        kinds: keys of `KINDS`.
        draws: random histories of each person.
    """
    models = [fit_calibrated(fold.take(fold.splits != "test")) for fold in folds]
    tests = [fold.take(fold.splits == "test") for fold in folds]
    points = []
    for kind in kinds:
        for num in NUMS:
            replays, probabilities = [], []
            for model, test in zip(models, tests, strict=True):
                if replay := replay_people(model, test, kind, num, draws):
                    replays.append(replay)
                    probabilities.append(model.calibrated(replay.logits))
            if len(replays) == len(folds):
                points.append(
                    score(kind, num, Replay.joined(replays), np.concatenate(probabilities),
                          folds[0].labels)
                )  # fmt: skip
    return points


def fit_calibrated(clips: ClipFeatures) -> PersonModel:
    """Fit a model, and its temperature on replays that leave out one person at a time.

    The temperature minimizes the mean negative log-likelihood over all kinds and lengths of
    histories. One serves all of them, because the width of the posterior is in the logits.
    """
    model = fit_clips(clips)
    people = list(clips.people())
    if len(people) < 3:  # an inner fold must have two to learn how people differ
        return model
    replays = []
    for own in people:
        inner = fit_clips(clips.take(np.setdiff1d(np.arange(len(clips.targets)), own)))
        for kind in KINDS:
            for num in NUMS:
                if replay := replay_people(inner, clips.take(own), kind, num, INNER_DRAWS):
                    replays.append(replay)
    replay = Replay.joined(replays)
    truth = np.arange(len(replay.targets)), replay.targets

    def loss(temperature: float) -> float:
        fitted = replace(model, temperature=temperature)
        return float(-np.log(fitted.calibrated(replay.logits)[truth]).mean())

    return replace(model, temperature=float(min(TEMPERATURES, key=loss)))


def fit_clips(clips: ClipFeatures) -> PersonModel:
    """Fit a model with the default temperature."""
    return PersonModel.fit(
        clips.features, clips.targets, clips.subjects, len(clips.labels), clips.blocks
    )


def replay_people(
    model: PersonModel, clips: ClipFeatures, kind: str, num: int, draws: int
) -> Replay | None:
    """Predict the other clips of people after histories of `num` clips.

    Returns:
        All predictions, or None if a person has too few clips.
    """
    generator = np.random.default_rng(num)
    coordinates = (clips.features - model.center) @ model.projection
    reduced, parts = model.reduced(), []
    for own in clips.people():
        features, targets = coordinates[own], clips.targets[own]
        without = reduced.adapt(features[:0], targets[:0]).logits(features)
        for _ in range(draws if num else 1):
            seen = draw_history(targets, clips.labels, kind, num, generator)
            if seen is None:
                return None
            told = targets[seen] if kind in ("corrected", "neutral") else np.full(num, UNKNOWN)
            rest = np.setdiff1d(np.arange(len(own)), seen)
            logits = reduced.adapt(features[seen], told).logits(features[rest])
            parts.append(Replay(logits, targets[rest], clips.subjects[own][rest], without[rest]))
    return Replay.joined(parts)


def draw_history(
    targets: np.ndarray,
    labels: Sequence[str],
    kind: str,
    num: int,
    generator: np.random.Generator,
) -> np.ndarray | None:
    """Draw `num` of a person's clips, without replacement.

    `corrected` draws from all clips; `balanced` takes classes in turn, each time in random order;
    `skewed` draws the class of each clip by `DIARY` among the classes that are left.

    Args:
        targets: (N,) class indices.
        labels: the classes.
        kind: key of `KINDS`.
        num: how many.
        generator: of the random choices.

    Returns:
        (num,) indices; None if fewer clips fit or no clip of another class is left to predict.
    """
    order = generator.permutation(len(targets)).tolist()
    names = [labels[target] for target in targets]
    if kind == "neutral":
        order = [place for place in order if names[place] == "Neutral"]
    elif kind == "balanced":
        turn: dict[int, int] = {}  # clip -> how many of its class come before it
        for place in order:
            turn[place] = sum(names[other] == names[place] for other in turn)
        order.sort(key=turn.__getitem__)
    elif kind == "skewed":
        order = skewed_order(order, names, generator)
    return np.array(order[:num], np.int64) if num <= len(order) and num < len(names) else None


def skewed_order(
    places: Sequence[int], names: Sequence[str], generator: np.random.Generator
) -> list[int]:
    """Order clips, given in random order, so that the class of each is drawn by `DIARY`."""
    others = len(set(names) - set(DIARY))
    order: list[int] = []
    left = {
        name: [place for place in places if names[place] == name] for name in sorted(set(names))
    }
    while left:
        shares = np.array([DIARY.get(name, (1 - sum(DIARY.values())) / others) for name in left])
        name = generator.choice(list(left), p=shares / shares.sum())
        order.append(left[name].pop())
        if not left[name]:
            del left[name]
    return order


def score(
    kind: str, num: int, replay: Replay, probabilities: np.ndarray, labels: Sequence[str]
) -> CurvePoint:
    """Score predictions, (M, C) probabilities; intervals resample people with their histories."""
    size = len(replay.targets)
    predictions = Predictions(
        list(labels),
        splits=["test"] * size,
        clips=[str(place) for place in range(size)],
        segments=[0] * size,
        subjects=replay.subjects.tolist(),
        targets=replay.targets,
        probabilities=probabilities,
    )
    confusion = count_confusions(predictions, np.zeros(size, np.int64), 1)[0]
    bounds = bootstrap([predictions], min_subjects=2).bounds
    right = replay.without.argmax(axis=1) == replay.targets
    scores = {
        name: Estimate(float(mean), *bounds[name]) for name, mean in mean_scores(confusion).items()
    }
    return CurvePoint(
        kind,
        num,
        **scores,
        ece=calibration_error(predictions),
        gain=scores["accuracy"].mean - float(right.mean()),
    )
