"""A linear discriminant of landmarks and blendshapes: the baseline that a network has to beat."""

from math import prod

import numpy as np
import torch
from torch import nn

from emotion.models.person_model import PersonModel
from emotion.stacks.blendshapes import BLENDSHAPES, NOISE_SCORE
from emotion.stacks.face_values import PART_SHAPES, PARTS
from emotion.stacks.landmarks import NUM_POINTS

NEVER = -1e4  # logit of a class that had no stacks to fit


class FaceClassifier(nn.Module):
    """Regularized linear discriminant analysis of values of faces, fitted in closed form.

    The features of each part (landmarks, blendshapes) summarize it over the images; images that
    repeat the one before (no face, no frame) do not count. The features of each part have a total
    variance of 1. The logits are those of a `PersonModel` of which no person is known. A few faces
    are enough for it, where gradient descent on the same features overfits (docs/results.md).
    """

    def __init__(self, inputs: str, num_classes: int) -> None:
        """Build a classifier of `inputs` (see `PARTS`); its logits are 0 until `fit` is called."""
        super().__init__()
        features = {"landmarks": LandmarkFeatures, "blendshapes": BlendshapeFeatures}
        self.parts = nn.ModuleDict({part: features[part]() for part in PARTS[inputs]})
        num_features = sum(part.num_features for part in self.parts.values())
        self.register_buffer("weight", torch.zeros(num_classes, num_features))
        self.register_buffer("bias", torch.zeros(num_classes))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the (N, num_classes) logits of values of faces, see `features`."""
        return self.head(self.features(values))

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Return the (N, num_classes) logits of (N, F) features."""
        return features @ self.weight.T + self.bias

    def features(self, values: torch.Tensor) -> torch.Tensor:
        """Return the (N, F) features of values of faces, (N, T, ...) float of `values_shape`."""
        counts = is_new(values)
        return torch.cat(
            [self.parts[name](part, counts) for name, part in self._split(values).items()], dim=1
        )

    def fit(
        self, values: np.ndarray, targets: np.ndarray, components: int, shrinkage: float
    ) -> None:
        """Fit the features and the discriminant.

        Args:
            values: (N, T, ...) float32.
            targets: (N,) class indices.
            components: principal components of each part; fewer if there are fewer stacks.
            shrinkage: weight of the identity in the covariance, above 0, at most 1.
        """
        stacks = torch.from_numpy(values)
        counts = is_new(stacks)
        for name, part in self._split(stacks).items():
            self.parts[name].fit(part, counts)
        features = self.features(stacks).double().numpy()  # (N, F)
        seen = np.unique(targets)
        # Without a known person, it makes no difference which stacks share one.
        person = PersonModel.fit(
            features,
            np.searchsorted(seen, targets),
            [""] * len(targets),
            len(seen),
            [part.num_features for part in self.parts.values()],
            components,
            shrinkage,
        ).unknown_person()
        self.bias.fill_(NEVER)
        self.weight.zero_()
        self.weight[seen] = torch.from_numpy(person.weight).to(self.weight)
        self.bias[seen] = torch.from_numpy(person.bias).to(self.bias)

    def _split(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        shapes = {part: PART_SHAPES[part] for part in self.parts}
        flat = values.flatten(start_dim=2).split([prod(each) for each in shapes.values()], dim=2)
        return {
            part: values.reshape(*values.shape[:2], *shapes[part])
            for part, values in zip(shapes, flat, strict=True)
        }


class LandmarkFeatures(nn.Module):
    """Means and standard deviations over the images of each x and y of aligned landmarks.

    An affine map aligns the points of each image with the mean face, which removes the pose of the
    head and the proportions of the face.
    """

    num_features = 4 * NUM_POINTS

    def __init__(self) -> None:
        """Build features that are 0 until `fit` is called."""
        super().__init__()
        self.register_buffer("reference", torch.zeros(NUM_POINTS, 3))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, landmarks: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return the (N, F) features of (N, T, 468, 3) float normalized landmarks.

        `counts` are the weights of the images, (N, T), of `is_new`.
        """
        points = align(landmarks, self.reference)[..., :2].flatten(start_dim=2)  # (N, T, 2 P)
        return self.scale * torch.cat(mean_and_deviation(points, counts), dim=1)

    def fit(self, landmarks: torch.Tensor, counts: torch.Tensor) -> None:
        """Fit the mean face and the scale."""
        reference = landmarks.mean(dim=(0, 1))  # (468, 3)
        self.reference.copy_(reference - reference.mean(dim=0))
        self.scale.fill_(1)
        self.scale.copy_(1 / total_deviation(self(landmarks, counts)))


class BlendshapeFeatures(nn.Module):
    """Mean, deviation, 10th and 90th percentile over the images of each blendshape's logarithm.

    Without the logarithm, which makes equal ratios equal steps, movements whose scores are small
    (brows lowered, eyes wide) would hardly count beside those of large ones.
    """

    num_features = 4 * len(BLENDSHAPES)

    def __init__(self) -> None:
        """Build features that are not scaled until `fit` is called."""
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, blendshapes: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return the (N, F) features of (N, T, 52) float; `counts` as for `LandmarkFeatures`."""
        logs = (blendshapes.clamp(min=0) + NOISE_SCORE).log()
        mean, deviation = mean_and_deviation(logs, counts)
        tails = [percentile(logs, counts, share) for share in (0.1, 0.9)]
        return self.scale * torch.cat([mean, deviation, *tails], dim=1)

    def fit(self, blendshapes: torch.Tensor, counts: torch.Tensor) -> None:
        """Fit the scale."""
        self.scale.fill_(1)
        self.scale.copy_(1 / total_deviation(self(blendshapes, counts)))


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


def is_new(values: torch.Tensor) -> torch.Tensor:
    """Return (N, T) ones for images of (N, T, ...) values that differ from the one before."""
    flat = values.flatten(start_dim=2)  # (N, T, D)
    moved = (flat[:, 1:] - flat[:, :-1]).abs().sum(dim=2) > 0  # (N, T - 1)
    return torch.cat([torch.ones_like(flat[:, :1, 0]), moved.to(flat.dtype)], dim=1)


def mean_and_deviation(
    values: torch.Tensor, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (N, D) means and standard deviations of (N, T, D) over the images.

    `counts` are the weights of the images, (N, T).
    """
    shares = (counts / counts.sum(dim=1, keepdim=True)).unsqueeze(-1)  # (N, T, 1)
    mean = (shares * values).sum(dim=1)
    return mean, (shares * (values - mean.unsqueeze(1)).square()).sum(dim=1).sqrt()


def percentile(values: torch.Tensor, counts: torch.Tensor, share: float) -> torch.Tensor:
    """Return the (N, D) percentile of (N, T, D) over the images that count, as NumPy's default.

    Without `torch.quantile`, which cannot be exported to ONNX. `counts` are (N, T) ones and zeros.
    """
    last = values.amax(dim=1, keepdim=True) + 1  # images that do not count are sorted to the end
    ordered, _ = torch.where(counts.unsqueeze(-1) > 0, values, last).sort(dim=1)
    place = share * (counts.sum(dim=1) - 1)  # (N,)
    low, high = (
        ordered.gather(1, index.long().reshape(-1, 1, 1).expand(-1, 1, values.shape[2])).squeeze(1)
        for index in (place.floor(), place.ceil())
    )
    return low + (place - place.floor()).unsqueeze(1) * (high - low)


def total_deviation(features: torch.Tensor) -> torch.Tensor:
    """Return the square root of the total variance of (N, F) features; 1 if they do not vary."""
    variance = features.var(dim=0, correction=0).sum()
    return torch.where(variance > 0, variance, 1.0).sqrt()
