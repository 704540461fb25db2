"""Augmentation: random changes of a stack, the same for all its images, and mixup of a batch.

OpenCV warps the T images as channels of one image: several times faster than image by image or on
float tensors (`benchmarks/train.py`).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch


@dataclass(frozen=True)
class Augmentation:
    """Flip, affine map, blur, contrast, brightness and random erasing; 0 turns each off."""

    flip: float = 0.0  # probability
    rotation_deg: float = 0.0  # largest, in both directions; likewise shift, contrast, brightness
    shift: float = 0.0  # fraction of height and width
    scale_min: float = 1.0
    scale_max: float = 1.0
    blur: float = 0.0  # probability of a Gaussian blur with a kernel of 3
    blur_sigma_min: float = 0.1  # pixels
    blur_sigma_max: float = 1.0
    erase: float = 0.0  # probability of setting a rectangle to 0
    erase_area_min: float = 0.02  # fraction of the image
    erase_area_max: float = 0.1
    erase_ratio: float = 3.3  # largest ratio of height to width; the smallest is the reciprocal
    contrast: float = 0.0  # fraction, around mid-gray
    brightness: float = 0.0  # fraction of the range
    strength: float = 1.0  # multiplies all ranges and probabilities but the flip's

    def __call__(self, stack: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Augment an (H, W, T) uint8 stack, T at most 512 (OpenCV's limit); return a new array."""
        height, width = stack.shape[:2]
        matrix = self.affine_matrix(height, width, generator)
        is_identity = np.array_equal(matrix, np.eye(2, 3))
        varied = stack.copy() if is_identity else cv2.warpAffine(stack, matrix, (width, height))
        if generator.random() < self.strength * self.blur:
            sigma = generator.uniform(self.blur_sigma_min, self.blur_sigma_max)
            varied = cv2.GaussianBlur(varied, (3, 3), sigma)
        varied = varied.reshape(stack.shape)  # OpenCV drops the last axis where T is 1
        if self.contrast or self.brightness:
            contrast, brightness = self.strength * self.contrast, self.strength * self.brightness
            gain = 1 + generator.uniform(-contrast, contrast)
            offset = 255 * generator.uniform(-brightness, brightness)
            levels = gain * (np.arange(256) - 127.5) + 127.5 + offset
            varied = cv2.LUT(varied, levels.clip(0, 255).astype(np.uint8)).reshape(stack.shape)
        if generator.random() < self.strength * self.erase:
            varied[self.rectangle(height, width, generator)] = 0
        return varied

    def affine_matrix(self, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
        """Draw a flip, rotation, scale and shift about the center of an image of this size.

        Returns:
            (2, 3) float64, from (x, y, 1) before to (x, y) after.
        """
        flipped = generator.random() < self.flip
        rotation_deg, most = self.strength * self.rotation_deg, self.strength * self.shift
        angle = np.deg2rad(generator.uniform(-rotation_deg, rotation_deg))
        # a power, because scales are ratios: 1 stays 1, and none becomes negative
        scale = generator.uniform(self.scale_min**self.strength, self.scale_max**self.strength)
        shift = generator.uniform(-most, most, size=2) * (width, height)
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.array([[cosine, -sine], [sine, cosine]])
        if flipped:
            linear[:, 0] *= -1
        return np.column_stack([linear, center + shift - linear @ center])

    def rectangle(
        self, height: int, width: int, generator: np.random.Generator
    ) -> tuple[slice, slice]:
        """Draw the rows and columns of random erasing (Zhong et al. 2020, arXiv:1708.04896)."""
        area = height * width * generator.uniform(self.erase_area_min, self.erase_area_max)
        limit = np.log(self.erase_ratio)
        ratio = np.exp(generator.uniform(-limit, limit))
        tall = min(height, round(np.sqrt(area * ratio)))
        wide = min(width, round(np.sqrt(area / ratio)))
        top = generator.integers(0, height - tall + 1)
        left = generator.integers(0, width - wide + 1)
        return np.s_[top : top + tall, left : left + wide]


def mix(
    images: torch.Tensor, targets: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix the stacks of a batch in pairs (mixup, Zhang et al., ICLR 2018, arXiv:1710.09412).

    Args:
        images: (N, T, H, W) float.
        targets: (N,) int64 class indices.
        alpha: of the Beta distribution of the first stack's share; drawn with torch's generators.

    Returns:
        The mixed stacks, the classes of the second stack of each pair, and the share of the first,
        at least 0.5.
    """
    drawn = torch.distributions.Beta(alpha, alpha).sample().item()
    share = max(drawn, 1 - drawn)  # each stack is in two pairs, once first and once second
    order = torch.randperm(len(images)).to(images.device)
    return images[order].lerp_(images, share), targets[order], share
