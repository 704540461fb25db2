"""The classifier of landmarks and blendshapes against NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from emotion.models.face_classifier import (
    FaceClassifier,
    align,
    inverse,
    is_new,
    mean_and_deviation,
    percentile,
)
from emotion.stacks.face_values import PARTS, values_shape


def faces(num: int, num_images: int = 4, num_classes: int = 3, seed: int = 0):
    """Draw stacks of one face that moves differently in each class; return them and targets."""
    generator = np.random.default_rng(seed)
    face = np.random.default_rng(99).normal(size=(468, 3))
    moves = np.random.default_rng(98).normal(size=(num_classes, 468, 3))
    targets = generator.integers(num_classes, size=num)
    targets[:num_classes] = range(num_classes)
    noise = generator.normal(size=(num, num_images, 468, 3))
    landmarks = face + 0.05 * moves[targets][:, None] + 0.2 * noise
    return landmarks.astype(np.float32), targets


def values_of(inputs: str, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw values of faces, blendshapes of which move as the landmarks do, and targets."""
    landmarks, targets = faces(num, seed=seed)
    blendshapes = (landmarks[:, :, :52, 0] / 10 + 0.5).clip(0, 1)
    joined = np.concatenate([landmarks.reshape(num, 4, -1), blendshapes], axis=2)
    parts = {"landmarks": landmarks, "blendshapes": blendshapes, "face": joined}
    assert parts[inputs].shape[2:] == values_shape(inputs)
    return parts[inputs], targets


def classify(classifier: FaceClassifier, landmarks: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return classifier(torch.from_numpy(landmarks)).numpy()


def test_inverse_equals_numpys():
    matrices = np.random.default_rng(0).normal(size=(5, 2, 3, 3))
    actual = inverse(torch.from_numpy(matrices)).numpy()
    np.testing.assert_allclose(actual, np.linalg.inv(matrices), rtol=1e-9)


def test_alignment_inverts_any_affine_map():
    generator = np.random.default_rng(0)
    face = generator.normal(size=(468, 3))
    face -= face.mean(axis=0)
    maps, shifts = generator.normal(size=(2, 3, 3, 3)), generator.normal(size=(2, 3, 1, 3))
    aligned = align(torch.from_numpy(face @ maps + shifts), torch.from_numpy(face))
    np.testing.assert_allclose(aligned.numpy(), np.broadcast_to(face, (2, 3, 468, 3)), atol=1e-8)


def test_alignment_is_the_least_squares_solution():
    generator = np.random.default_rng(1)
    face, reference = generator.normal(size=(2, 468, 3))
    reference -= reference.mean(axis=0)
    with_ones = np.hstack([face, np.ones((468, 1))])
    solution, *_ = np.linalg.lstsq(with_ones, reference, rcond=None)
    aligned = align(torch.from_numpy(face), torch.from_numpy(reference)).numpy()
    np.testing.assert_allclose(aligned, with_ones @ solution, atol=1e-9)


def test_means_and_deviations_equal_numpys():
    values = np.random.default_rng(2).normal(size=(2, 5, 7))
    counts = torch.ones(2, 5, dtype=float)
    mean, deviation = mean_and_deviation(torch.from_numpy(values), counts)
    np.testing.assert_allclose(mean.numpy(), values.mean(axis=1))
    np.testing.assert_allclose(deviation.numpy(), values.std(axis=1))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 0.9, 1.0])
def test_percentiles_equal_numpys_over_the_images_that_count(share: float):
    values = np.random.default_rng(3).normal(size=(3, 6, 4))
    counts = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]], float)
    actual = percentile(torch.from_numpy(values), torch.from_numpy(counts), share)
    expected = [
        np.percentile(stack[own > 0], 100 * share, axis=0)
        for stack, own in zip(values, counts, strict=True)
    ]
    np.testing.assert_allclose(actual.numpy(), expected)


def test_repeated_images_have_no_weight():
    own = torch.from_numpy(values_of("face", 6)[0])  # (6, 4, 1456)
    filled = own[:, [0, 0, 1, 2, 3, 3, 3]]
    assert is_new(own).all()
    assert is_new(filled).tolist() == [[1, 0, 1, 1, 1, 0, 0]] * 6
    classifier = FaceClassifier("face", 3)
    classifier.fit(own.numpy(), np.arange(6) % 3, 80, 0.6)
    torch.testing.assert_close(classifier.features(filled), classifier.features(own))
    still = own[:, [2, 2, 2]]
    assert is_new(still).sum() == 6
    assert not classifier.features(still)[:, 936:1872].any()  # no deviation of a landmark


def test_features_of_each_part_have_a_total_variance_of_1():
    values, targets = values_of("face", 30)
    classifier = FaceClassifier("face", 3)
    classifier.fit(values, targets, 80, 0.6)
    features = classifier.features(torch.from_numpy(values)).numpy()
    parts = features[:, :1872], features[:, 1872:]
    assert [part.var(axis=0).sum() for part in parts] == pytest.approx([1, 1], rel=1e-4)
    logs = np.log(values[:, :, 1404:] + 0.02)
    raw = np.concatenate(
        [logs.mean(1), logs.std(1), *np.percentile(logs, [10, 90], axis=1)], axis=1
    )
    scale = np.sqrt(raw.var(axis=0).sum())
    np.testing.assert_allclose(parts[1], raw / scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("inputs", PARTS)
def test_classes_are_learned_from_any_values(inputs: str):
    values, targets = values_of(inputs, 60)
    others, expected = values_of(inputs, 40, seed=1)
    classifier = FaceClassifier(inputs, 3)
    classifier.fit(values, targets, 80, 0.6)
    assert (classify(classifier, others).argmax(axis=1) == expected).mean() > 0.9


@pytest.mark.parametrize(("components", "shrinkage"), [(10, 0.6), (25, 0.2), (80, 1.0), (500, 0.5)])
def test_logits_equal_scikit_learns_discriminant(components: int, shrinkage: float):
    landmarks, targets = faces(60)
    others, _ = faces(40, seed=1)
    classifier = FaceClassifier("landmarks", 3)
    classifier.fit(landmarks, targets, components, shrinkage)

    def features(stacks: np.ndarray) -> np.ndarray:
        return classifier.features(torch.from_numpy(stacks)).double().numpy()

    pca = PCA(min(components, 59), svd_solver="full").fit(features(landmarks))
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    discriminant.fit(pca.transform(features(landmarks)), targets)
    expected = discriminant.decision_function(pca.transform(features(others)))
    expected -= np.log(
        discriminant.priors_
    )  # the priors also weight the covariance; ours are equal
    actual = classify(classifier, others)
    np.testing.assert_allclose(
        actual - actual.mean(axis=1, keepdims=True),
        expected - expected.mean(axis=1, keepdims=True),
        atol=1e-4 * np.abs(expected).max(),
    )
    assert actual.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
    assert len(set(actual.argmax(axis=1))) == 3  # the test would pass trivially with one class


def test_a_class_without_stacks_is_never_predicted():
    landmarks, targets = faces(30)
    classifier = FaceClassifier("landmarks", 5)
    classifier.fit(landmarks, 2 * targets, 80, 0.6)  # classes 0, 2, 4
    logits = classify(classifier, 100 * faces(200, seed=1)[0])
    assert set(logits.argmax(axis=1)) <= {0, 2, 4} and np.isfinite(logits).all()
    probabilities = torch.from_numpy(logits).softmax(dim=1)
    assert (probabilities[:, [1, 3]] == 0).all()


def test_fit_with_one_stack_of_each_class():
    landmarks, targets = faces(3)
    classifier = FaceClassifier("landmarks", 3)
    classifier.fit(landmarks, targets, 80, 0.6)
    assert classify(classifier, landmarks).argmax(axis=1).tolist() == targets.tolist()


def test_logits_do_not_change_with_pose_and_proportions():
    landmarks, targets = faces(30)
    classifier = FaceClassifier("landmarks", 3)
    classifier.fit(landmarks, targets, 80, 0.6)
    turn = np.float32([[0.8, -0.6, 0.0], [0.6, 0.8, 0.1], [0.0, 0.1, 1.3]])
    expected = classify(classifier, landmarks)
    actual = classify(classifier, landmarks @ turn + np.float32([3, -2, 1]))
    np.testing.assert_allclose(actual, expected, atol=1e-3 * np.abs(expected).max())
