"""stacks ──learn──> logits: a timm backbone whose first convolution takes T images, and a head.

T gray images stand where a picture has red, green and blue, so time is read by 2D convolutions
from the first layer on (early fusion); or the backbone sees one image after the other, and their
features are averaged (late fusion: Karpathy et al., "Large-scale Video Classification with
Convolutional Neural Networks", CVPR 2014). Weights trained on pictures are carried over by
`adapt_stem`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from timm.models import load_state_dict
from torch import nn

from emotion.errors import UserError
from emotion.models.landmark_classifier import LandmarkClassifier

FUSIONS = ("early", "late")
STEMS = ("mean", "balanced")
HUB_TIMEOUT_S = 5.0


class StackClassifier(nn.Module):
    """Backbone, global average pooling, and the seed's head of two layers.

    Attributes:
        geometry: a classifier of landmarks, whose log-probabilities are added to the network's; or
            all there is, where there is no backbone.
    """

    def __init__(
        self,
        backbone: str | None,
        num_images: int,
        num_classes: int,
        *,
        hidden: int = 512,
        dropout: tuple[float, float] = (0.6, 0.5),
        fusion: str = "early",
        flips: bool = False,
        landmarks: bool = False,
    ) -> None:
        """Build the network with random weights.

        Args:
            backbone: a convolutional network's name in timm; None for landmarks alone.
            num_images: T.
            num_classes: length of the logits.
            hidden: width of the head's first layer.
            dropout: probability before its first and before its second layer.
            fusion: `early`, the first convolution takes T images; or `late`, one after the other.
            flips: when it is not learning, give the mean of the logits of a stack and of its mirror
                image.
            landmarks: take landmarks beside the stacks.

        Raises:
            UserError: timm has no such network, or there is none and no landmarks either.
        """
        super().__init__()
        if fusion not in FUSIONS:
            raise UserError(f"model.fusion={fusion}: it is one of {', '.join(FUSIONS)}")
        self.fusion = fusion
        self.flips = flips
        self.frozen = False
        self.geometry = LandmarkClassifier(num_classes) if landmarks else None
        self.backbone = None
        if backbone is None:
            if not landmarks:
                raise UserError("model.backbone=null leaves nothing without model.landmarks=true")
            return
        if self.geometry is not None:
            self.geometry.requires_grad_(False)  # no loss sees it: `trainer=ddp` would wait for it
        if not timm.is_model(backbone):
            near = timm.list_models(f"*{backbone[:6]}*")[:5]
            raise UserError(
                f"model.backbone={backbone}: timm has no such network"
                + (f"; it has {', '.join(near)}" if near else "")
            )
        channels = num_images if fusion == "early" else 1
        self.backbone = timm.create_model(backbone, in_chans=channels, num_classes=0)
        if hasattr(self.backbone, "norm_head"):
            # MobileNetV3 widens the pooled features once more before its classifier; the seed's
            # head takes them as they are.
            self.backbone.conv_head = nn.Identity()
            self.backbone.norm_head = nn.Identity()
        self.head = nn.Sequential(
            nn.Dropout(dropout[0]),
            nn.Linear(self.backbone.num_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, num_classes),
        )

    def freeze(self, frozen: bool) -> None:
        """Keep the backbone as it is in training, batch norm's statistics too, or set it free."""
        self.frozen = frozen
        if self.backbone is not None:
            self.backbone.train(not frozen)

    def forward(self, stacks: torch.Tensor, landmarks: torch.Tensor | None = None) -> torch.Tensor:
        """Classify stacks.

        Args:
            stacks: (N, T, H, W) float.
            landmarks: (N, T, 468, 3) float, of their images, for a network that takes them.

        Returns:
            (N, num_classes) logits. While a network with a backbone learns, they are its own: it
            would have nothing to learn from faces that the landmarks' classifier was fitted on.
        """
        if self.backbone is None:
            return self.geometry(landmarks)
        logits = self._see(stacks)
        if self.training:
            return logits
        if self.flips:
            logits = (logits + self._see(stacks.flip(-1))) / 2
        if self.geometry is None:
            return logits
        return logits.log_softmax(dim=1) + self.geometry(landmarks).log_softmax(dim=1)

    def _see(self, stacks: torch.Tensor) -> torch.Tensor:
        """Give the (N, num_classes) logits of backbone and head."""
        num, num_images = stacks.shape[:2]
        if self.fusion == "late":
            stacks = stacks.reshape(num * num_images, 1, *stacks.shape[2:])
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone.forward_features(stacks)  # (N, F, h, w)
        features = features.mean(dim=(2, 3))
        if self.fusion == "late":
            features = features.reshape(num, num_images, -1).mean(dim=1)  # (N, F)
        return self.head(features)


def num_parameters(network: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def adapt_stem(kernel: torch.Tensor, num_images: int, stem: str) -> torch.Tensor:
    """Turn a first convolution over colours into one over T images.

    Args:
        kernel: (F, C, h, w), over C colours.
        num_images: T.
        stem: `mean`, every image gets the mean over the colours, as in the seed; or `balanced`,
            the sum over the colours divided by T, so that T times the same gray image gives the
            response that the picture in gray gave (the inflation of Carreira and Zisserman,
            "Quo Vadis, Action Recognition?", CVPR 2017, over channels).

    Returns:
        (F, T, h, w).

    Raises:
        UserError: no such stem.
    """
    if stem not in STEMS:
        raise UserError(f"model.stem={stem}: it is one of {', '.join(STEMS)}")
    gray = kernel.mean(dim=1) if stem == "mean" else kernel.sum(dim=1) / num_images
    return gray.unsqueeze(1).repeat(1, num_images, 1, 1)


@dataclass(frozen=True)
class Pretrained:
    """Where a backbone's weights come from.

    Attributes:
        loaded: whether they are pretrained at all; else they are random.
        source: file or hub repository they were loaded from, or why they are random.
    """

    loaded: bool
    source: str


def load_pretrained(
    network: StackClassifier,
    backbone: str,
    pretrained: bool | str,
    stem: str,
    head: bool = False,
) -> Pretrained:
    """Load pretrained weights into the backbone of a network.

    Args:
        network: changed in place.
        backbone: its name in timm.
        pretrained: `auto`, ImageNet weights from the hub's local cache or the hub, and random ones
            where neither has them; True, the same or an error; False, random ones; or the path of
            a state dict (`.safetensors`, or a torch file, read without running code from it).
        stem: how the first convolution is adapted, see `adapt_stem`.
        head: load the head as well, from the checkpoint of a run on the same classes.

    Returns:
        What was loaded, or why not.

    Raises:
        UserError: the weights can't be had, or are not this backbone's.
    """
    if stem not in STEMS:
        raise UserError(f"model.stem={stem}: it is one of {', '.join(STEMS)}")
    if network.backbone is None:
        return Pretrained(False, "no backbone")
    if pretrained is False:
        return Pretrained(False, "random weights, as asked for (model.pretrained=false)")
    if pretrained is True or pretrained == "auto":
        try:
            path = imagenet_weights(backbone)
        except UserError as error:
            if pretrained is True:
                raise
            return Pretrained(False, f"random weights: {error}")
        source = f"ImageNet, timm/{backbone}"
    else:
        path = Path(pretrained)
        source = str(path)
    load_backbone(network, path, stem, head)
    return Pretrained(True, f"{source}, head and all" if head else source)


def load_backbone(network: StackClassifier, path: Path, stem: str, head: bool = False) -> None:
    """Load a state dict into the backbone of a network; what the backbone lacks is passed over.

    Args:
        network: changed in place.
        path: a state dict of the bare backbone, or of a `StackClassifier` around it, or a
            checkpoint that holds one.
        stem: how a first convolution over other than T channels is adapted.
        head: load the head of a `StackClassifier` as well.

    Raises:
        UserError: no such file, or the weights are not this backbone's.
    """
    if not path.is_file():
        raise UserError(
            f"model.pretrained={path}: no such file (or auto, true, false); "
            "experiment=pretrain_stills makes one from labelled pictures of faces"
        )
    try:
        weights = load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"model.pretrained={path}: not a state dict: {reason}") from error
    if head:
        load_head(network, weights, path)
    weights = strip_prefix(weights)
    own = network.backbone.state_dict()
    stem_key = network.backbone.default_cfg["first_conv"] + ".weight"
    if stem_key in weights and weights[stem_key].shape != own[stem_key].shape:
        weights[stem_key] = adapt_stem(weights[stem_key], own[stem_key].shape[1], stem)
    missing = [key for key in own if key not in weights]
    misshapen = [k for k in own if k in weights and weights[k].shape != own[k].shape]
    if missing or misshapen:
        wrong = f"lacks {missing[0]}" if missing else f"has another shape of {misshapen[0]}"
        raise UserError(f"model.pretrained={path}: not the weights of this backbone: it {wrong}")
    network.backbone.load_state_dict({key: weights[key] for key in own})


def load_head(network: StackClassifier, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load the head out of the state dict of a `StackClassifier`, or of a module around it.

    Raises:
        UserError: it has none, or one of another shape.
    """
    marker = "head."
    inside = {key.split(marker, 1)[1]: v for key, v in weights.items() if f".{marker}" in f".{key}"}
    try:
        network.head.load_state_dict({key: inside[key] for key in network.head.state_dict()})
    except (KeyError, RuntimeError):
        raise UserError(
            f"model.pretrained_head=true: {path} has no head of "
            f"model.hidden={network.head[1].out_features} and as many classes"
        ) from None


def strip_prefix(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take the backbone's part out of a larger network's state dict."""
    marker = "backbone."
    inside = {k.split(marker, 1)[1]: v for k, v in weights.items() if marker in k}
    return inside or dict(weights)


def imagenet_weights(backbone: str) -> Path:
    """Find a backbone's ImageNet weights, or fetch them.

    Args:
        backbone: its name in timm.

    Returns:
        A file.

    Raises:
        UserError: neither the hub's local cache nor the hub itself has them.
    """
    repository = timm.get_pretrained_cfg(backbone).hf_hub_id
    if not repository:
        raise UserError(f"timm has no pretrained weights of {backbone}")
    filename = "model.safetensors"
    cached = try_to_load_from_cache(repository, filename)
    if isinstance(cached, str):
        return Path(cached)
    if not hub_answers():
        raise UserError(
            f"{repository} is not in the local cache, and the hub does not answer within "
            f"{HUB_TIMEOUT_S:.0f} s"
        )
    try:
        return Path(hf_hub_download(repository, filename))
    except Exception as error:
        raise UserError(f"{repository} can't be fetched: {str(error).splitlines()[0]}") from error


@lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Find out, once a process, whether the hub can be reached.

    The hub's client retries for the better part of a minute, for every model anew; a connection
    that is not there after a few seconds will not carry weights either.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    answered = []

    def ask() -> None:
        try:
            with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S):
                answered.append(True)
        except (OSError, HTTPException):
            pass  # the caller reports that the hub does not answer

    # In a thread, because the look-up of a name has no time limit of its own.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return bool(answered)
