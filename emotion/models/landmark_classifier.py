"""landmarks ──learn──> logits: what the shape of a face alone tells, by a linear discriminant.

An honest simple row beside the convolutional networks, and their companion: `model=landmarks` takes
it alone, `model.landmarks=true` adds its log-probabilities to a network's.
"""

import numpy as np
import torch
from torch import nn

from emotion.errors import UserError
from emotion.models.temperature import best_temperature
from emotion.stacks.landmarks import NUM_POINTS

NEVER = -1e4  # the logit of a class that no stack was fitted on


class LandmarkClassifier(nn.Module):
    """Regularised linear discriminant analysis of aligned landmarks, fitted in one go.

    Each image's points are carried onto the mean face by the affine map that brings them nearest,
    which takes out the head's pose and the proportions of the face. What is left, in its x and y,
    is averaged over the images, and so is how far it strays (mean and standard deviation of each
    coordinate). Images that repeat the one before, for want of a face or of a frame, do not count.
    The classes are taken for Gaussian with one covariance, estimated on principal components and
    shrunk towards a multiple of the identity: Friedman, "Regularized Discriminant Analysis",
    Journal of the American Statistical Association 84, 1989. Few faces are enough for that, where
    gradient descent on the same features overfits (docs/results.md).
    """

    def __init__(self, num_classes: int) -> None:
        """Begin with a classifier that knows nothing; `fit` and `calibrate` teach it.

        Args:
            num_classes: length of the logits.
        """
        super().__init__()
        num_features = 4 * NUM_POINTS
        self.register_buffer("reference", torch.zeros(NUM_POINTS, 3))
        self.register_buffer("weight", torch.zeros(num_classes, num_features))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.scale = nn.Parameter(torch.ones(()))  # of the logits; all that gradients change

    def forward(self, landmarks: torch.Tensor) -> torch.Tensor:
        """Classify faces by their landmarks.

        Args:
            landmarks: (N, T, 468, 3) float, see `emotion.stacks.face_crop.normalize_landmarks`.

        Returns:
            (N, num_classes) logits.
        """
        features = describe(align(landmarks, self.reference), is_new(landmarks))
        return self.scale * (features @ self.weight.T + self.bias)

    def fit(
        self,
        landmarks: np.ndarray,
        targets: np.ndarray,
        components: int = 80,
        shrinkage: float = 0.6,
    ) -> None:
        """Learn from stacks.

        Args:
            landmarks: (N, T, 468, 3) float32.
            targets: (N,) class indices.
            components: principal components that are kept; fewer if there are fewer stacks.
            shrinkage: above 0, up to 1, the share of the identity in the covariance.

        Raises:
            UserError: a setting is out of range.
        """
        if components < 1:
            raise UserError(f"model.discriminant.components={components}: it is 1 or above")
        if not 0 < shrinkage <= 1:
            raise UserError(f"model.discriminant.shrinkage={shrinkage}: it is above 0, up to 1")
        images = torch.from_numpy(landmarks)
        reference = images.mean(dim=(0, 1))  # (468, 3)
        self.reference.copy_(reference - reference.mean(dim=0))
        features = (
            describe(align(images, self.reference), is_new(images)).double().numpy()
        )  # (N, F)
        center = features.mean(axis=0)
        _, _, axes = np.linalg.svd(features - center, full_matrices=False)
        axes = axes[: max(1, min(components, len(features) - 1))]  # (K, F)
        places = (features - center) @ axes.T  # (N, K)
        known = np.unique(targets)
        means = np.stack([places[targets == index].mean(axis=0) for index in known])
        strayed = places - means[np.searchsorted(known, targets)]
        covariance = strayed.T @ strayed / len(strayed)
        # With one stack of each class nothing strays, and the nearest stack tells.
        spread = np.trace(covariance) / len(covariance) or 1.0
        covariance = (1 - shrinkage) * covariance + shrinkage * spread * np.eye(len(covariance))
        directions = np.linalg.solve(covariance, means.T).T  # (classes, K)
        weight = directions @ axes  # (classes, F)
        bias = -0.5 * (directions * means).sum(axis=1) - weight @ center
        self.bias.fill_(NEVER)
        self.weight.zero_()
        self.weight[known] = torch.from_numpy(weight).float()
        self.bias[known] = torch.from_numpy(bias).float()

    @torch.no_grad()
    def calibrate(self, landmarks: np.ndarray, targets: np.ndarray) -> None:
        """Set the scale of the logits, so that probabilities mean what they say.

        The covariance knows how one person's faces differ, not how people do: on people that it was
        not fitted on, a discriminant is far surer than it is right, and whatever else its
        log-probabilities are added to would not be heard.

        Args:
            landmarks: (N, T, 468, 3) float32, of stacks that it was not fitted on.
            targets: (N,) class indices; of classes that it was not fitted on nothing is learnt.
        """
        self.scale.fill_(1.0)
        known = np.flatnonzero(self.bias.numpy() > NEVER)
        of_known = np.isin(targets, known)
        if of_known.any():
            logits = self(torch.from_numpy(landmarks[of_known])).double().numpy()[:, known]
            places = np.searchsorted(known, targets[of_known])
            self.scale.fill_(1 / best_temperature(logits, places))


def align(landmarks: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Carry faces onto a reference by the affine map of least squares.

    Args:
        landmarks: (..., P, 3).
        reference: (P, 3), of mean 0.

    Returns:
        (..., P, 3).
    """
    centered = landmarks - landmarks.mean(dim=-2, keepdim=True)
    gram = centered.transpose(-1, -2) @ centered  # (..., 3, 3)
    return centered @ (inverse(gram) @ (centered.transpose(-1, -2) @ reference))


def inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Invert (..., 3, 3) matrices by cross products, which ONNX knows how to do."""
    first, second, third = matrices.unbind(dim=-2)
    columns = [cross(second, third), cross(third, first), cross(first, second)]
    determinant = (first * columns[0]).sum(dim=-1, keepdim=True).unsqueeze(-1)
    return torch.stack(columns, dim=-1) / determinant


def cross(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Give the cross product of (..., 3) vectors."""
    return one.roll(-1, -1) * other.roll(1, -1) - one.roll(1, -1) * other.roll(-1, -1)


def is_new(landmarks: torch.Tensor) -> torch.Tensor:
    """Tell which images are not the one before once more.

    Args:
        landmarks: (N, T, P, 3).

    Returns:
        (N, T), 1 or 0; 1 for the first.
    """
    moved = (landmarks[:, 1:] - landmarks[:, :-1]).abs().sum(dim=(2, 3)) > 0  # (N, T - 1)
    return torch.cat([torch.ones_like(landmarks[:, :1, 0, 0]), moved.to(landmarks.dtype)], dim=1)


def describe(aligned: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Turn aligned landmarks into what is classified.

    Args:
        aligned: (N, T, P, 3).
        counts: (N, T), what each image counts.

    Returns:
        (N, 4 P): means and standard deviations of x and y.
    """
    points = aligned[..., :2].flatten(start_dim=2)  # (N, T, 2 P)
    shares = (counts / counts.sum(dim=1, keepdim=True)).unsqueeze(-1)  # (N, T, 1)
    mean = (shares * points).sum(dim=1)
    deviation = (shares * (points - mean.unsqueeze(1)).square()).sum(dim=1).sqrt()
    return torch.cat([mean, deviation], dim=1)
