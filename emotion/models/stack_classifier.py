"""A timm backbone whose first convolution takes the T images of a stack, and a head."""

import timm
import torch
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn

from emotion.errors import UserError


class StackClassifier(nn.Module):
    """Classifies stacks by a 2D backbone that pools its features, and a head of two layers.

    With early fusion, the T gray images are the input channels of the first convolution. With late
    fusion, the features of single images are averaged (Karpathy et al., "Large-scale Video
    Classification with Convolutional Neural Networks", CVPR 2014).
    """

    def __init__(
        self,
        backbone: str,
        num_images: int,
        num_classes: int,
        *,
        image_px: int | None = None,  # for networks of one image size (ViT, Swin); None: their own
        hidden: int = 512,  # width of the head's first layer
        dropout: tuple[float, float] = (0.6, 0.5),  # before the head's first and second layer
        fusion: str = "early",  # or "late"
    ) -> None:
        """Build the network of a backbone of timm with random weights."""
        super().__init__()
        self.fusion = fusion
        self.frozen = False
        self.backbone = build_backbone(backbone, num_images if fusion == "early" else 1, image_px)
        if isinstance(self.backbone, MobileNetV3):
            # The original head takes the pooled features without the 1280-d layer of MobileNetV3.
            for name in ("conv_head", "norm_head", "act2"):
                setattr(self.backbone, name, nn.Identity())
            num_features = self.backbone.num_features
        else:
            num_features = self.backbone.head_hidden_size
        self.head = nn.Sequential(
            nn.Dropout(dropout[0]),
            nn.Linear(num_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, num_classes),
        )

    def freeze(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone's weights and batch norm statistics."""
        self.frozen = frozen
        self.backbone.train(not frozen)

    def forward(self, stacks: torch.Tensor) -> torch.Tensor:
        """Return the (N, num_classes) logits of (N, T, H, W) float stacks."""
        return self.head(self.features(stacks))

    def features(self, stacks: torch.Tensor) -> torch.Tensor:
        """Return the (N, F) pooled features of (N, T, H, W) float stacks, the head's input."""
        num, num_images = stacks.shape[:2]
        if self.fusion == "late":
            stacks = stacks.reshape(num * num_images, 1, *stacks.shape[2:])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(stacks)  # (N, F)
        if self.fusion == "late":
            features = features.reshape(num, num_images, -1).mean(dim=1)  # (N, F)
        return features


def check_backbone(name: str) -> None:
    """Raise a UserError if timm has no network of this name."""
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:5])
        hint = f"; timm has {near}" if near else ""
        raise UserError(f"model.backbone must be a timm network, got {name!r}{hint}")


def build_backbone(name: str, channels: int, image_px: int | None) -> nn.Module:
    """Build a timm network that gives (N, F) pooled features for (N, channels, H, W) images.

    Raises:
        UserError: there is no such network, or timm cannot build it for these images.
    """
    check_backbone(name)
    is_fixed = timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": image_px} if is_fixed and image_px else {}
    try:
        return timm.create_model(name, in_chans=channels, num_classes=0, **size)
    except Exception as error:  # timm has no exception of its own
        raise UserError(
            f"model.backbone={name} cannot be built for {channels} images of "
            f"{image_px or 'its default'} px: {' '.join(str(error).split())[:200]}"
        ) from error


def num_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
