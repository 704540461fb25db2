import pytest
import torch
from sklearn import metrics as independent

from emotion.metrics import judge, mean_per_clip, running_metrics


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(200, 5, generator=generator).softmax(dim=1)
    targets = torch.randint(5, (200,), generator=generator)
    return probabilities, targets


def test_scores_agree_with_scikit_learn(predictions):
    probabilities, targets = predictions
    scores = judge(probabilities, targets)
    predicted = probabilities.argmax(dim=1)
    assert scores.num == 200
    assert scores.accuracy == pytest.approx(independent.accuracy_score(targets, predicted))
    assert scores.macro_f1 == pytest.approx(
        independent.f1_score(targets, predicted, average="macro")
    )
    assert scores.confusion == independent.confusion_matrix(targets, predicted).tolist()


def test_class_that_does_not_occur_does_not_count():
    probabilities = torch.eye(5)[torch.tensor([0, 0, 1, 2])]
    targets = torch.tensor([0, 1, 1, 2])
    expected = independent.f1_score(targets, [0, 0, 1, 2], average="macro")
    assert judge(probabilities, targets).macro_f1 == pytest.approx(expected)


def test_running_metrics_agree_with_judging_all_at_once(predictions):
    probabilities, targets = predictions
    metrics = running_metrics(5, "val/")
    for part in (slice(0, 64), slice(64, 200)):
        metrics.update(probabilities[part], targets[part])
    computed = metrics.compute()
    scores = judge(probabilities, targets)
    assert computed["val/accuracy"].item() == pytest.approx(scores.accuracy)
    assert computed["val/macro_f1"].item() == pytest.approx(scores.macro_f1)


def test_stacks_of_a_clip_are_averaged():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    targets = torch.tensor([0, 1, 0])
    means, of_clips = mean_per_clip(probabilities, targets, ["b", "a", "b"])
    torch.testing.assert_close(means, torch.tensor([[0.6, 0.4], [0.2, 0.8]]))
    assert of_clips.tolist() == [0, 1]
