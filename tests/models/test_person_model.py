"""The hierarchical model of a person, compared with scikit-learn and SciPy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from emotion.errors import UserError
from emotion.models.person_model import (
    COMPOSITION,
    GUESS_TEMPERATURE,
    OUTLIERS,
    PRIOR_CLIPS,
    UNKNOWN,
    PersonModel,
)
from tests.evaluation.people import LABELS, synthetic_people


def fit(seed: int = 0, **options) -> PersonModel:
    clips = synthetic_people(seed, **options)
    return PersonModel.fit(clips.features, clips.targets, clips.subjects, len(LABELS))


def history_of(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips of a person that the model of the same seed was not fitted to."""
    own = synthetic_people(seed, num_people=7, num_clips=12)
    where = np.flatnonzero(own.subjects == "p6")
    order = np.random.default_rng(seed).permutation(where)[:num]
    return own.features[order], own.targets[order]


def by_gaussian_process(model: PersonModel, features, targets) -> tuple[np.ndarray, np.ndarray]:
    """Regress each coordinate of labeled clips on their class, with the kernel of the model."""
    coordinates = (features - model.center) @ model.projection
    classes = np.arange(len(LABELS))[:, None]
    means, variances = np.empty_like(model.means), np.empty_like(model.means)
    for k in range(len(model.noise)):
        kernel = ConstantKernel(model.person[k])
        kernel += ConstantKernel(model.person_class[k]) * RBF(1e-3)  # 0 between different classes
        regressor = GaussianProcessRegressor(kernel, alpha=model.noise[k], optimizer=None)
        regressor.fit(targets[:, None], coordinates[:, k] - model.means[targets, k])
        offsets, deviations = regressor.predict(classes, return_std=True)
        means[:, k], variances[:, k] = model.means[:, k] + offsets, deviations**2
    return means, variances


@pytest.mark.parametrize("num", [1, 2, 5, 20])
def test_posterior_of_labeled_clips_is_that_of_a_gaussian_process(num: int):
    model = fit()
    features, targets = history_of(0, num)
    person = model.adapt(features, targets)
    means, variances = by_gaussian_process(model, features, targets)
    np.testing.assert_allclose(person.means, means, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(person.variances, variances, rtol=1e-5)


def test_without_clips_it_is_the_shrunk_linear_discriminant():
    clips = synthetic_people(1)
    model = PersonModel.fit(
        clips.features, clips.targets, clips.subjects, len(LABELS), shrinkage=0.6
    )
    person = model.adapt(clips.features[:0], clips.targets[:0])
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.6)
    expected.fit(clips.features, clips.targets)
    np.testing.assert_allclose(
        np.diff(person.logits(clips.features)),
        np.diff(expected.decision_function(clips.features)),
        atol=1e-9,
    )


def test_logits_are_those_of_gaussians_with_the_mean_predictive_variance():
    model = fit()
    person = model.adapt(*history_of(0, 5))
    features, _ = history_of(3, 10)
    coordinates = (features - model.center) @ model.projection
    variance = model.noise + person.variances.mean(axis=0)
    exponents = -0.5 * ((coordinates[:, None] - person.means) ** 2 / variance).sum(axis=2)
    np.testing.assert_allclose(
        softmax(person.logits(features), axis=1), softmax(exponents, axis=1), rtol=1e-9
    )
    expected = softmax(exponents / model.temperature, axis=1) * (1 - OUTLIERS) + OUTLIERS / 3
    np.testing.assert_allclose(person.probabilities(features), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_known", [0, 2])
def test_em_never_lowers_its_objective_and_ends_at_a_maximum(seed: int, num_known: int):
    model = fit(seed)
    features, targets = history_of(seed, 24)
    targets = np.where(np.arange(24) < num_known, targets, UNKNOWN)
    found = model.fit_person(features, targets)
    assert (np.diff(found.objective) >= -1e-9).all() and len(found.objective) > 2

    known = model.adapt(features[:num_known], targets[:num_known])
    unseen = min(set(range(len(LABELS))) - set(targets[:num_known]))  # its mean is mu + b
    prior = known.means[unseen] - model.means[unseen]
    prior_variance = known.variances[unseen] - model.person_class
    coordinates = (features[num_known:] - model.center) @ model.projection
    composition = len(coordinates) * COMPOSITION * model.means.var(axis=0)
    variance = model.noise + model.person_class + composition

    def loss(parameters: np.ndarray) -> float:
        offset, scores = parameters[: len(prior)], parameters[len(prior) :]
        log_shares = scores - logsumexp(scores)
        squares = (coordinates[:, None] - model.means - offset) ** 2
        distances = (squares / variance).sum(axis=2)
        mixture = logsumexp(log_shares - distances / (2 * GUESS_TEMPERATURE), axis=1).sum()
        shares_prior = PRIOR_CLIPS / len(LABELS) * log_shares.sum()
        of_offset = ((offset - prior) ** 2 / prior_variance).sum() / 2
        return of_offset - GUESS_TEMPERATURE * (mixture + shares_prior)

    fitted = found.person.means[unseen] - model.means[unseen]
    start = np.concatenate([fitted, np.log(found.shares)])
    best = minimize(loss, start)
    assert -found.objective[-1] == pytest.approx(loss(start), abs=1e-6)
    assert best.fun == pytest.approx(loss(start), abs=1e-4)


def test_a_clip_of_unknown_emotion_moves_all_classes_alike():
    model = fit()
    features, _ = history_of(0, 1)
    person = model.adapt(features, np.array([UNKNOWN]))
    moved = person.means - model.means
    assert np.abs(moved).max() > 0.05
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-12)


def test_a_skewed_history_without_end_does_not_decide_where_a_person_is():
    """Clips of one class, forever: the offset that they suggest is never believed in full."""
    model = fit(1, spread=3)
    neutral = model.center + model.means[0] @ model.lift
    moved = [
        model.adapt(np.tile(neutral, (num, 1)), np.full(num, UNKNOWN)).means - model.means
        for num in (10, 1000)
    ]
    suggested = model.means[0] - model.means.mean(axis=0)
    assert np.linalg.norm(moved[1][0]) < 0.5 * np.linalg.norm(suggested)
    np.testing.assert_allclose(moved[0], moved[1], atol=0.2)


def test_more_clips_narrow_the_posterior():
    model = fit()
    features, targets = history_of(0, 20)
    widths = [model.adapt(features[:n], targets[:n]).variances for n in (0, 1, 5, 20)]
    assert all((after <= before + 1e-12).all() for before, after in pairwise(widths))
    np.testing.assert_allclose(widths[0], 1 - np.broadcast_to(model.noise, widths[0].shape))


def test_noise_is_estimated_as_its_share_of_the_variance():
    shares = (0.2, 0.5, 0.8)
    clips = synthetic_people(0, num_people=200, noise=shares)
    model = PersonModel.fit(
        clips.features, clips.targets, clips.subjects, len(LABELS), shrinkage=1e-9
    )
    np.testing.assert_allclose(model.noise, shares, atol=0.08)


def test_blocks_are_whitened_apart():
    clips = synthetic_people(0)
    arguments = clips.features, clips.targets, clips.subjects, len(LABELS)
    both = PersonModel.fit(*arguments, blocks=(1, 3))
    parts = [
        PersonModel.fit(clips.features[:, columns], *arguments[1:])
        for columns in (slice(0, 1), slice(1, 4))
    ]
    nothing = clips.features[:0], clips.targets[:0]
    expected = sum(
        part.adapt(nothing[0][:, columns], nothing[1]).logits(clips.features[:, columns])
        for part, columns in zip(parts, (slice(0, 1), slice(1, 4)), strict=True)
    )
    np.testing.assert_allclose(both.adapt(*nothing).logits(clips.features), expected, atol=1e-9)


def test_one_clip_of_each_class_is_enough_to_fit():
    clips = synthetic_people(0, num_people=1, num_clips=1)
    model = PersonModel.fit(clips.features, clips.targets, clips.subjects, len(LABELS))
    person = model.adapt(clips.features[:0], clips.targets[:0])
    assert (person.logits(clips.features).argmax(axis=1) == clips.targets).all()


def test_a_class_without_clips_is_refused():
    clips = synthetic_people(0)
    with pytest.raises(UserError, match="class"):
        PersonModel.fit(clips.features, clips.targets, clips.subjects, len(LABELS) + 1)


def test_contributions_add_up_to_the_difference_of_the_logits():
    model = fit()
    person = model.adapt(*history_of(0, 5))
    features, _ = history_of(4, 1)
    logits = person.logits(features)[0]
    assert person.contributions(features[0], 0, 2).sum() == pytest.approx(logits[0] - logits[2])
    middle = person.logits(person.middle(0, 2)[None])[0]
    assert middle[0] == pytest.approx(middle[2])


def test_a_fingerprint_is_of_all_values():
    model, same = fit(), fit()
    assert model.fingerprint == same.fingerprint
    other = replace(model, temperature=np.nextafter(model.temperature, 10))
    assert model.fingerprint != other.fingerprint


def test_the_factor_of_an_unknown_person_goes_with_the_first_clip():
    plain = fit()
    model = replace(plain, alone=2.5)
    features, targets = history_of(0, 2)
    np.testing.assert_allclose(
        model.unknown_person().logits(features),
        2.5 * plain.unknown_person().logits(features),
        rtol=1e-9,
    )
    np.testing.assert_array_equal(
        model.adapt(features, targets).logits(features),
        plain.adapt(features, targets).logits(features),
    )
    logits = model.unknown_person().logits(features)[0]
    total = model.unknown_person().contributions(features[0], 0, 2).sum()
    assert total == pytest.approx(logits[0] - logits[2])
