"""A linear discriminant of face landmarks: the baseline that a network has to beat."""

import numpy as np
import torch
from torch import nn

from emotion.stacks.landmarks import NUM_POINTS

NEVER = -1e4  # logit of a class that had no stacks to fit


class LandmarkClassifier(nn.Module):
    """Regularized linear discriminant analysis of aligned landmarks, fitted in closed form.

    An affine map aligns the points of each image with the mean face, which removes the pose of the
    head and the proportions of the face. The features are the mean and the standard deviation of
    each x and y over the images; images that repeat the one before (no face, no frame) do not
    count. The classes are Gaussians with one covariance, estimated on principal components and
    shrunk towards a multiple of the identity: Friedman, "Regularized Discriminant Analysis",
    Journal of the American Statistical Association 84, 1989. A few faces are enough for it, where
    gradient descent on the same features overfits (docs/results.md).
    """

    def __init__(self, num_classes: int) -> None:
        """Build a classifier whose logits are 0 until `fit` is called."""
        super().__init__()
        self.register_buffer("reference", torch.zeros(NUM_POINTS, 3))
        self.register_buffer("weight", torch.zeros(num_classes, 4 * NUM_POINTS))
        self.register_buffer("bias", torch.zeros(num_classes))

    def forward(self, landmarks: torch.Tensor) -> torch.Tensor:
        """Return the (N, num_classes) logits of (N, T, 468, 3) float normalized landmarks."""
        features = describe(align(landmarks, self.reference), is_new(landmarks))
        return features @ self.weight.T + self.bias

    def fit(
        self, landmarks: np.ndarray, targets: np.ndarray, components: int, shrinkage: float
    ) -> None:
        """Fit the discriminant.

        Args:
            landmarks: (N, T, 468, 3) float32.
            targets: (N,) class indices.
            components: number of principal components; fewer if there are fewer stacks.
            shrinkage: weight of the identity in the covariance, above 0, at most 1.
        """
        images = torch.from_numpy(landmarks)
        reference = images.mean(dim=(0, 1))  # (468, 3)
        reference -= reference.mean(dim=0)
        features = describe(align(images, reference), is_new(images)).double().numpy()  # (N, F)
        center = features.mean(axis=0)
        _, _, axes = np.linalg.svd(features - center, full_matrices=False)
        axes = axes[: max(1, min(components, len(features) - 1))]  # (K, F)
        projected = (features - center) @ axes.T  # (N, K)
        seen = np.unique(targets)
        means = np.stack([projected[targets == index].mean(axis=0) for index in seen])
        residuals = projected - means[np.searchsorted(seen, targets)]
        covariance = residuals.T @ residuals / len(residuals)
        # With one stack per class there are no residuals; any multiple of the identity will do.
        variance = np.trace(covariance) / len(covariance) or 1.0
        covariance = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(len(covariance))
        directions = np.linalg.solve(covariance, means.T).T  # (classes, K)
        weight = directions @ axes  # (classes, F)
        bias = -0.5 * (directions * means).sum(axis=1) - weight @ center
        self.reference.copy_(reference)
        self.bias.fill_(NEVER)
        self.weight.zero_()
        self.weight[seen] = torch.from_numpy(weight).to(self.weight)
        self.bias[seen] = torch.from_numpy(bias).to(self.bias)


def align(landmarks: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Align (..., P, 3) faces with a centered (P, 3) reference by the least-squares affine map."""
    centered = landmarks - landmarks.mean(dim=-2, keepdim=True)
    gram = centered.transpose(-1, -2) @ centered  # (..., 3, 3)
    return centered @ (inverse(gram) @ (centered.transpose(-1, -2) @ reference))


def inverse(matrices: torch.Tensor) -> torch.Tensor:
    """Invert (..., 3, 3) matrices by cross products, which can be exported to ONNX."""
    first, second, third = matrices.unbind(dim=-2)

    def cross(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one.roll(-1, -1) * other.roll(1, -1) - one.roll(1, -1) * other.roll(-1, -1)

    columns = [cross(second, third), cross(third, first), cross(first, second)]
    determinant = (first * columns[0]).sum(dim=-1, keepdim=True).unsqueeze(-1)
    return torch.stack(columns, dim=-1) / determinant


def is_new(landmarks: torch.Tensor) -> torch.Tensor:
    """Return (N, T) ones for images of (N, T, P, 3) landmarks that differ from the one before."""
    moved = (landmarks[:, 1:] - landmarks[:, :-1]).abs().sum(dim=(2, 3)) > 0  # (N, T - 1)
    return torch.cat([torch.ones_like(landmarks[:, :1, 0, 0]), moved.to(landmarks.dtype)], dim=1)


def describe(aligned: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return (N, 4 P) means and standard deviations of x and y over the images.

    Args:
        aligned: (N, T, P, 3).
        counts: (N, T), weight of each image.
    """
    points = aligned[..., :2].flatten(start_dim=2)  # (N, T, 2 P)
    shares = (counts / counts.sum(dim=1, keepdim=True)).unsqueeze(-1)  # (N, T, 1)
    mean = (shares * points).sum(dim=1)
    deviation = (shares * (points - mean.unsqueeze(1)).square()).sum(dim=1).sqrt()
    return torch.cat([mean, deviation], dim=1)
