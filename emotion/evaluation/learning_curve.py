"""Measure what a classifier gains from knowing its person, in the way it will be used.

Some clips of an unseen person are drawn as their history, and their other clips are predicted.
Nothing of the tested person is used for any choice: the model is fitted to the other people, and
its temperature on inner folds that leave out one of them at a time.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from emotion.errors import DamagedFile, UserError
from emotion.evaluation.calibration import calibration_error
from emotion.evaluation.metrics import bootstrap, count_confusions, mean_scores
from emotion.evaluation.predictions import Predictions, Sample
from emotion.files import ZIP_ERRORS, read_whole, unfinished
from emotion.models.person_model import UNKNOWN, PersonModel

FEATURES_FILE = "features.npz"
MAX_BYTES = 4 << 30  # 250,000 clips of the face model
ROWS = ("features", "targets", "subjects", "clips", "splits")  # arrays of one row a clip
# What NumPy and zipfile raise for damaged archives
ARCHIVE_ERRORS = (*ZIP_ERRORS, LookupError, OSError, TypeError, AttributeError)
NUMS = (0, 1, 2, 3, 5, 8, 10, 15)  # observed clips
KINDS = {
    "corrected": "corrected, random order",
    "balanced": "emotion unknown, balanced",
    "skewed": "emotion unknown, skewed as a diary",
    "neutral": "neutral clips",
}
NEUTRAL = "Neutral"
DIARY = {NEUTRAL: 0.5, "Happy": 0.25}  # class shares of a skewed history; others share the rest
DRAWS = 20  # random histories of each person
INNER_DRAWS = 5
INNER_FOLDS = 10  # each leaves out a person, or some where there are more people
MIN_PEOPLE = 3  # an inner fold needs two to learn how people differ
TEMPERATURES = np.geomspace(0.5, 50, 81)  # candidates


@dataclass(frozen=True)
class ClipFeatures:
    """The features of N labeled clips of known people, and the part of each in a fold."""

    labels: tuple[str, ...]  # the C classes
    blocks: tuple[int, ...]  # widths of the groups of features, see `PersonModel.fit`
    features: np.ndarray  # (N, D) float64, mean of the clip's stacks
    targets: np.ndarray  # (N,) int64
    subjects: np.ndarray  # (N,) str
    clips: np.ndarray  # (N,) str, ids
    splits: np.ndarray  # (N,) str, `train`, `val` or `test`

    def take(self, where: np.ndarray) -> "ClipFeatures":
        """Return the clips at (M,) indices, or where (N,) bool are true."""
        return replace(self, **{name: getattr(self, name)[where] for name in ROWS})

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
        """Read what `write` wrote.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            content = read_whole(path, MAX_BYTES)
        except FileNotFoundError:
            raise UserError(
                f"{path} is missing: the learning curve needs the features of clips"
            ) from None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                values = dict(arrays)
            for name in ("labels", "blocks"):
                values[name] = tuple(values[name].tolist())
            clips = cls(**values)
            lengths = {len(values[name]) for name in ROWS}
            if len(lengths) != 1 or clips.features.ndim != 2:
                raise ValueError("its arrays have different lengths")
        except ARCHIVE_ERRORS as error:
            raise DamagedFile(f"{path} is damaged ({error}): train the run again") from None
        return clips


@dataclass(frozen=True)
class Replay:
    """M predictions of clips of people, given a history of each."""

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
class CurvePoint:
    """Scores after `num` observed clips, 0 to 1, pooled over people and histories."""

    kind: str  # key of `KINDS`
    num: int
    scores: dict[str, float]  # by the keys of `metrics.SCORES`
    bounds: dict[str, tuple[float, float]]  # 95 % intervals of the scores, over people
    ece: float
    gain: float  # of the accuracy, over that of the same clips without the history


def learning_curve(
    folds: Sequence[ClipFeatures], kinds: Sequence[str] = tuple(KINDS), draws: int = DRAWS
) -> list[CurvePoint]:
    """Score the test clips of folds after `NUMS` clips of their person.

    Args:
        folds: with different test people; each model is fitted to the train and val clips.
        kinds: keys of `KINDS`.
        draws: random histories of each person.

    Returns:
        A point for each kind and number; those for which a person has too few clips are left out.
    """
    models = [fit_calibrated(fold.take(fold.splits != "test")) for fold in folds]
    tests = [fold.take(fold.splits == "test") for fold in folds]
    return replay_curve(models, tests, kinds, draws)


def replay_curve(
    models: Sequence[PersonModel],
    tests: Sequence[ClipFeatures],
    kinds: Sequence[str] = tuple(KINDS),
    draws: int = DRAWS,
) -> list[CurvePoint]:
    """Do what `learning_curve` does, given a fitted model for the test clips of each fold."""
    points = []
    for kind in possible_kinds(tests[0].labels, kinds):
        for num in NUMS:
            replays = [
                replay_people(model, test, kind, num, draws)
                for model, test in zip(models, tests, strict=True)
            ]
            if None not in replays:
                probabilities = [
                    model.calibrated(replay.logits)
                    for model, replay in zip(models, replays, strict=True)
                ]
                joined = Replay.joined(replays)
                points.append(
                    score(kind, num, joined, np.concatenate(probabilities), tests[0].labels)
                )
    return points


def possible_kinds(labels: Sequence[str], kinds: Sequence[str] = tuple(KINDS)) -> list[str]:
    """Return the kinds of histories that need no class beyond these.

    >>> possible_kinds(["calm", "proud"])
    ['corrected', 'balanced']
    """
    needed = {"skewed": set(DIARY), "neutral": {NEUTRAL}}
    return [kind for kind in kinds if needed.get(kind, set()) <= set(labels)]


def fit_person(fold: ClipFeatures) -> PersonModel | None:
    """Fit a calibrated model to the train and val clips of a fold.

    Returns:
        None if they are of fewer than three people, or do not have all classes.
    """
    clips = fold.take(fold.splits != "test")
    if len(set(clips.subjects)) < MIN_PEOPLE or len(set(clips.targets)) < len(clips.labels):
        return None
    return fit_calibrated(clips)


def fit_calibrated(clips: ClipFeatures) -> PersonModel:
    """Fit a model, and its temperatures on replays that leave out some people at a time.

    A temperature minimizes the mean negative log-likelihood. One serves all kinds and lengths of
    histories, because the width of the posterior is in the logits; another the clips of people of
    whom nothing is known. They are scaled by (P - 1) / P for P people: the models of inner folds
    know one person less, and what they exaggerate for that falls about as 1 / P.
    """
    model = fit_clips(clips)
    people = list(clips.people())
    if len(people) < MIN_PEOPLE:
        return model
    num_folds = min(len(people), INNER_FOLDS)
    alone, known = [], []
    for own in (np.concatenate(people[fold::num_folds]) for fold in range(num_folds)):
        inner = fit_clips(clips.take(np.setdiff1d(np.arange(len(clips.targets)), own)))
        tested = clips.take(own)
        alone.append(replay_people(inner, tested, "corrected", 0, INNER_DRAWS))
        for kind, num in product(KINDS, NUMS[1:]):
            replay = replay_people(inner, tested, kind, num, INNER_DRAWS)
            if replay is not None:
                known.append(replay)
    alone_temperature = fit_temperature(model, alone)
    temperature = fit_temperature(model, known) if known else alone_temperature
    scale = (len(people) - 1) / len(people)
    return replace(model, temperature=scale * temperature, alone=temperature / alone_temperature)


def fit_temperature(model: PersonModel, replays: Sequence[Replay]) -> float:
    """Return the temperature of the lowest mean negative log-likelihood of predictions."""
    replay = Replay.joined(replays)
    true_class = np.arange(len(replay.targets)), replay.targets

    def loss(temperature: float) -> float:
        fitted = replace(model, temperature=temperature)
        return float(-np.log(fitted.calibrated(replay.logits)[true_class]).mean())

    return float(min(TEMPERATURES, key=loss))


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
    """Draw `num` of a person's clips without replacement.

    `corrected` draws from all clips; `balanced` takes a clip of each class in random order, then
    another of each; `skewed` draws the class of each clip by `DIARY`, among the classes that are
    left; `neutral` draws neutral clips.

    Args:
        targets: (N,) class indices.
        labels: the classes.
        kind: key of `KINDS`.
        num: how many.
        generator: of the random choices.

    Returns:
        (num,) indices; None if there are too few clips, or none is left to predict.
    """
    order = generator.permutation(len(targets)).tolist()
    names = [labels[target] for target in targets]
    if kind == "neutral":
        order = [place for place in order if names[place] == NEUTRAL]
        if num == len(order):  # predictions without a neutral clip do not compare
            return None
    elif kind == "balanced":
        turn: dict[int, int] = {}  # of a clip: how many of its class come before it
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
    left = {
        name: [place for place in places if names[place] == name] for name in sorted(set(names))
    }
    other_share = (1 - sum(DIARY.values())) / max(1, len(set(left) - set(DIARY)))
    order = []
    while left:
        shares = np.array([DIARY.get(name, other_share) for name in left])
        name = generator.choice(list(left), p=shares / shares.sum())
        order.append(left[name].pop())
        if not left[name]:
            del left[name]
    return order


def score(
    kind: str, num: int, replay: Replay, probabilities: np.ndarray, labels: Sequence[str]
) -> CurvePoint:
    """Score the (M, C) probabilities of a replay; intervals resample people, with all histories."""
    samples = [
        Sample("test", str(place), 0, subject, labels[target])
        for place, (subject, target) in enumerate(zip(replay.subjects, replay.targets, strict=True))
    ]
    predictions = Predictions(tuple(labels), samples, probabilities)
    confusion = count_confusions(predictions, np.zeros(len(samples), np.int64), 1)[0]
    scores = {name: float(value) for name, value in mean_scores(confusion).items()}
    without = float((replay.without.argmax(axis=1) == replay.targets).mean())
    return CurvePoint(
        kind,
        num,
        scores,
        bootstrap([predictions], min_subjects=2).bounds,
        calibration_error(predictions),
        scores["accuracy"] - without,
    )
