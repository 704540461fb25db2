"""The rules of thumb, and what they answer on faces that follow them."""

import numpy as np
import pytest

from emotion.evaluation.movements import (
    describe_blendshapes,
    movement_of,
    read_movements,
)
from emotion.evaluation.reasons import reasons
from emotion.evaluation.starter import LABELS, STEP, read_rules, starter_model
from emotion.stacks.blendshapes import BLENDSHAPES, NOISE_SCORE


def clip_of(emotion: str, strength: float = 1.0) -> np.ndarray:
    """(18, 52) scores of a typical face that follows the rules of an emotion."""
    typical = {movement.name: movement.typical + NOISE_SCORE for movement in read_movements()}
    for rule in read_rules():
        if rule.emotion == emotion:
            typical[rule.movement] *= np.exp(strength * STEP * rule.steps)
    scores = [typical.get(movement_of(name), NOISE_SCORE) - NOISE_SCORE for name in BLENDSHAPES]
    return np.tile(np.clip(scores, 0, 1), (18, 1))


def unknown_person():
    model = starter_model()
    return model.adapt(np.empty((0, len(model.center))), np.empty(0))


def test_every_rule_has_a_class_a_movement_and_a_source():
    names = {movement.name for movement in read_movements()}
    for rule in read_rules():
        assert rule.emotion in LABELS and rule.movement in names and rule.source and rule.steps


def test_every_blendshape_belongs_to_one_movement():
    places = sorted(place for movement in read_movements() for place in movement.places)
    assert places == list(range(1, len(BLENDSHAPES)))  # all but `_neutral`


@pytest.mark.parametrize("emotion", LABELS)
def test_a_face_that_follows_the_rules_of_an_emotion_gets_it(emotion: str):
    logits = unknown_person().logits(describe_blendshapes(clip_of(emotion, 1.5))[None])[0]
    assert LABELS[logits.argmax()] == emotion


def test_left_and_right_count_alike():
    scores = clip_of("Happy")
    left, right = (BLENDSHAPES.index(f"mouthSmile{side}") for side in ("Left", "Right"))
    scores[:, left] += 0.2
    mirrored = scores.copy()
    mirrored[:, [left, right]] = scores[:, [right, left]]
    features = np.stack([describe_blendshapes(scores), describe_blendshapes(mirrored)])
    first, second = unknown_person().logits(features)
    np.testing.assert_allclose(first, second)


def test_features_are_statistics_of_logarithms():
    scores = np.random.default_rng(0).uniform(size=(11, 52)).astype(np.float32)
    features = describe_blendshapes(scores).reshape(4, 52)
    ordered = np.sort(np.log(scores[:, 7].astype(float) + NOISE_SCORE))
    expected = [ordered.sum() / 11, np.sqrt(ordered.var()), ordered[1], ordered[9]]
    np.testing.assert_allclose(features[:, 7], expected)


def test_reasons_name_the_movements_and_add_up():
    person, features = unknown_person(), describe_blendshapes(clip_of("Happy"))
    happy, neutral = LABELS.index("Happy"), LABELS.index("Neutral")
    found = reasons(person, features, happy, neutral)
    assert found[0].words == "mouth corners up"
    logits = person.logits(features[None])[0]
    total = sum(reason.contribution for reason in found)
    assert total == pytest.approx(logits[happy] - logits[neutral])
    assert [r.contribution for r in found] == sorted((r.contribution for r in found), reverse=True)
    against = reasons(person, describe_blendshapes(clip_of("Sad")), neutral, happy)
    assert "mouth corners not up" in {reason.words for reason in against}
