"""Predict the labeled clips of a data set, which the model may never have seen the like of."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from emotion.clips.naming import Clip
from emotion.errors import UserError
from emotion.evaluation.learning_curve import ClipFeatures, CurvePoint, replay_curve
from emotion.evaluation.predictions import Predictions, Sample
from emotion.inference.answer import Answer
from emotion.inference.backends import backend_name, load_model, read_recipe
from emotion.inference.batch import Predictor
from emotion.models.person_model import PersonModel
from emotion.reports.evaluation import Evaluation
from emotion.stacks.source import ClipSource

log = logging.getLogger(__name__)


def evaluate_clips(
    predictor: Predictor, source: ClipSource, num_workers: int | None, *, person: bool = False
) -> Evaluation:
    """Predict all clips of a data set whose class the model has, by the class's name.

    Args:
        predictor: of the model, with no person's profile.
        source: of the data set.
        num_workers: see `Predictor.predict_all`.
        person: also score the model by the number of known clips of each person.

    Raises:
        UserError: the data set has no such clip, or none could be classified; with `person`, the
            model cannot learn a person, or the subject of a clip is unknown.
    """
    recipe = read_recipe(predictor.model)
    person_model = person_model_of(predictor.model) if person else None
    log.info("model: %s (%s)", predictor.model, backend_name(predictor.model))
    source.provide(num_workers)
    found, _ = source.find()
    foreign = Counter(clip.label for clip in found if clip.label not in recipe.labels)
    clips = {clip.path: clip for clip in found if clip.label in recipe.labels}
    if not clips:
        raise UserError(
            f"data={source.name}: no clip is of a class of the model ({', '.join(recipe.labels)}); "
            "data.label_map maps the names of its classes to these"
        )
    if person and (unknown := [clip.id for clip in clips.values() if not clip.subject]):
        raise UserError(
            f"person=true: the subject of {len(unknown)} clips is unknown, the first is "
            f"{unknown[0]}: data.pattern needs a group (?P<subject>...)"
        )
    answers = dict(predictor.predict_all(list(clips), num_workers))
    answered = [path for path in clips if answers[path].probabilities]
    if not answered:
        first = answers[next(iter(clips))]
        raise UserError(f"no clip could be classified; the first: {'; '.join(first.reasons)}")
    curve = []
    if person_model is not None:
        curve = person_curve(person_model, [clips[p] for p in answered], answers, recipe.labels)
    sure = [path for path in answered if not answers[path].unsure]
    return Evaluation(
        title=recipe.title,
        trained_on=recipe.data,
        data=source.name,
        predictions=predictions_of([clips[p] for p in answered], answers, recipe.labels),
        unsure=len(answered) - len(sure),
        accuracy_if_sure=(
            sum(answers[path].label == clips[path].label for path in sure) / len(sure)
            if sure
            else None
        ),
        unanswered={
            clips[path].id: "; ".join(answers[path].reasons)
            for path in clips
            if not answers[path].probabilities
        },
        foreign=dict(foreign),
        curve=curve,
    )


def person_model_of(model: Path) -> PersonModel:
    """Load the person model of a model, or raise a UserError if it has none."""
    person_model = load_model(model)[0].person_model
    if person_model is None:
        raise UserError(
            f"person=true: {model} cannot learn a person: it needs at least 3 known subjects in "
            "training"
        )
    return person_model


def person_curve(
    model: PersonModel, clips: Sequence[Clip], answers: Mapping[Path, Answer], labels: Sequence[str]
) -> list[CurvePoint]:
    """Score a person model on clips that have an answer, by the number of known clips."""
    features = ClipFeatures(
        labels=tuple(labels),
        blocks=(),
        features=np.array([answers[clip.path].features for clip in clips]),
        targets=np.array([labels.index(clip.label) for clip in clips]),
        subjects=np.array([clip.subject for clip in clips]),
        clips=np.array([clip.id for clip in clips]),
        splits=np.full(len(clips), "test"),
    )
    return replay_curve([model], [features])


def predictions_of(
    clips: Sequence[Clip], answers: Mapping[Path, Answer], labels: Sequence[str]
) -> Predictions:
    """Return the calibrated predictions of clips that have an answer with probabilities."""
    samples = [Sample("test", clip.id, 0, clip.subject, clip.label) for clip in clips]
    rows = [[answers[clip.path].probabilities[label] for label in labels] for clip in clips]
    return Predictions(tuple(labels), samples, np.array(rows))
